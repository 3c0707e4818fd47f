"""From a system to a PySCF cell: lattice, box, pseudopotentials, basis and density grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pyscf.pbc import gto

from ase_neuralxc.backend.kpoints import resolve_kpoints, wants_gamma
from ase_neuralxc.backend.pbc.pseudopotentials import load_basis, load_pseudopotential
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.backend.system import System
from ase_neuralxc.backend.vacuum import box_around, check_vacuum
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units

#: Fewest points along a lattice vector that can carry a density.
MINIMUM_MESH = 9


def build_cell(system: System, settings: PeriodicSettings) -> gto.Cell:
    """Build the cell: always three-dimensional, a slab or molecule with its vacuum.

    Args:
        system: atoms, with a cell unless it is a molecule.
        settings: pseudopotentials, basis, cutoff or mesh, vacuum, precision.

    Returns:
        The cell, built; its valence electrons are `cell.nelectron`.

    Raises:
        InvalidInputError: a charge, too little vacuum, no pseudopotential or basis for an element,
            a cutoff that leaves no grid.
    """
    if system.spin_state.charge:
        raise InvalidInputError(
            f"charge: expected 0, a periodic cell is neutral, got {system.spin_state.charge}"
        )
    lattice = box(system, settings.vacuum)
    check_vacuum(system, lattice)
    if np.linalg.det(lattice) < 0:
        # The same lattice, right-handed, as PySCF's integrals need it. The axes keep their order
        # (grid, k-points); k-points change their sign, which time reversal undoes.
        lattice = -lattice
    cell = gto.Cell()
    cell.a = lattice / units.BOHR_ANGSTROM
    cell.atom = list(zip(system.symbols, system.positions / units.BOHR_ANGSTROM, strict=True))
    cell.unit = "Bohr"
    cell.pseudo, cell.basis = {}, {}
    electrons = 0
    for element in sorted(set(system.symbols)):
        cell.pseudo[element] = load_pseudopotential(element, settings.pseudo)[1]
        valence = int(sum(cell.pseudo[element][0]))
        cell.basis[element] = load_basis(element, settings.basis, valence)[1]
        electrons += valence * system.symbols.count(element)
    cell.spin = electrons % 2  # electrons are dealt out over all k-points, elsewhere
    cell.precision = settings.precision
    if settings.mesh is None:
        cell.ke_cutoff = settings.ecut * units.EV_HARTREE
    else:
        cell.mesh = list(settings.mesh)
    cell.verbose = 0
    cell.max_memory = settings.max_memory
    cell.build(parse_arg=False, dump_input=False)
    if min(cell.mesh) < MINIMUM_MESH:
        asked = f"mesh = {settings.mesh}" if settings.mesh else f"ecut = {settings.ecut:g} eV"
        raise InvalidInputError(
            f"ecut: expected at least {MINIMUM_MESH} grid points along each lattice vector, got "
            f"{[int(n) for n in cell.mesh]} with {asked}: the cell is too small for the cutoff"
        )
    return cell


def box(system: System, vacuum: float) -> NDArray:
    """Lattice vectors of a system, or of a box with vacuum around a molecule without one.

    Args:
        system: atoms, with or without a cell.
        vacuum: Angstrom on each side of a molecule.

    Returns:
        [3, 3] rows in Angstrom.
    """
    if system.cell is not None:
        return np.asarray(system.cell, dtype=float)
    return box_around(system.positions, vacuum)


def frozen(system: System, settings: PeriodicSettings) -> PeriodicSettings:
    """Settings whose grid and k-points no longer depend on the cell.

    For strains (equations of state, stress by differences, cell relaxations): with `ecut` and a
    density of k-points the number of points jumps from one cell to the next. Whoever strains a cell
    asks for this once; a backend itself keeps no memory of earlier cells, so that a result never
    depends on what was calculated before it.

    Args:
        system: the reference structure.
        settings: any settings.

    Returns:
        The same with `mesh` and the size of `kpts` fixed.
    """
    cell = build_cell(system, settings)
    grid = resolve_kpoints(settings.kpts, system.cell, system.pbc)
    # the offset of a grid is either nothing or half a step, which "gamma" says for each size
    gamma = wants_gamma(settings.kpts)
    first, second, third = (int(n) for n in cell.mesh)
    return replace(settings, mesh=(first, second, third), kpts={"size": grid.size, "gamma": gamma})
