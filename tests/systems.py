"""The molecules that tests share."""

from __future__ import annotations

from ase import Atoms
from ase.build import molecule

from ase_neuralxc.backend.system import System
from ase_neuralxc.records import SpinState


def as_system(atoms: Atoms, **state: object) -> System:
    """Atoms with a spin state, as backends take them."""
    cell = atoms.cell.array.copy() if atoms.cell.any() else None
    pbc = tuple(atoms.pbc.tolist())
    return System(atoms.numbers.copy(), atoms.positions.copy(), SpinState(**state), cell, pbc)


def water() -> Atoms:
    """Water off its minimum and its symmetry, so that no force vanishes."""
    atoms = molecule("H2O")
    atoms.positions[1] += (0.03, 0.02, -0.05)
    return atoms


def aminyl() -> Atoms:
    """NH2 radical: one unpaired electron and, unlike OH, no degenerate ground state."""
    return Atoms("NH2", [(0.0, 0.0, 0.0), (0.1, 0.85, 0.62), (0.0, -0.8, 0.65)])


def hydrogen_iodide() -> Atoms:
    """A heavy element with a core potential."""
    return Atoms("HI", [(0.0, 0.0, 0.0), (0.1, 0.0, 1.55)])


def stretched_hydrogen(distance: float = 3.0) -> Atoms:
    """H2 far beyond its Coulson-Fischer point."""
    return Atoms("H2", [(0.0, 0.0, 0.0), (0.0, 0.0, distance)])
