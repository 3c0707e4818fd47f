"""What became of an adsorbate in a relaxation, and which relaxations ended in the same place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, connected_components

from ase_neuralxc.workflows.sites import Site, adsorption_sites, normal, surface_operations

ADSORBED = "adsorbed"
DESORBED = "desorbed"
DISSOCIATED = "dissociated"
ISOMERISED = "isomerised"
RECONSTRUCTED = "reconstructed"
FAILED = "failed"

#: Atoms are bonded within this multiple of the sum of their covalent radii ...
BONDED = 1.3
#: ... and an adsorbate is gone when none of its atoms is within this multiple of the slab's.
TOUCHING = 1.5


@dataclass(frozen=True, eq=False)
class Surface:
    """A clean slab, its sites and its symmetry.

    Attributes:
        clean: the relaxed slab.
        sites: symmetry-distinct sites.
        operations: rotations [3, 3] and translations [3] that leave the upper side up.
    """

    clean: Atoms
    sites: list[Site]
    operations: list[tuple[NDArray, NDArray]]

    @classmethod
    def of(cls, clean: Atoms, symprec: float) -> Surface:
        """Sites and symmetry of a slab.

        Args:
            clean: the slab.
            symprec: tolerance of the symmetry in Angstrom.

        Returns:
            The surface.
        """
        operations = surface_operations(clean, symprec)
        return cls(clean, adsorption_sites(clean, symprec), operations)

    def lateral(self, vectors: NDArray) -> NDArray:
        """Lengths of vectors along the surface, at their nearest images.

        Args:
            vectors: [n, 3] in Angstrom.

        Returns:
            [n] in Angstrom.
        """
        up = normal(self.clean)
        return self.spatial(vectors - np.outer(vectors @ up, up))

    def spatial(self, vectors: NDArray) -> NDArray:
        """Lengths of vectors at their nearest lateral images.

        Args:
            vectors: [n, 3] in Angstrom.

        Returns:
            [n] in Angstrom.
        """
        return np.linalg.norm(self.nearest(vectors), axis=1)

    def nearest(self, vectors: NDArray) -> NDArray:
        """Vectors at their nearest lateral images.

        Args:
            vectors: [n, 3] in Angstrom.

        Returns:
            [n, 3] in Angstrom.
        """
        cell = np.array([self.clean.cell[0], self.clean.cell[1], 100.0 * normal(self.clean)])
        images: NDArray = find_mic(vectors, cell, (True, True, False))[0]
        return images


def _within(atoms: Atoms, rows: NDArray, columns: NDArray, factor: float) -> NDArray:
    """[rows, columns] whether pairs of atoms are within a multiple of their covalent radii."""
    between = atoms.positions[columns][None] - atoms.positions[rows][:, None]
    lengths = find_mic(between.reshape(-1, 3), atoms.cell, atoms.pbc)[1]
    radii = covalent_radii[atoms.numbers]
    return lengths.reshape(between.shape[:2]) < factor * (
        radii[rows][:, None] + radii[columns][None]
    )


def bonds(atoms: Atoms, indices: NDArray) -> NDArray:
    """Which of some atoms are bonded to each other.

    Args:
        atoms: the structure.
        indices: [n] of the atoms.

    Returns:
        [n, n] symmetric, False on the diagonal.
    """
    linked = _within(atoms, indices, indices, BONDED)
    np.fill_diagonal(linked, False)
    return linked


def classify(atoms: Atoms, clean: Atoms, molecule: Atoms, moved: float) -> str:
    """What became of an adsorbate.

    Args:
        atoms: relaxed slab with adsorbate, whose atoms come last.
        clean: the relaxed slab without it.
        molecule: the adsorbate in the gas phase.
        moved: a slab atom that moves further than this (Angstrom) makes a reconstruction.

    Returns:
        "desorbed", "dissociated" (into more fragments than before), "isomerised" (other bonds,
        same number of fragments), "reconstructed" (the slab) or "adsorbed", the first that applies.
    """
    slab, added = np.arange(len(clean)), np.arange(len(clean), len(atoms))
    if not _within(atoms, added, slab, TOUCHING).any():
        return DESORBED
    before, after = bonds(molecule, np.arange(len(molecule))), bonds(atoms, added)
    if not np.array_equal(before, after):
        pieces = [int(connected_components(graph)[0]) for graph in (before, after)]
        return DISSOCIATED if pieces[1] > pieces[0] else ISOMERISED
    shifts = find_mic(atoms.positions[slab] - clean.positions, clean.cell, clean.pbc)[1]
    return RECONSTRUCTED if shifts.max() > moved else ADSORBED


def nearest_site(atoms: Atoms, surface: Surface) -> str:
    """Name of the site below the adsorbate's atom that is nearest to the slab.

    Args:
        atoms: relaxed slab with adsorbate.
        surface: the clean slab.

    Returns:
        The name of the site that is laterally nearest.
    """
    added = atoms.positions[len(surface.clean) :]
    point = added[np.argmin(added @ normal(surface.clean))]
    distances = [
        surface.lateral(
            np.array([point - turn @ site.position - shift for turn, shift in surface.operations])
        ).min()
        for site in surface.sites
    ]
    return surface.sites[int(np.argmin(distances))].name


def equivalent(first: Atoms, second: Atoms, surface: Surface, tolerance: float) -> bool:
    """Whether two adsorbates sit alike, up to the symmetry of the slab and equal atoms.

    Args:
        first: relaxed slab with adsorbate.
        second: another one.
        surface: the clean slab.
        tolerance: largest distance between matched atoms in Angstrom.

    Returns:
        True if an operation brings every atom of one adsorbate to an equal atom of the other.
    """
    added = slice(len(surface.clean), None)
    foreign = first.numbers[added, None] != second.numbers[None, added]
    for rotation, shift in surface.operations:
        here = first.positions[added] @ rotation.T + shift
        between = second.positions[None, added] - here[:, None]
        cost = surface.spatial(between.reshape(-1, 3)).reshape(foreign.shape) + 1e6 * foreign
        if cost.min(axis=1).max() > tolerance:
            continue
        if cost[linear_sum_assignment(cost)].max() <= tolerance:
            return True
    return False


def nearest_copy(atoms: Atoms, target: Atoms, surface: Surface) -> Atoms:
    """The copy of an adsorption structure that is nearest to another one.

    Args:
        atoms: relaxed slab with adsorbate, which the symmetry of the slab puts in many places.
        target: another one, with the same atoms in the same order.
        surface: the clean slab.

    Returns:
        The copy whose adsorbate is nearest to the target's, with energy and forces where `atoms`
        has them. Slab atoms are in the order of the slab; equal atoms of the adsorbate may have
        changed places; atoms that are bonded in both are at the same image of the cell.
    """
    n, clean = len(surface.clean), surface.clean
    fixed = np.zeros(n, dtype=bool)
    fixed[[i for i in _held(atoms) if i < n]] = True
    added = np.arange(n, len(atoms))
    before, after = bonds(target, added), bonds(atoms, added)
    foreign = 1e6 * (atoms.numbers[n:, None] != target.numbers[None, n:])
    best: float | None = None
    for turn, shift in surface.operations:
        moved = atoms.positions @ turn.T + shift
        between = target.positions[None, n:] - moved[n:, None]
        cost = surface.spatial(between.reshape(-1, 3)).reshape(foreign.shape) + foreign
        # of each atom of the target, the atom that goes there
        taken = linear_sum_assignment(cost.T)[1]
        linked = before & after[np.ix_(taken, taken)]
        moves = _moves(target.positions[n:], moved[n + taken], linked, surface)
        length = float(np.linalg.norm(moves, axis=1).sum())
        if best is not None and length >= best - 1e-6:
            continue
        between = clean.positions[None] - (clean.positions @ turn.T + shift)[:, None]
        slab_order = surface.spatial(between.reshape(-1, 3)).reshape(n, n).argmin(axis=1)
        if np.array_equal(fixed[slab_order], fixed):  # else the operation turns what is held
            best, rotation = length, turn
            order = np.concatenate([slab_order, n + np.argsort(taken)])
            chosen = np.concatenate([moved[:n], (target.positions[n:] + moves)[np.argsort(taken)]])
    assert best is not None, "the identity is always among the operations"
    copy = atoms.copy()
    copy.positions[order] = chosen
    if atoms.calc is not None:
        forces = np.empty_like(copy.positions)
        forces[order] = atoms.get_forces(apply_constraint=False) @ rotation.T
        energy = atoms.get_potential_energy()
        copy.calc = SinglePointCalculator(copy, energy=energy, forces=forces)
    return copy


def _moves(start: NDArray, end: NDArray, linked: NDArray, surface: Surface) -> NDArray:
    """[m, 3] shortest ways of an adsorbate's atoms, of those that stay bonded together.

    Each by itself, atoms of one molecule might go to different images of where it ends.
    """
    moves = surface.nearest(end - start)
    for piece in range((found := connected_components(linked))[0]):
        members = np.flatnonzero(found[1] == piece)
        reached, previous = breadth_first_order(csr_array(linked), members[0], directed=False)
        for atom in reached[1:]:
            pairs = [places[atom] - places[previous[atom]] for places in (start, end)]
            old, new = surface.nearest(np.array(pairs))
            moves[atom] = moves[previous[atom]] + new - old
        middle = moves[members].mean(axis=0)
        moves[members] += surface.nearest(middle[None])[0] - middle
    return moves


def _held(atoms: Atoms) -> list[int]:
    """Atoms that `FixAtoms` holds."""
    return [int(i) for c in atoms.constraints if isinstance(c, FixAtoms) for i in c.get_indices()]


def duplicates(
    structures: Sequence[Atoms], surface: Surface, tolerance: float, energy_tolerance: float
) -> list[int | None]:
    """Which structures repeat one of lower energy.

    Args:
        structures: relaxed slabs with adsorbates, with their energies.
        surface: the clean slab.
        tolerance: largest distance between matched atoms in Angstrom.
        energy_tolerance: largest difference of energies in eV.

    Returns:
        For each the index of the structure that it repeats, or None.
    """
    energies = [float(atoms.get_potential_energy()) for atoms in structures]
    found: list[int | None] = [None] * len(structures)
    distinct: list[int] = []
    for index in np.argsort(energies, kind="stable").tolist():
        for other in distinct:
            if abs(energies[index] - energies[other]) <= energy_tolerance and equivalent(
                structures[index], structures[other], surface, tolerance
            ):
                found[index] = other
                break
        else:
            distinct.append(index)
    return found
