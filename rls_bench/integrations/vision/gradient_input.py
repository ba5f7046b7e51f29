"""Gradient × input: which pixels the answer of a vision network hangs on."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from rls_bench.integrations.vision.interface import check_image


def strongest(output: Tensor) -> Tensor:
    """The default score: the greatest output of the picture, the class that a classifier names."""
    return output.flatten().max()


class GradientInput:
    """``|Σ_c x_c ∂score/∂x_c|`` of any differentiable network (Shrikumar et al., 2016, arXiv 1605.01713).

    ``network`` takes [1, 3, rows, columns]; ``score`` turns what it returns into the number to explain.
    """

    def __init__(self, network: nn.Module, score: Callable[[Tensor], Tensor] = strongest) -> None:
        self._network = network
        self._score = score

    def extract(self, image: Tensor) -> Tensor:
        """[3, rows, columns] to [rows, columns]; the network's parameters get no gradient."""
        check_image(image)
        with torch.enable_grad():
            pixels = image.detach().clone().requires_grad_()
            (gradient,) = torch.autograd.grad(self._score(self._network(pixels[None])), pixels)
        return (gradient * pixels).sum(0).abs().detach().float()
