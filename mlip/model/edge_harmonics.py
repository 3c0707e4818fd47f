"""Spherical harmonics of many directions, with their derivative as one matrix product.

The gradient of a solid harmonic of degree l is a combination of those of degree l - 1, with
constant coefficients. Automatic differentiation of the recursion would run some hundred small
operations instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlip.model.constants import ExactModule
from mlip.model.harmonics import n_components, solid_harmonics
from mlip.model.sphere_grid import sphere_grid


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, matrix: Tensor, l_max: int) -> Tensor:
        harmonics = solid_harmonics(vectors, l_max)
        ctx.save_for_backward(vectors, matrix, harmonics)
        ctx.l_max = l_max
        return harmonics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        vectors, matrix, harmonics = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The derivative is to be differentiated: it must know where the harmonics come from.
            harmonics = _Harmonics.apply(vectors, matrix, ctx.l_max)
        lower = harmonics[:, : len(matrix)] @ matrix
        above = gradient[:, None, 1:]
        return (lower.view(len(vectors), 3, -1) * above).sum(2), None, None


class EdgeHarmonics(ExactModule):
    """Solid harmonics [m, (l_max + 1)^2] of vectors [m, 3], differentiable to any order.

    Args:
        l_max: largest degree, at least 1.
    """

    matrix: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.l_max = l_max
        grid = sphere_grid(2 * l_max)
        jacobian = torch.func.jacrev(lambda r: solid_harmonics(r, l_max))
        gradients = torch.func.vmap(jacobian)(grid.points)[:, 1:]
        matrix = torch.einsum("dg,gcx->dxc", grid.projection(l_max - 1), gradients)
        self.keep("matrix", matrix.reshape(n_components(l_max - 1), -1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Harmonics of vectors."""
        return _Harmonics.apply(vectors, self.matrix, self.l_max)
