"""Few radial points for the one-centre energies of PAW atoms.

GPAW tabulates an atom's functions at 200 to 550 radial points within its sphere, two thirds of them
less than half a Bohr from the nucleus, and sums over all of them. In the index of the table,
functions and volume elements are smooth, so that Gauss-Legendre points in the index integrate the
same energy with fewer evaluations of the functional: 36 % in transition metals, 45 % in silicon,
three quarters in oxygen. The tables are taken there by polynomials through the nearest entries,
once per kind of atom; slopes are GPAW's central differences, so that energies stay GPAW's up to the
error of the rule, most of which is a constant of the core.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Entries of the table through which the polynomial of a point goes.
STENCIL = 8
#: Points of the rule for one entry of the table, and the least number of points. Learned
#: functionals vary faster than those made by hand: with half as many, the energy between two very
#: different densities of an atom is off by some 0.1 meV.
DENSITY, LEAST = 0.36, 170

#: In words, for the fidelity tag.
RULE = f"max({DENSITY:g} N, {LEAST})"


class RadialRule:
    """Quadrature points within the augmentation sphere, and functions at them.

    Args:
        grid: GPAW's radial grid, with `r_g` and `dr_g` in Bohr.
        entries: how many of its points are within the sphere, at least `STENCIL`.
        count: points of the rule; without it what `RULE` says.

    Attributes:
        radii: [g] in Bohr, increasing.
        volumes: [g] in Bohr^3: 4 pi r^2 dr.
    """

    def __init__(self, grid: Any, entries: int, count: int | None = None) -> None:
        if count is None:
            count = min(entries, max(round(DENSITY * entries), LEAST))
        nodes, weights = np.polynomial.legendre.leggauss(count)
        positions = 0.5 * (entries - 1) * (1 + nodes)
        self._matrix = _interpolation(positions, entries)
        self._inverse_spacing = 1 / grid.dr_g[:entries]
        self.radii = self(grid.r_g)
        spacing = self(grid.dr_g)
        self.volumes = 4 * np.pi * self.radii**2 * spacing * weights * 0.5 * (entries - 1)

    def __call__(self, table: NDArray) -> NDArray:
        """A function at the points of the rule, from GPAW's table along the last axis."""
        return np.ascontiguousarray(table[..., : len(self._matrix)] @ self._matrix)

    def slope(self, table: NDArray) -> NDArray:
        """Its radial derivative: central differences of the table, at the points of the rule."""
        inner = table[..., : len(self._inverse_spacing)]
        difference = np.gradient(inner, axis=-1)
        difference[..., 0] = 2 * difference[..., 1] - difference[..., 2]  # not one-sided there
        return self(difference * self._inverse_spacing)


def _interpolation(positions: NDArray, entries: int) -> NDArray:
    """[entry, point]: Lagrange polynomials through the nearest entries of a table."""
    first = np.clip(np.round(positions - (STENCIL - 1) / 2), 0, entries - STENCIL).astype(int)
    matrix = np.zeros((entries, len(positions)))
    offsets = np.arange(STENCIL)
    for point, (position, start) in enumerate(zip(positions, first, strict=True)):
        for k in offsets:
            others = offsets[offsets != k]
            matrix[start + k, point] = np.prod((position - start - others) / (k - others))
    return matrix
