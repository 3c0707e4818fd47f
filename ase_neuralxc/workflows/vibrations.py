"""Vibrational modes by central finite differences of forces, on top of `ase.vibrations`."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.vibrations import Vibrations

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.cache import calculation_identity, claim_directory
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    max_force,
    require_positive,
    resolve_settings,
)
from ase_neuralxc.workflows.modes import VibrationsResult, analyse

__all__ = ["VibrationSettings", "VibrationsResult", "vibrations"]


@dataclass(frozen=True)
class VibrationSettings:
    """How to displace.

    Attributes:
        delta: displacement in Angstrom.
        nfree: displacements per coordinate, 2 or 4 (error of order delta^2 or delta^4).
        indices: atoms that vibrate; None means all that `FixAtoms` does not hold.
        directory: cache of the displacements; a run that was killed continues from it. None uses
            a temporary one.
        intensities: infrared intensities, one dipole per displacement. None computes them for a
            molecule when the calculator gives dipoles.
    """

    delta: float = 0.01
    nfree: int = 2
    indices: Sequence[int] | None = None
    directory: str | Path | None = None
    intensities: bool | None = None

    def __post_init__(self) -> None:
        require_positive("delta", self.delta)
        if self.nfree not in (2, 4):
            raise InvalidInputError(f"nfree: expected 2 or 4, got {self.nfree!r}")


class _Displacements(Vibrations):
    """ASE's displacements, with dipoles where wanted and a report after each."""

    def __init__(self, atoms: Atoms, settings: VibrationSettings, name: str) -> None:
        indices = None if settings.indices is None else list(settings.indices)
        super().__init__(atoms, indices, name=name, delta=settings.delta, nfree=settings.nfree)
        self.with_dipoles = False
        self.progress: Progress | None = None
        self.done = 0

    @property
    def total(self) -> int:
        """Number of single points, the undisplaced one included."""
        return 1 + 3 * len(self.indices) * self.nfree

    def calculate(self, atoms: Atoms, disp: Any) -> dict[str, Any]:
        """Single point of one displacement."""
        result = {"forces": self.calc.get_forces(atoms)}
        if self.with_dipoles:
            result["dipole"] = self.calc.get_dipole_moment(atoms)
        if disp.sign == 0:
            result["energy"] = self.calc.get_potential_energy(atoms)
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, f"displacement {disp.name}")
        return result

    def derivative(self, key: str) -> np.ndarray:
        """Derivative of a cached property by coordinate, [3 n_indices, ...]."""
        rows = []
        for atom, axis in self._iter_ai():

            def value(steps: int, atom: int = atom, axis: int = axis) -> np.ndarray:
                return np.asarray(self.cache[self._disp(atom, axis, steps).name][key])

            rows.append((value(1) - value(-1)) / (2 * self.delta))
            if self.nfree == 4:
                wide = (value(2) - value(-2)) / (4 * self.delta)
                rows[-1] = (4 * rows[-1] - wide) / 3
        return np.array(rows)


def _check_indices(atoms: Atoms, indices: Sequence[int] | None) -> None:
    """Refuse indices that are not distinct atoms."""
    if indices is None:
        return
    chosen = list(indices)
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(len(atoms))):
        raise InvalidInputError(
            f"indices: expected distinct atoms from 0 to {len(atoms) - 1}, got {chosen}"
        )


def vibrations(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> VibrationsResult:
    """Vibrational modes at the present geometry, which is left as it is.

    Args:
        atoms: the structure, relaxed beforehand. Translations (and rotations of a molecule) are
            projected out when all atoms vibrate.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each displacement with (done, total, message).
        **keywords: fields of `VibrationSettings`.

    Returns:
        Frequencies, modes, zero-point energy and, where there are dipoles, infrared intensities.

    Raises:
        InvalidInputError: for an unknown setting, one out of range, or a directory that holds
            another calculation.
    """
    settings = resolve_settings(VibrationSettings, keywords)
    calc = attach_calculator(atoms, calc)
    _check_indices(atoms, settings.indices)
    gives_dipole = "dipole" in getattr(calc, "implemented_properties", ())
    dipoles = settings.intensities
    if dipoles is None:
        dipoles = gives_dipole and not atoms.pbc.any()
    if dipoles and not gives_dipole:
        raise InvalidInputError(
            f"intensities: expected a calculator with dipoles, got {type(calc).__name__}"
        )
    # Displacements happen on a copy: an error in the middle leaves the user's atoms in place.
    work = atoms.copy()
    work.calc = calc
    temporary = tempfile.TemporaryDirectory() if settings.directory is None else None
    with temporary or nullcontext(str(settings.directory)) as directory:
        identity = calculation_identity(atoms, calc, delta=settings.delta, dipoles=dipoles)
        claim_directory(Path(directory), identity)
        run = _Displacements(work, settings, str(directory))
        if len(run.indices) == 0:
            raise InvalidInputError("atoms: expected atoms that may move, all are fixed")
        # A displacement that was interrupted leaves an empty file, which ASE would skip.
        run.clean(empty_files=True)
        run.with_dipoles, run.progress, run.done = dipoles, progress, len(run.cache)
        run.run()
        gradient = -run.derivative("forces")[:, run.indices].reshape(3 * len(run.indices), -1)
        reference = run.cache["eq"]
        moving = np.asarray(reference["forces"])[run.indices]
        slopes = run.derivative("dipole") if dipoles else None
    return analyse(
        atoms.copy(),
        np.asarray(run.indices),
        0.5 * (gradient + gradient.T),
        slopes,
        (float(reference["energy"]), max_force(moving)),
    )
