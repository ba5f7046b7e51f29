"""Saliency without weights: the spectral residual, by OpenCV."""

from __future__ import annotations

import torch
from torch import Tensor

from rls_bench.errors import MissingPackage
from rls_bench.integrations.vision.interface import check_image

try:
    import cv2
except ImportError as error:
    raise MissingPackage("spectral residual saliency needs OpenCV; run: pip install 'rls-bench[models]'") from error


class SpectralResidual:
    """What stands out from the picture's average spectrum (Hou & Zhang, 2007, doi 10.1109/CVPR.2007.383267)."""

    def extract(self, image: Tensor) -> Tensor:
        """[3, rows, columns] to [rows, columns] in [0, 1]."""
        check_image(image)
        rgb = (image.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        # Only the contrib build has it, whose type hints leave it out.
        detector = cv2.saliency.StaticSaliencySpectralResidual_create()  # type: ignore[attr-defined]
        found, saliency = detector.computeSaliency(cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        if not found:
            raise ValueError(f"image: OpenCV found no saliency in a picture of {tuple(image.shape)}")
        return torch.from_numpy(saliency).float()
