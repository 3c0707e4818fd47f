"""Foreign data sets to extended XYZ in ASE units, once and visibly."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import HARTREE_EV, KCALMOL_EV

#: Units of energy in eV; lengths are Angstrom.
ENERGY_UNITS = {"kcal/mol": KCALMOL_EV, "eV": 1.0, "Hartree": HARTREE_EV}
_NUMBERS = ("nuclear_charges", "z")
_POSITIONS = ("coords", "R")
_ENERGIES = ("energies", "E")
_FORCES = ("forces", "F")


def read_npz(path: str | Path, energy_unit: str = "kcal/mol") -> list[Atoms]:
    """Frames of one molecule from an archive like those of MD17 and rMD17.

    Args:
        path: archive with `nuclear_charges` [n], `coords` [m, n, 3] in Angstrom, `energies` [m]
            and `forces` [m, n, 3] (or z, R, E, F as in MD17).
        energy_unit: of the energies; forces are in it per Angstrom.

    Returns:
        Atoms with energy in eV and forces in eV/Angstrom.

    Raises:
        InvalidInputError: an unknown unit, or a file that is no such archive.
    """
    if energy_unit not in ENERGY_UNITS:
        raise InvalidInputError(
            f"energy_unit: expected one of {sorted(ENERGY_UNITS)}, got {energy_unit!r}"
        )
    scale = ENERGY_UNITS[energy_unit]
    try:
        with np.load(path, allow_pickle=False) as archive:
            numbers, positions, energies, forces = (
                archive[next(name for name in names if name in archive)]
                for names in (_NUMBERS, _POSITIONS, _ENERGIES, _FORCES)
            )
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"data: expected an archive with numbers, coordinates, energies and forces, got "
            f"{str(path)!r}: {error}"
        ) from error
    frames = []
    for coordinates, energy, force in zip(positions, energies.ravel(), forces, strict=True):
        atoms = Atoms(numbers, coordinates)
        results = {"energy": float(energy) * scale, "forces": force * scale}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def convert_npz(source: str | Path, target: str | Path, energy_unit: str = "kcal/mol") -> int:
    """Write the frames of an archive as extended XYZ.

    Args:
        source: the archive.
        target: the file to write.
        energy_unit: of the energies in the archive.

    Returns:
        The number of frames.
    """
    frames = read_npz(source, energy_unit)
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    write(target, frames, format="extxyz")
    return len(frames)
