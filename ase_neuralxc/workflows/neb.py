"""Reaction paths by the climbing-image nudged elastic band, on top of `ase.mep`.

Henkelman, Uberuaga and Jonsson, J. Chem. Phys. 113, 9901 (2000), with the improved tangent of
Henkelman and Jonsson, J. Chem. Phys. 113, 9978 (2000).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.mep import NEB
from ase.mep.neb import NEBState
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.workflows.band import (
    check_distinct,
    check_ends,
    first_guess,
    read_band,
    write_band,
)
from ase_neuralxc.workflows.batch import OPTIMIZERS, Evaluate, evaluate_onto
from ase_neuralxc.workflows.cache import calculation_identity, claim_directory
from ase_neuralxc.workflows.common import (
    Progress,
    calculator_maker,
    max_force,
    require_positive,
    resolve_settings,
    snapshot,
)
from ase_neuralxc.workflows.neb_result import NEBResult
from ase_neuralxc.workflows.relax import UnconvergedWarning, relax
from ase_neuralxc.workflows.saddle import REFINEMENTS, Saddle, refine_saddle, verify_saddle

__all__ = ["NEBResult", "NEBSettings", "Saddle", "neb"]

GUESSES = ("idpp", "linear")
#: The highest image starts to climb when the forces of the band fall below this (eV/Angstrom).
_CLIMB_BELOW = 0.3


@dataclass(frozen=True)
class NEBSettings:
    """How to find a path.

    Attributes:
        n_images: images between the ends.
        guess: first path, "idpp" or "linear".
        climb: let the highest image climb to the saddle.
        spring: spring constant in eV/Angstrom^2.
        fmax: largest force of the band at convergence, in eV/Angstrom.
        steps: largest number of steps of the band in this call.
        optimizer: a name in `ase.optimize`: BFGS, FIRE, LBFGS or MDMin.
        relax_ends: relax the two ends first, to `ends_fmax`.
        ends_fmax: largest force of an end in eV/Angstrom.
        refine: None, "dimer" or "sella": sharpen the saddle until its forces are below
            `refine_fmax`.
        refine_fmax: in eV/Angstrom.
        verify: compute the vibrations of the saddle, of which exactly one must be imaginary.
        vibrating: atoms that are displaced for that; None means all that are not fixed.
        delta: their displacement in Angstrom.
        keep_order: equal atoms may change places on the path (otherwise ends whose atoms are
            probably numbered differently are an error).
        directory: intermediate results; a run that was killed continues from it. None keeps none.
    """

    n_images: int = 5
    guess: str = "idpp"
    climb: bool = True
    spring: float = 0.1
    fmax: float = 0.05
    steps: int = 300
    optimizer: str = "BFGS"
    relax_ends: bool = True
    ends_fmax: float = 0.02
    refine: str | None = None
    refine_fmax: float = 0.01
    verify: bool = True
    vibrating: Sequence[int] | None = None
    delta: float = 0.01
    keep_order: bool = False
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("spring", "fmax", "ends_fmax", "refine_fmax", "delta"):
            require_positive(name, getattr(self, name))
        for name, least in (("n_images", 1), ("steps", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name}: expected an integer >= {least}, got {value!r}")
        if self.guess not in GUESSES:
            raise unknown_name("guess", str(self.guess), GUESSES)
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", str(self.optimizer), OPTIMIZERS)
        if self.refine is not None and self.refine not in REFINEMENTS:
            raise unknown_name("refine", str(self.refine), REFINEMENTS)


class _Band(NEB):
    """ASE's band, which remembers the forces that its optimiser sees."""

    #: Computes the images between the ends in one call, where there is one.
    evaluate: Evaluate | None = None

    def get_forces(self) -> NDArray:
        """Forces of the images between the ends, [(n - 2) n_atoms, 3]."""
        if self.evaluate is not None:
            evaluate_onto(self.images[1:-1], self.evaluate)
        forces = super().get_forces()
        self.seen = forces.reshape(self.nimages - 2, self.natoms, 3).copy()
        return forces

    @property
    def fmaxes(self) -> NDArray:
        """[n - 2] largest force on an atom of each image between the ends."""
        return np.linalg.norm(self.seen, axis=2).max(axis=1)

    def tangent(self, image: int) -> NDArray:
        """[n_atoms, 3] direction of the path at an image, of unit norm."""
        state = NEBState(self, self.images, self.energies)
        springs = state.spring(image - 1), state.spring(image)
        tangent = self.neb_method.get_tangent(state, *springs, image)
        return tangent / np.linalg.norm(tangent)


def neb(
    initial: Atoms,
    final: Atoms,
    calc: Any | None = None,
    progress: Progress | None = None,
    *,
    evaluate: Evaluate | None = None,
    **keywords: Any,
) -> NEBResult:
    """Path of least energy between two minima, its barriers and its saddle.

    Args:
        initial: start. Its constraints hold along the whole path; it is not changed.
        final: end, with the same atoms in the same order, in the same cell; it is not changed.
            Atoms may be in other periodic images, and a free molecule may be turned.
        calc: a function or class that makes ASE calculators, one for each image, so that each
            starts from its own last density; or one calculator that all images share in turn;
            None uses the one attached to `initial`.
        progress: called after each step with (done, total, message).
        evaluate: computes all images between the ends in one call (`MLIP.evaluate`); it must be
            the same potential as `calc`, which does the rest.
        **keywords: fields of `NEBSettings`.

    Returns:
        The path. One that is not converged says so and also warns (`UnconvergedWarning`).

    Raises:
        InvalidInputError: ends that do not belong together, ends that are (or relax to) the same
            minimum, an unknown setting or one out of range, or a directory of another calculation.
        MissingDependencyError: refinement by Sella without Sella.
    """
    settings = resolve_settings(NEBSettings, keywords)
    make, shared = calculator_maker(calc, initial)
    first, last = check_ends(initial, final, settings.keep_order)
    directory = None if settings.directory is None else Path(settings.directory)
    if directory is not None:
        identity = calculation_identity(
            first,
            make(),
            final=last.positions.tolist(),
            ends_fmax=settings.ends_fmax if settings.relax_ends else None,
            n_images=settings.n_images,
            guess=settings.guess,
        )
        claim_directory(directory, identity)
    images = None
    if directory is not None:
        images = read_band(directory / "band.traj", first, settings.n_images + 2)
    if images is None:
        first = _end(first, make(), settings, directory, "initial", progress)
        last = _end(last, make(), settings, directory, "final", progress)
        check_distinct(first, last)
        images = first_guess(first, last, settings.n_images, settings.guess)
    for image in images[1:-1] if evaluate is None else ():
        image.calc = make()
    band = _Band(
        images, k=settings.spring, method="improvedtangent", allow_shared_calculator=shared
    )
    band.evaluate = evaluate
    n_steps = _optimise(band, settings, directory, progress)
    done = list(band.iterimages())
    saddle = _find_saddle(band, done, settings, make, directory, progress)
    start, end = (max_force(image.get_forces()) for image in (done[0], done[-1]))
    fmaxes = np.array([start, *band.fmaxes, end])
    converged = band.fmaxes.max() < settings.fmax and (saddle is None or saddle.converged)
    if settings.relax_ends:
        converged = converged and max(start, end) < settings.ends_fmax
    if not converged:
        warnings.warn(
            f"path of {initial.get_chemical_formula()} not converged: forces of the band up to "
            f"{fmaxes[1:-1].max():.4f} eV/A after {n_steps} steps, asked for {settings.fmax:g}",
            UnconvergedWarning,
            stacklevel=2,
        )
    return NEBResult(tuple(done), fmaxes, bool(converged), n_steps, saddle, settings)


def _end(
    atoms: Atoms,
    calc: Any,
    settings: NEBSettings,
    directory: Path | None,
    name: str,
    progress: Progress | None,
) -> Atoms:
    """An end with energy and forces, relaxed if asked."""
    if settings.relax_ends:
        trajectory = None if directory is None else directory / f"{name}.traj"
        return relax(
            atoms,
            calc,
            progress,
            fmax=settings.ends_fmax,
            steps=settings.steps,
            trajectory=trajectory,
            restart=trajectory is not None,
        ).atoms
    atoms.calc = calc
    atoms.get_forces()
    return snapshot(atoms)


def _optimise(
    band: _Band, settings: NEBSettings, directory: Path | None, progress: Progress | None
) -> int:
    """Relax the band, at first without climbing; returns the number of steps."""
    done = 0

    def record() -> None:
        if directory is not None:
            write_band(directory / "band.traj", band.iterimages())
        if progress is not None:
            above = band.energies.max() - band.energies[0]
            message = f"fmax {band.fmaxes.max():.3f} eV/A, highest {above:+.3f} eV"
            progress(done + optimizer.nsteps, settings.steps, message)

    phases = [(False, settings.fmax)]
    if settings.climb:
        phases = [(False, max(_CLIMB_BELOW, settings.fmax)), (True, settings.fmax)]
    for climb, fmax in phases:
        band.climb = climb
        with getattr(ase.optimize, settings.optimizer)(band, logfile=None) as optimizer:
            optimizer.attach(record)
            optimizer.run(fmax=fmax, steps=settings.steps - done)
            done += int(optimizer.nsteps)
    return done


def _find_saddle(
    band: _Band,
    images: list[Atoms],
    settings: NEBSettings,
    make: Callable[[], Any],
    directory: Path | None,
    progress: Progress | None,
) -> Saddle | None:
    """The saddle, from the highest image, refined and verified as asked."""
    top = int(np.argmax(band.energies))
    if top in (0, len(images) - 1) or not (settings.climb or settings.refine):
        return None
    highest, tangent = images[top], band.tangent(top)
    if settings.refine is None:
        saddle = Saddle(highest, "climbing image", bool(band.fmaxes[top - 1] < settings.fmax))
    else:
        saddle = _refined(highest, tangent, settings, make, directory, progress)
    if not settings.verify or not saddle.converged:
        return saddle
    # Named after the structure: a saddle that moved must not meet the displacements of another.
    where = None if directory is None else directory / f"vibrations-{_name(saddle.atoms)}"
    return verify_saddle(
        saddle, make(), tangent, settings.vibrating, settings.delta, where, progress
    )


def _refined(
    highest: Atoms,
    tangent: NDArray,
    settings: NEBSettings,
    make: Callable[[], Any],
    directory: Path | None,
    progress: Progress | None,
) -> Saddle:
    """The highest image refined, or what an earlier run made of it."""
    method = str(settings.refine)
    path = None
    if directory is not None:
        path = directory / f"{method}-{settings.refine_fmax:g}-{_name(highest)}.traj"
        if kept := read_band(path, highest, 1):
            return Saddle(kept[0], method, True)
    saddle = refine_saddle(
        highest,
        make(),
        tangent,
        method,
        fmax=settings.refine_fmax,
        steps=settings.steps,
        progress=progress,
    )
    if path is not None and saddle.converged:
        write_band(path, [saddle.atoms])
    return saddle


def _name(atoms: Atoms) -> str:
    """Short name that tells a structure from any other of the same path."""
    return digest(atoms.positions.tolist())[:12]
