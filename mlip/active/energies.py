"""The energy that belongs to the forces, of a label or of a calculator."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord


def labelled_surface(record: LabelRecord) -> tuple[float, NDArray]:
    """Free energy and forces of a label.

    Args:
        record: the label.

    Returns:
        Energy in eV, of which the forces, [n, 3] in eV/Angstrom, are the derivative.

    Raises:
        InvalidInputError: a label without energy or forces.
    """
    energy = record.energy if record.free_energy is None else record.free_energy
    if energy is None or record.forces is None:
        raise InvalidInputError("dft: expected labels with energy and forces, got none")
    return energy, np.array(record.forces)


def computed_energy(atoms: Atoms) -> float:
    """Free energy of a structure with a calculator in eV; its energy where that is all there is."""
    try:
        return float(atoms.get_potential_energy(force_consistent=True))
    except PropertyNotImplementedError:
        return float(atoms.get_potential_energy())
