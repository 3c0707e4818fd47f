"""Quadratures of the sphere that are exact up to a polynomial degree.

A product of functions with degrees L1, L2, ... projected on degree L is a polynomial of degree
L1 + L2 + ... + L: on a grid exact to that degree, products and projections are pointwise and carry
no error but rounding, so that they are exactly equivariant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.integrate import lebedev_rule
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.model.harmonics import solid_harmonics

#: Orders of Lebedev rules that exist; above the last, the product rule is used.
_LEBEDEV = (*range(3, 32, 2), *range(35, 132, 6))


@dataclass(frozen=True)
class SphereGrid:
    """Points and weights.

    Attributes:
        points: [G, 3] unit vectors, float64.
        weights: [G] with sum 1: sums are means over the sphere.
        degree: polynomials up to this degree are integrated exactly.
    """

    points: Tensor
    weights: Tensor
    degree: int

    def values(self, l_max: int) -> Tensor:
        """[G, (l_max + 1)^2] harmonics at the points: coefficients to values, float64."""
        return solid_harmonics(self.points, l_max)

    def projection(self, l_max: int) -> Tensor:
        """[(l_max + 1)^2, G] values to coefficients, float64."""
        return (self.values(l_max) * self.weights[:, None]).T

    def tangent_derivatives(self, l_max: int) -> Tensor:
        """Derivatives of the harmonics along two tangents that make a right-handed frame with r.

        Args:
            l_max: largest degree.

        Returns:
            [2, G, (l_max + 1)^2], float64.
        """
        jacobian = torch.func.jacrev(lambda r: solid_harmonics(r, l_max))
        gradients = torch.func.vmap(jacobian)(self.points)
        # Any vector that is not parallel to r; which one does not matter.
        least = self.points.abs().argmin(dim=1)
        other = torch.nn.functional.one_hot(least, 3).to(self.points.dtype)
        first = torch.nn.functional.normalize(torch.linalg.cross(other, self.points), dim=1)
        second = torch.linalg.cross(self.points, first)
        return torch.stack([torch.einsum("gcx,gx->gc", gradients, t) for t in (first, second)])


def sphere_grid(degree: int) -> SphereGrid:
    """The smallest grid at hand that is exact to a degree: Lebedev's, above 131 the product rule.

    Args:
        degree: largest degree of the integrands.

    Returns:
        The grid.

    Raises:
        InvalidInputError: for a negative degree.
    """
    if degree < 0:
        raise InvalidInputError(f"degree: expected >= 0, got {degree}")
    for order in _LEBEDEV:
        if order >= degree:
            points, weights = lebedev_rule(order)
            return SphereGrid(
                torch.from_numpy(points.T.copy()), torch.from_numpy(weights / weights.sum()), order
            )
    return product_grid(degree)


def product_grid(degree: int) -> SphereGrid:
    """Gauss-Legendre points along the polar axis times equidistant azimuths.

    Args:
        degree: largest degree of the integrands, >= 0.

    Returns:
        The grid, exact to `degree`, for any degree, with positive weights.
    """
    heights, gauss = np.polynomial.legendre.leggauss(degree // 2 + 1)
    azimuths = 2 * np.pi * np.arange(degree + 1) / (degree + 1)
    radius = np.sqrt(1 - heights**2)[:, None]
    x, z = radius * np.sin(azimuths), radius * np.cos(azimuths)
    y = np.broadcast_to(heights[:, None], x.shape)
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    weights = np.repeat(gauss / 2, degree + 1) / (degree + 1)
    return SphereGrid(torch.from_numpy(points), torch.from_numpy(weights), degree)
