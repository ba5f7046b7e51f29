"""Saliency from Qwen2-VL's own vision tower: where its attention comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rls_bench.errors import MissingPackage
from rls_bench.integrations.vision.interface import check_image
from rls_bench.integrations.vision.recorder import recorded_attention
from rls_bench.integrations.vision.rollout import rollout

try:
    from transformers import AutoConfig
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel
    from transformers.utils import logging
except ImportError as error:
    raise MissingPackage("Qwen2-VL's tower needs transformers; run: pip install 'rls-bench[models]'") from error

# Where the tower's weights lie in a whole checkpoint, old layout and new.
_TOWER_KEYS = {r"^(model\.)?visual\.": ""}


class Qwen2VLTower:
    """Attention rollout of the tower, read evenly from all of its patches, which have no class token."""

    def __init__(self, tower: Any, processor: Any, max_pixels: int = 448 * 448) -> None:
        self._tower = tower
        self._processor = processor
        self._max_pixels = max_pixels

    @classmethod
    def from_pretrained(cls, path_or_id: str | Path, *, max_pixels: int = 448 * 448, **options: Any) -> Qwen2VLTower:
        """Load the tower alone, and its image processor, from a Qwen2-VL checkpoint: a folder, or a name on the hub.

        Pictures are shrunk to ``max_pixels``: every layer keeps a matrix of patches × patches. ``options`` go to
        transformers' own from_pretrained (``dtype``, ``revision``, ``local_files_only`` …). Raises ValueError where the
        checkpoint lacks weights of the tower.
        """
        config = AutoConfig.from_pretrained(path_or_id, **_hub_options(options))
        verbosity = logging.get_verbosity()
        # The language model's weights are left out on purpose, each of which would be reported.
        logging.set_verbosity_error()
        try:
            loaded: Any = Qwen2VisionTransformerPretrainedModel.from_pretrained(
                path_or_id,
                config=config.vision_config,
                key_mapping=_TOWER_KEYS,
                output_loading_info=True,
                **options,
            )
        finally:
            logging.set_verbosity(verbosity)
        tower, loading = loaded
        if missing := sorted(loading["missing_keys"]):
            raise ValueError(
                f"{path_or_id}: wanted a Qwen2-VL checkpoint with its vision tower; it lacks {len(missing)} weights, "
                f"{missing[0]} among them"
            )
        processor = Qwen2VLImageProcessorPil.from_pretrained(path_or_id, **_hub_options(options))
        return cls(tower.eval().requires_grad_(False), processor, max_pixels)

    @torch.no_grad()
    def extract(self, image: Tensor) -> Tensor:
        """[3, rows, columns] to one value for each of the language model's tokens, [merged rows, merged columns]."""
        check_image(image)
        pixels = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        size = {"shortest_edge": self._processor.size.shortest_edge, "longest_edge": self._max_pixels}
        prepared = self._processor(images=[pixels], size=size, return_tensors="pt")
        with recorded_attention(self._tower) as attention:
            self._tower(
                prepared["pixel_values"].to(self._tower.device, self._tower.dtype),
                grid_thw=prepared["image_grid_thw"].to(self._tower.device),
            )
        patches = attention[0].shape[0]
        even = torch.full((patches,), 1 / patches, dtype=torch.float32, device=attention[0].device)
        _, rows, columns = prepared["image_grid_thw"][0].tolist()
        return by_token(rollout(attention, even), rows, columns, self._tower.spatial_merge_size).cpu()


def by_token(patches: Tensor, rows: int, columns: int, merge: int) -> Tensor:
    """Mean over the patches of each token: [rows · columns] to [rows / merge, columns / merge].

    The processor lays the merge × merge patches that become one token side by side.
    """
    return patches.reshape(rows // merge, columns // merge, merge**2).mean(-1)


def _hub_options(options: dict[str, Any]) -> dict[str, Any]:
    """Of the options, those that say where and which files are."""
    names = ("cache_dir", "force_download", "local_files_only", "revision", "token")
    return {name: options[name] for name in names if name in options}
