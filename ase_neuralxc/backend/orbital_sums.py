"""Sums over orbitals on neighbouring points: densities, and matrices of potentials.

Dense products over the orbitals that reach a block of points, with half of the work for the kinetic
term, whose matrix is a square.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Natural occupations below this are rounding noise of the decomposition of a density matrix.
_OCCUPIED = 1e-12


@dataclass(frozen=True, eq=False)
class Block:
    """Orbitals on neighbouring points; equal to itself alone.

    Attributes:
        points: where they are in the grid.
        orbitals: [4, m, n] (or [1, m, n]) values and gradients of m orbitals.
        index: [m] which orbitals these are, or None for all.
    """

    points: slice
    orbitals: NDArray
    index: NDArray | None

    def restrict(self, coefficients: NDArray) -> NDArray:
        """Rows [m, ...] of coefficients [nao, ...] that belong to the orbitals of the block."""
        return coefficients if self.index is None else coefficients[self.index]

    def add(self, matrix: NDArray, part: NDArray) -> None:
        """Add a matrix [m, m] over the orbitals of the block to one [nao, nao] over all."""
        if self.index is None:
            matrix += part
        else:
            matrix[np.ix_(self.index, self.index)] += part


def natural_orbitals(density_matrix: NDArray) -> tuple[NDArray, NDArray]:
    """Coefficients [nao, m] and numbers [m] with D = C diag(n) C^T, of a symmetric [nao, nao]."""
    numbers, vectors = np.linalg.eigh(density_matrix)
    kept = np.abs(numbers) > _OCCUPIED * max(np.abs(numbers).max(), 1e-300)
    return vectors[:, kept], numbers[kept]


def densities_of(orbitals: NDArray, occupied: NDArray, occupations: NDArray) -> NDArray:
    """Density, gradient and tau from occupied orbitals.

    Args:
        orbitals: [4, nao, n] atomic orbitals and their gradients at n points, or [1, nao, n].
        occupied: [nao, m] coefficients.
        occupations: [m] numbers of electrons.

    Returns:
        [5, n], or [1, n] without gradients.
    """
    values = [occupied.T @ component for component in orbitals]
    out = np.empty((5 if len(values) == 4 else 1, orbitals.shape[-1]))
    out[0] = occupations @ (values[0] * values[0])
    for axis in range(1, len(values)):
        out[axis] = (2 * occupations) @ (values[0] * values[axis])
    if len(values) == 4:
        out[4] = sum((0.5 * occupations) @ (v * v) for v in values[1:])
    return out


def potential_matrix(orbitals: NDArray, potential: NDArray) -> NDArray:
    """Matrix of a potential given by derivatives of the energy, weights included.

    Args:
        orbitals: [4, m, n] atomic orbitals and their gradients, or [1, m, n].
        potential: [rows, n] derivatives with respect to density, gradient and tau, as many as
            there are.

    Returns:
        [m, m], symmetric.
    """
    half = (0.5 * potential[0]) * orbitals[0]
    for axis in range(1, min(len(potential), 4)):
        half += potential[axis] * orbitals[axis]
    matrix = half @ orbitals[0].T
    matrix = matrix + matrix.T
    if len(potential) == 5:
        for sign in (1.0, -1.0):
            (points,) = np.nonzero(sign * potential[4] > 0)
            if points.size:
                matrix += sign * _kinetic(orbitals, potential[4], points)
    return matrix


def _kinetic(orbitals: NDArray, potential: NDArray, points: NDArray) -> NDArray:
    """Half the sum over axes of A A^T, A the gradients times the root of the potential's size."""
    every = points.size == potential.size
    root = np.sqrt(0.5 * np.abs(potential if every else potential[points]))
    matrix = np.zeros((orbitals.shape[1],) * 2)
    for component in orbitals[1:]:
        scaled = (component if every else component[:, points]) * root
        matrix += scaled @ scaled.T  # one half of a product: the BLAS sees the square
    return matrix
