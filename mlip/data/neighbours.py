"""Neighbour lists (vesin), and their reuse between the steps of a trajectory.

Any cell is allowed: smaller than the cutoff (several images of a neighbour, and of the atom
itself), skewed, with periodic and open directions mixed, or none at all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from ase.geometry import complete_cell
from numpy.typing import NDArray
from torch import Tensor
from vesin import NeighborList

from ase_neuralxc.errors import InvalidInputError


@dataclass(frozen=True, eq=False)
class Neighbours:
    """Directed edges of one structure, sorted by the centre.

    Attributes:
        edge_index: [2, e] integers: neighbour j, centre i.
        shifts: [e, 3] integers: the neighbour sits at r_j + shift . cell.
    """

    edge_index: NDArray[np.int64]
    shifts: NDArray[np.int32]


def neighbours(positions: NDArray, cell: NDArray, pbc: NDArray, cutoff: float) -> Neighbours:
    """All pairs of atoms closer than the cutoff, each in both directions.

    Args:
        positions: [n, 3] in Angstrom; atoms may lie outside the cell.
        cell: [3, 3] rows are lattice vectors; those of open directions are not used.
        pbc: [3] periodic directions.
        cutoff: in Angstrom.

    Returns:
        The edges; none if no atom has a neighbour.

    Raises:
        InvalidInputError: no atom, positions that are not finite, or a periodic direction whose
            lattice vector vanishes or depends on the others.
    """
    positions = np.ascontiguousarray(positions, dtype=np.float64)
    cell = np.asarray(cell, dtype=np.float64)
    pbc = np.asarray(pbc, dtype=bool)
    if len(positions) == 0:
        raise InvalidInputError("positions: expected at least one atom, got none")
    if not np.isfinite(positions).all() or not np.isfinite(cell).all():
        bad = np.flatnonzero(~np.isfinite(positions).all(axis=1)).tolist()
        raise InvalidInputError(
            f"positions: expected finite numbers, got NaN or inf in atoms {bad} or in the cell"
        )
    # Open directions get a unit vector normal to the rest: their own vector may be zero.
    box = complete_cell(np.where(pbc[:, None], cell, 0.0))
    lengths = np.linalg.norm(box, axis=1)
    missing = pbc & ~cell.any(axis=1)
    if missing.any() or abs(np.linalg.det(box)) < 1e-6 * lengths.prod():
        raise InvalidInputError(
            f"cell: expected independent lattice vectors in the periodic directions "
            f"{pbc.tolist()}, got {cell.tolist()}"
        )
    # One thread: at the sizes of a training structure, starting threads costs more than the search.
    search = NeighborList(cutoff=cutoff, full_list=True, sorted=True, n_threads=1)
    centre, neighbour, shifts = search.compute(positions, box, pbc, "ijS")
    edge_index = np.stack([neighbour, centre]).astype(np.int64)
    return Neighbours(edge_index, np.asarray(shifts, dtype=np.int32).reshape(-1, 3))


class SkinNeighbours:
    """Neighbour list of one moving structure, searched again only when it could be incomplete.

    Pairs are searched up to cutoff + skin and then filtered at each step. With F the map of the
    old cell to the new one and u the displacement of the atoms relative to it (without its mean,
    which moves no atom against another), a pair that was not found is now further apart than
    s_min(F) (cutoff + skin) - 2 max|u|: the list is complete while that is at least the cutoff.

    Args:
        cutoff: in Angstrom.
        skin: in Angstrom; 0 searches at every step.
        device: where the edges are wanted. The search itself runs on the CPU.

    Attributes:
        searches: how often a list has been built.
    """

    def __init__(self, cutoff: float, skin: float = 0.5, device: str | torch.device = "cpu"):
        self.cutoff = cutoff
        self.skin = skin
        self.device = torch.device(device)
        self.searches = 0
        self._reference: tuple[NDArray, NDArray, NDArray] | None = None
        self._edges = torch.empty(2, 0, dtype=torch.long)
        self._shifts = torch.empty(0, 3, dtype=torch.float64)

    def update(self, positions: NDArray, cell: NDArray, pbc: NDArray) -> tuple[Tensor, Tensor]:
        """Edges for the structure as it is now.

        Args:
            positions: [n, 3] in Angstrom, not wrapped back between calls (which is correct, but
                costs a search).
            cell: [3, 3] in Angstrom.
            pbc: [3] periodic directions.

        Returns:
            `edge_index` [2, e] and `shifts` [e, 3] (float64) of exactly the pairs closer than the
            cutoff.
        """
        positions, cell, pbc = np.asarray(positions), np.asarray(cell), np.asarray(pbc)
        if not self._still_complete(positions, cell, pbc):
            found = neighbours(positions, cell, pbc, self.cutoff + self.skin)
            self._edges = torch.from_numpy(found.edge_index).to(self.device)
            self._shifts = torch.from_numpy(found.shifts).to(self.device, torch.float64)
            self._reference = (positions.copy(), cell.copy(), pbc.copy())
            self.searches += 1
        if self.skin == 0.0:
            return self._edges, self._shifts
        now = torch.as_tensor(positions, dtype=torch.float64, device=self.device)
        vectors = now.index_select(0, self._edges[0]) - now.index_select(0, self._edges[1])
        if pbc.any():
            box = torch.as_tensor(cell, dtype=torch.float64, device=self.device)
            vectors = vectors + self._shifts @ box
        near = (vectors.square().sum(1) < self.cutoff**2).nonzero().squeeze(1)
        return self._edges.index_select(1, near), self._shifts.index_select(0, near)

    def _still_complete(self, positions: NDArray, cell: NDArray, pbc: NDArray) -> bool:
        if self._reference is None or self.skin == 0.0:
            return False
        old_positions, old_cell, old_pbc = self._reference
        if old_positions.shape != positions.shape or not np.array_equal(old_pbc, pbc):
            return False
        if not np.isfinite(positions).all():
            return False  # the search says which atoms
        smallest = 1.0
        if not np.array_equal(old_cell, cell):
            old_box, box = (complete_cell(np.where(pbc[:, None], c, 0.0)) for c in (old_cell, cell))
            affine = np.linalg.solve(old_box, box)
            smallest = np.linalg.svd(affine, compute_uv=False)[-1]
            old_positions = old_positions @ affine
        moved = positions - old_positions
        moved = moved - moved.mean(axis=0)
        largest = np.sqrt((moved**2).sum(axis=1).max())
        return bool(smallest * (self.cutoff + self.skin) - 2.0 * largest >= self.cutoff)
