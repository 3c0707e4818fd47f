"""A quadrature grid in the order of its atoms, as nonlocal functionals want it.

PySCF sorts the points of a molecule into boxes, so that blocks of points see few orbitals, and pads
them. A nonlocal functional wants each atom's points together and no padding. Both orders describe
the same points: this module keeps the map between them, so that orbitals are evaluated in PySCF's
order and the functional in its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AtomGrid:
    """Points of a molecular grid, atom by atom.

    Attributes:
        order: [n] position of each point in the host's grid of `host_size` points.
        host_size: points of the host's grid, padding included.
        coords: [n, 3] in Bohr.
        weights: [n] quadrature weights in Bohr^3.
        atomic_weights: [n] weights of each atom's own grid, before the partition of space.
        atom_coords: [n_atoms, 3] in Bohr.
        atom_slices: the points of each atom.
    """

    order: NDArray
    host_size: int
    coords: NDArray
    weights: NDArray
    atomic_weights: NDArray
    atom_coords: NDArray
    atom_slices: tuple[slice, ...]

    @classmethod
    def of(cls, grids: Any) -> AtomGrid:
        """Read a built PySCF grid in any order, padded or not, but with no point left out."""
        owner = np.asarray(grids.atm_idx)
        order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
        atom_coords = np.asarray(grids.mol.atom_coords())
        stops = np.cumsum(np.bincount(owner[order], minlength=len(atom_coords))).tolist()
        return cls(
            order=order,
            host_size=owner.size,
            coords=np.asarray(grids.coords)[order],
            weights=np.asarray(grids.weights)[order],
            atomic_weights=np.asarray(grids.quadrature_weights)[order],
            atom_coords=atom_coords,
            atom_slices=tuple(
                slice(start, stop) for start, stop in zip([0, *stops[:-1]], stops, strict=True)
            ),
        )

    def gather(self, values: NDArray) -> NDArray:
        """[..., host_size] in the host's order to [..., n] in the order of the atoms."""
        return values[..., self.order]

    def scatter(self, values: NDArray) -> NDArray:
        """[..., n] in the order of the atoms to the host's order, zero on the padding."""
        out = np.zeros((*values.shape[:-1], self.host_size))
        out[..., self.order] = values
        return out

    def parts(self, atomwise: bool) -> Iterator[tuple[slice, slice]]:
        """Atoms and points that have to be evaluated together.

        Args:
            atomwise: the grids of different atoms are independent of each other.

        Yields:
            Slice of atoms and slice of points: one atom at a time, or everything at once.
        """
        if not atomwise:
            yield slice(0, len(self.atom_slices)), slice(0, len(self.order))
            return
        for atom, points in enumerate(self.atom_slices):
            yield slice(atom, atom + 1), points


def in_order_of_atoms(grids: Any) -> Any:
    """A copy of a PySCF grid without sorting and padding: the order of PySCF's grid response."""
    plain = grids.copy()
    plain.alignment = 1
    return plain.build(with_non0tab=True, sort_grids=False)
