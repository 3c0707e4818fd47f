"""Changes of a density matrix on a grid, and the matrices of what they induce.

Linear response needs, of a potential, only its elements between an occupied orbital and any other,
and the density changes that it meets mix one column into each occupied orbital. Both take products
of the size of the occupied space instead of that of the basis. A change that carries its `Rotation`
as a tag (PySCF's `lib.tag_array`) says that this is enough; any other is taken as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from ase_neuralxc.backend.orbital_sums import (
    Block,
    densities_of,
    natural_orbitals,
    potential_matrix,
)


class OccupiedOrbitals:
    """Occupied orbitals of one spin, with their values on points.

    Args:
        orbitals: [nao, m] orthonormal.
        overlap: [nao, nao] overlap matrix.
        electrons: in each orbital.
    """

    def __init__(self, orbitals: NDArray, overlap: NDArray, electrons: float) -> None:
        self.orbitals, self.electrons = orbitals, electrons
        self._duals = overlap @ orbitals
        self._values: WeakKeyDictionary[Block, list[NDArray]] = WeakKeyDictionary()

    def values(self, block: Block) -> list[NDArray]:
        """Values and gradients on the points of a block, four or one [m, n].

        Kept as long as the block is.
        """
        known = self._values.get(block)
        if known is None:
            rows = block.restrict(self.orbitals).T
            known = self._values[block] = [rows @ component for component in block.orbitals]
        return known

    def embed(self, columns: NDArray) -> NDArray:
        """The symmetric matrix M with M C = columns that vanishes between unoccupied orbitals.

        Args:
            columns: [nao, m] of a symmetric matrix times the orbitals C.

        Returns:
            [nao, nao].
        """
        inner = 0.5 * self._duals @ (self.orbitals.T @ columns)
        half = (columns - inner) @ self._duals.T
        return half + half.T


@dataclass(frozen=True)
class Rotation:
    """A change electrons * (C R^T + R C^T) of a density matrix.

    Attributes:
        occupied: orbitals C.
        turned: R, [nao, m] what is mixed into them.
    """

    occupied: OccupiedOrbitals
    turned: NDArray

    @property
    def change(self) -> NDArray:
        """The change of the density matrix, [nao, nao]."""
        half = self.occupied.electrons * (self.occupied.orbitals @ self.turned.T)
        return half + half.T


def tag_rotations(rotations: Sequence[Rotation]) -> Any:
    """Changes of density matrices that carry what they are made of.

    Args:
        rotations: one for a closed shell, or one per spin.

    Returns:
        [nao, nao] for one rotation, else [2, nao, nao], with the attribute `rotations`. From them,
        the integrator returns matrices that are right where an occupied orbital is involved.
    """
    changes = [rotation.change for rotation in rotations]
    matrix = changes[0] if len(changes) == 1 else np.stack(changes)
    return lib.tag_array(matrix, rotations=tuple(rotations))


class Change(Protocol):
    """A change of one density matrix, and the matrix of a potential, block by block of points."""

    @property
    def matrix(self) -> NDArray:
        """Sum of what was added, [nao, nao]."""

    def densities(self, block: Block) -> NDArray:
        """Changes of density, gradient and tau, [5, n], or [1, n] without gradients."""

    def add(self, block: Block, potential: NDArray) -> None:
        """Add the matrix of a potential on the points of a block.

        Args:
            block: of points.
            potential: [rows, n] derivatives with respect to density, gradient and tau, with
                weights.
        """


def changes_of(matrices: Any) -> list[Change]:
    """What the integrator works with, from changes of density matrices.

    Args:
        matrices: symmetric [nao, nao], or one per spin, [2, nao, nao]; tagged or not.

    Returns:
        One or two changes.
    """
    rotations = getattr(matrices, "rotations", None)
    if rotations is not None:
        return [_RotationChange(rotation) for rotation in rotations]
    plain = np.asarray(matrices)
    return [_WholeChange(m) for m in (plain if plain.ndim == 3 else plain[None])]


class _WholeChange:
    """Any change, as natural orbitals, and the whole matrix."""

    def __init__(self, change: NDArray) -> None:
        self._orbitals, self._numbers = natural_orbitals(change)
        self.matrix = np.zeros_like(change)

    def densities(self, block: Block) -> NDArray:
        return densities_of(block.orbitals, block.restrict(self._orbitals), self._numbers)

    def add(self, block: Block, potential: NDArray) -> None:
        block.add(self.matrix, potential_matrix(block.orbitals, potential))


class _RotationChange:
    """A rotation, and the columns of the matrix that belong to occupied orbitals."""

    def __init__(self, rotation: Rotation) -> None:
        self._rotation = rotation
        self._columns = np.zeros_like(rotation.turned)

    @property
    def matrix(self) -> NDArray:
        return self._rotation.occupied.embed(self._columns)

    def densities(self, block: Block) -> NDArray:
        occupied = self._rotation.occupied
        a = occupied.values(block)
        turned = occupied.electrons * block.restrict(self._rotation.turned).T
        b = [turned @ component for component in block.orbitals]
        out = np.empty((5 if len(a) == 4 else 1, a[0].shape[-1]))
        out[0] = 2.0 * _dot(a[0], b[0])
        for axis in range(1, len(a)):
            out[axis] = 2.0 * (_dot(a[0], b[axis]) + _dot(a[axis], b[0]))
        if len(a) == 4:
            out[4] = sum(_dot(x, y) for x, y in zip(a[1:], b[1:], strict=True))
        return out

    def add(self, block: Block, potential: NDArray) -> None:
        values, rows = self._rotation.occupied.values(block), len(potential)
        factor = potential[0] * values[0]
        for axis in range(1, min(rows, 4)):
            factor += potential[axis] * values[axis]
        columns = block.orbitals[0] @ factor.T
        for axis in range(1, min(rows, 4)):
            slope = potential[axis] * values[0]
            if rows == 5:
                slope += (0.5 * potential[4]) * values[axis]
            columns += block.orbitals[axis] @ slope.T
        if block.index is None:
            self._columns += columns
        else:
            self._columns[block.index] += columns


def _dot(a: NDArray, b: NDArray) -> NDArray:
    return np.einsum("mn,mn->n", a, b)
