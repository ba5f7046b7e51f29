"""What every source of saliency looks like."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class SaliencyExtractor(Protocol):
    """Says where to look in a picture."""

    def extract(self, image: Tensor) -> Tensor:
        """Saliency of ``image`` [3, rows, columns], RGB in [0, 1]: float32 [rows', columns'], >= 0, higher is more.

        The map covers the whole picture at a resolution of the extractor's own. Raises ValueError for another shape.
        """
        ...


def check_image(image: Tensor) -> None:
    """Raise ValueError where ``image`` isn't a float picture [3, rows, columns]."""
    if image.dim() != 3 or image.shape[0] != 3 or not image.is_floating_point():
        raise ValueError(
            f"image: wanted float [3, rows, columns], RGB in [0, 1]; got {image.dtype} {tuple(image.shape)}"
        )
