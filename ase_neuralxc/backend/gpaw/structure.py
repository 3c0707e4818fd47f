"""From a system to what GPAW solves: a cell with vacuum, k-points, a spin state."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_neuralxc.backend.collinear import collinear_moments, periodic_reference
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.kpoints import KPointGrid, resolve_kpoints
from ase_neuralxc.backend.system import System, resolve_spin
from ase_neuralxc.backend.vacuum import box_around, cell_heights, check_vacuum
from ase_neuralxc.errors import InvalidInputError

#: Atoms nearer than this (Angstrom) to the boundary of a direction that is not periodic are moved
#: to its middle; farther ones stay where they are, so that small displacements shift nothing.
MARGIN = 1.0


@dataclass(frozen=True)
class Structure:
    """A system as GPAW takes it.

    Attributes:
        system: with its spin state resolved and its cell set.
        atoms: positions in the cell, initial moments of a polarised calculation.
        reference: "rks" or "uks".
        fixed_moment: whether the total moment is held.
        kpoints: grid of k-points.
    """

    system: System
    atoms: Atoms
    reference: str
    fixed_moment: bool
    kpoints: KPointGrid


def build_structure(
    system: System, settings: GPAWSettings, cell: NDArray | None = None
) -> Structure:
    """Check a system, and complete what it leaves open.

    Args:
        system: atoms, spin state, cell.
        settings: vacuum, k-points, reference, smearing, dipole layer.
        cell: box of an earlier calculation of the same molecule; it is kept as long as it has
            vacuum enough, so that the plane waves do not change with every displacement.

    Returns:
        The structure.

    Raises:
        InvalidInputError: too little vacuum, a dipole layer where none is possible, a spin state
            that the electrons cannot have.
    """
    if not system.periodic:
        system = resolve_spin(system)
    if system.cell is None:
        system = replace(system, cell=_box(system, settings.vacuum, cell))
    check_vacuum(system, np.asarray(system.cell))
    if settings.dipole_layer:
        _check_dipole_layer(system)
    kpoints = resolve_kpoints(settings.kpts, system.cell, system.pbc)
    system, reference, fixed = _spin(system, settings, len(kpoints.scaled))
    atoms = Atoms(
        numbers=system.numbers, positions=system.positions, cell=system.cell, pbc=system.pbc
    )
    _bring_inside(atoms)
    if system.spin_state.magmoms is not None and reference == "uks":
        atoms.set_initial_magnetic_moments(system.spin_state.magmoms)
    return Structure(system, atoms, reference, fixed, kpoints)


def _box(system: System, vacuum: float, previous: NDArray | None) -> NDArray:
    """The box of an earlier calculation as long as it has vacuum enough, or a new one."""
    extent = np.ptp(system.positions, axis=0)
    if previous is not None and (np.diag(previous) - extent > 1.6 * vacuum).all():
        return previous
    return box_around(system.positions, vacuum)


def _check_dipole_layer(system: System) -> None:
    if not system.periodic:
        return
    cell = np.asarray(system.cell)
    across = np.abs([cell[0, 2], cell[1, 2], cell[2, 0], cell[2, 1]]).max()
    if tuple(system.pbc) != (True, True, False) or across > 1e-8:
        raise InvalidInputError(
            "dipole_layer: expected a slab with pbc = [True, True, False] and its third lattice "
            f"vector along z, normal to the others, got pbc = {list(system.pbc)} and the cell "
            f"{cell.tolist()}"
        )


def _bring_inside(atoms: Atoms) -> None:
    """Move a slab or molecule off the boundary of the directions that are not periodic."""
    normals, heights = cell_heights(np.asarray(atoms.cell))
    for axis in np.nonzero(~np.asarray(atoms.pbc))[0]:
        along = atoms.positions @ normals[axis]
        if along.min() < MARGIN or along.max() > heights[axis] - MARGIN:
            shift = 0.5 * (heights[axis] - along.min() - along.max())
            # along the lattice vector: the directions within the layer keep their fractions
            vector = atoms.cell[axis] / heights[axis]
            atoms.positions += shift * vector


def _spin(system: System, settings: GPAWSettings, points: int) -> tuple[System, str, bool]:
    """Reference, initial moments, and whether the total moment is held."""
    state = system.spin_state
    moments = collinear_moments(state, len(system.numbers))
    if moments is None:
        moments = np.zeros(len(system.numbers))
    reference = periodic_reference(settings.reference, state, moments)
    _check_parity(system, settings, reference, points)
    if reference == "rks":
        return replace(system, spin_state=replace(state, magmoms=None)), reference, False
    fixed = state.n_unpaired is not None
    if fixed:
        if moments.sum() < 0:
            moments = -moments
        # GPAW holds the sum of the initial moments
        moments = moments + (state.n_unpaired - moments.sum()) / len(moments)
    magmoms = tuple(float(m) for m in moments)
    return replace(system, spin_state=replace(state, magmoms=magmoms)), reference, fixed


def _check_parity(system: System, settings: GPAWSettings, reference: str, points: int) -> None:
    """Whole occupations need electrons that can be dealt out, counted over all k-points."""
    if settings.smearing is not None:
        return
    state = system.spin_state
    electrons = int(system.numbers.sum()) - state.charge
    if reference == "rks" and (electrons * points) % 2:
        raise InvalidInputError(
            f"reference: 'rks' without smearing needs an even number of electrons, got {electrons} "
            f"per cell at {points} k-point(s); give smearing, initial magnetic moments or a "
            "multiplicity"
        )
    if state.n_unpaired is not None and (electrons - state.n_unpaired) * points % 2:
        raise InvalidInputError(
            f"multiplicity: {state.n_unpaired + 1} is impossible with {electrons} electrons per "
            f"cell at {points} k-point(s) without smearing"
        )
