"""Spherical harmonics of many directions in few operations, derivatives included.

Degree l is the coupling of degree l - 1 with the vector itself, one matrix product for all edges.
The gradient of a solid harmonic of degree l is a combination of those of degree l - 1, with
constant coefficients: one more matrix product. The recursion over components in `harmonics` and its
automatic derivative would run some hundred small operations instead.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from mlip.model.constants import ExactModule
from mlip.model.gaunt import gaunt_tensor
from mlip.model.harmonics import degree_slice, n_components, solid_harmonics
from mlip.model.sphere_grid import sphere_grid


class _Harmonics(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vectors: Tensor, matrix: Tensor, *couplings: Tensor) -> Tensor:
        degrees = [torch.ones_like(vectors[:, :1]), math.sqrt(3.0) * vectors]
        for coupling in couplings:
            products = degrees[-1][:, :, None] * vectors[:, None, :]
            degrees.append(products.flatten(1) @ coupling)
        harmonics = torch.cat(degrees, dim=1)
        ctx.save_for_backward(vectors, harmonics, matrix, *couplings)
        return harmonics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        vectors, harmonics, matrix, *couplings = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The derivative is to be differentiated: it must know where the harmonics come from.
            harmonics = _Harmonics.apply(vectors, matrix, *couplings)
        lower = harmonics[:, : len(matrix)] @ matrix
        above = gradient[:, None, 1:]
        derivative = (lower.view(len(vectors), 3, -1) * above).sum(2)
        return derivative, None, *[None] * len(couplings)


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
        for degree in range(2, l_max + 1):
            coupling = gaunt_tensor(degree - 1, 1, degree).flatten(0, 1)
            values = grid.values(degree)
            below = values[:, degree_slice(degree - 1), None] * grid.points[:, None, :]
            raw = below.flatten(1) @ coupling
            scale = (raw**2).sum() / (raw * values[:, degree_slice(degree)]).sum()
            self.keep(f"coupling_{degree}", coupling / scale)

    def forward(self, vectors: Tensor) -> Tensor:
        """Harmonics of vectors."""
        couplings = [getattr(self, f"coupling_{degree}") for degree in range(2, self.l_max + 1)]
        return _Harmonics.apply(vectors, self.matrix, *couplings)
