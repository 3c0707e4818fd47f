"""Saddle points: refinement by minimum-mode following, and the proof that it is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.mep.dimer import DimerControl, MinModeAtoms, MinModeTranslate
from ase.optimize.optimize import Optimizer
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, MissingDependencyError
from ase_neuralxc.workflows.common import Progress, max_force, snapshot
from ase_neuralxc.workflows.modes import VibrationsResult
from ase_neuralxc.workflows.vibrations import vibrations

_no_sella: ImportError | None = None
try:
    Sella: Any = import_module("sella").Sella
except ImportError as error:
    Sella, _no_sella = None, error

#: Ways to refine a saddle point.
REFINEMENTS = ("dimer", "sella")
#: Imaginary frequencies below this (cm^-1) are noise of the forces on a flat direction.
NOISE_CM1 = 20.0


@dataclass(frozen=True, eq=False)
class Saddle:
    """A stationary point between two minima.

    Attributes:
        atoms: the structure with energy and forces.
        method: what found it: "climbing image", "dimer" or "sella".
        converged: whether its forces are as small as was asked.
        modes: its vibrations, or None where they were not computed.
        overlap: |cosine| between the imaginary mode (of lowest frequency) and the path at the
            saddle, None without modes.
    """

    atoms: Atoms
    method: str
    converged: bool
    modes: VibrationsResult | None = None
    overlap: float | None = None

    @property
    def energy(self) -> float:
        """Energy in eV."""
        return float(self.atoms.get_potential_energy())

    @property
    def fmax(self) -> float:
        """Largest force on an atom in eV/Angstrom."""
        return max_force(self.atoms.get_forces())

    @property
    def imaginary(self) -> NDArray:
        """Imaginary frequencies beyond the noise, in cm^-1, as negative numbers."""
        if self.modes is None:
            raise InvalidInputError("modes: expected vibrations of the saddle, none were computed")
        return self.modes.frequencies[self.modes.frequencies < -NOISE_CM1]

    @property
    def verified(self) -> bool:
        """Whether exactly one mode is imaginary; False where no modes were computed."""
        return self.modes is not None and len(self.imaginary) == 1


def refine_saddle(
    guess: Atoms,
    calc: Any,
    tangent: NDArray,
    method: str,
    *,
    fmax: float,
    steps: int,
    progress: Progress | None = None,
) -> Saddle:
    """Follow the lowest mode uphill to the saddle point.

    Args:
        guess: a structure near the saddle; its constraints are honoured; it is not changed.
        calc: an ASE calculator.
        tangent: [n_atoms, 3] direction of the path, the first guess of the mode.
        method: "dimer" (ASE; Henkelman and Jonsson, J. Chem. Phys. 111, 7010 (1999)) or "sella"
            (Hermes et al., J. Chem. Theory Comput. 18, 6974 (2022)), where it is installed.
        fmax: largest force at convergence in eV/Angstrom.
        steps: largest number of translations.
        progress: called after each with (step, steps, message).

    Returns:
        The saddle, without modes.

    Raises:
        MissingDependencyError: Sella is asked for and not installed.
    """
    atoms = guess.copy()
    atoms.calc = calc
    with _search(atoms, tangent / np.linalg.norm(tangent), method) as search:

        def report() -> None:
            # No forces here: the calculator stands at an end of the dimer and would compute anew.
            if progress is not None:
                progress(search.nsteps, steps, method)

        search.attach(report)
        search.run(fmax=fmax, steps=steps)
    # The dimer's last evaluation is at its displaced end: come back to the middle.
    converged = max_force(atoms.get_forces()) < fmax
    return Saddle(snapshot(atoms), method, converged)


@contextmanager
def _search(atoms: Atoms, tangent: NDArray, method: str) -> Iterator[Optimizer]:
    """Optimiser that climbs along the lowest mode."""
    if method == "sella":
        if Sella is None:
            raise MissingDependencyError(
                f"refine: expected the package sella (pip install sella), got: {_no_sella}"
            ) from _no_sella
        # Its first direction is its own (the gradient): it takes none in Cartesian coordinates.
        with Sella(atoms, order=1, internal=False, logfile=None) as search:
            yield search
        return
    # A wider dimer than ASE's: forces of an SCF are smooth to 1e-4 eV/Angstrom, not to 1e-6.
    with DimerControl(
        logfile=None, dimer_separation=0.005, max_num_rot=4, f_rot_min=0.05, f_rot_max=0.5
    ) as control:
        pair = MinModeAtoms(atoms, control, eigenmodes=[tangent], random_seed=0)
        with MinModeTranslate(pair, logfile=None) as search:
            yield search


def verify_saddle(
    saddle: Saddle,
    calc: Any,
    tangent: NDArray,
    indices: Sequence[int] | None,
    delta: float,
    directory: Path | None = None,
    progress: Progress | None = None,
) -> Saddle:
    """Compute the vibrations of a saddle.

    Args:
        saddle: a saddle point.
        calc: an ASE calculator.
        tangent: [n_atoms, 3] direction of the path at the saddle.
        indices: atoms that vibrate; None means all that are not fixed.
        delta: displacement in Angstrom.
        directory: cache of the displacements, or None.
        progress: called after each displacement with (done, total, message).

    Returns:
        The saddle with its modes.
    """
    modes = vibrations(
        saddle.atoms.copy(),
        calc,
        progress,
        indices=indices,
        delta=delta,
        directory=directory,
        intensities=False,
    )
    # Modes have unit norm with mass weights; the path is compared in Cartesian coordinates.
    lowest, along = modes.modes[0], tangent[modes.indices]
    norms = np.linalg.norm(lowest) * np.linalg.norm(along)
    overlap = abs(float(np.vdot(lowest, along) / norms)) if norms > 0 else 0.0
    return Saddle(saddle.atoms, saddle.method, saddle.converged, modes, overlap)
