"""Structures that molecular dynamics and reaction paths of the potential pass through."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import UnconvergedWarning, md
from ase_neuralxc.workflows.common import require_positive
from ase_neuralxc.workflows.neb import neb
from mlip.active.sampler import is_reasonable, sampled
from mlip.calculator import CloseContactWarning


def largest_uncertainty(calc: Any, atoms: Atoms) -> float:
    """Largest expected error of a force in eV/Angstrom; computes the structure if need be.

    Args:
        calc: a potential with uncertainties.
        atoms: the structure.

    Returns:
        The largest of "forces_uncertainty".
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloseContactWarning)  # the uncertainty says it better
        calc.get_property("forces", atoms)
        return float(np.max(calc.results["forces_uncertainty"]))


@dataclass(frozen=True)
class Dynamics:
    """Molecular dynamics at several temperatures (Langevin), a frame every so often.

    A trajectory ends early where atoms collide, or where the uncertainty passes `stop_above`: that
    frame is the last, and the one to ask the DFT core about.

    Attributes:
        temperatures: in kelvin, one trajectory of each start and temperature.
        steps: length of a trajectory.
        interval: steps between frames.
        timestep: in femtoseconds.
        friction: in 1/femtosecond.
        stop_above: largest expected force error in eV/Angstrom, None for no limit.
    """

    temperatures: tuple[float, ...] = (300.0, 600.0)
    steps: int = 500
    interval: int = 10
    timestep: float = 0.5
    friction: float = 0.02
    stop_above: float | None = None
    needs_potential = True

    def __post_init__(self) -> None:
        for name in ("steps", "interval", "timestep", "friction"):
            require_positive(f"md.{name}", getattr(self, name))
        if not self.temperatures:
            raise InvalidInputError("md.temperatures: expected at least one, got none")
        for value in self.temperatures:
            require_positive("md.temperatures", value)
        if self.stop_above is not None:
            require_positive("md.stop_above", self.stop_above)

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Frames of all trajectories."""
        for parent, atoms in enumerate(starts):
            for which, temperature in enumerate(self.temperatures):
                walker = atoms.copy()
                for frame in range(1, self.steps // self.interval + 1):
                    uncertainty = self.advance(walker, calc, temperature, (seed, parent, which))
                    if not is_reasonable(walker):
                        break
                    yield sampled(
                        walker, "md", parent, temperature=temperature, step=frame * self.interval
                    )
                    if self.stop_above is not None and uncertainty > self.stop_above:
                        break

    def advance(self, walker: Atoms, calc: Any, temperature: float, seed: tuple[int, ...]) -> float:
        """Move on by one interval.

        Args:
            walker: the structure with its velocities, which are drawn where it has none.
            calc: the potential.
            temperature: in kelvin.
            seed: of the random forces, together with the state of the walker.

        Returns:
            The largest expected force error at the end in eV/Angstrom; 0 if nothing asks for it.
        """
        # The state itself seeds the next interval: no two intervals share their random forces,
        # and a walker that is read back from a file goes on as it would have.
        state = int(np.abs(walker.positions).sum() * 1e6) % 2**31
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloseContactWarning)
            md(
                walker,
                calc,
                ensemble="nvt",
                steps=self.interval,
                interval=self.interval,
                timestep=self.timestep,
                friction=self.friction,
                temperature=temperature,
                seed=hash_seed(*seed, state),
            )
        return 0.0 if self.stop_above is None else largest_uncertainty(calc, walker)


@dataclass(frozen=True)
class PathImages:
    """Images between consecutive starts, relaxed towards the path of the potential (NEB).

    Attributes:
        images: between two starts.
        steps: of the relaxation; 0 keeps the interpolation (image-dependent pair potential).
        spring: in eV/Angstrom^2.
    """

    images: int = 5
    steps: int = 20
    spring: float = 0.1
    needs_potential = True

    def __post_init__(self) -> None:
        require_positive("path.images", self.images)
        require_positive("path.spring", self.spring)
        if self.steps < 0:
            raise InvalidInputError(f"path.steps: expected at least 0, got {self.steps}")

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Inner images of the path from each start to the next; nothing in it is random."""
        if len(starts) < 2:
            raise InvalidInputError(
                f"path: expected at least two starts to go between, got {len(starts)}"
            )
        for parent, (first, last) in enumerate(pairwise(starts)):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CloseContactWarning)
                warnings.simplefilter("ignore", UnconvergedWarning)  # near the path is enough
                band = neb(
                    first,
                    last,
                    calc,
                    n_images=self.images,
                    spring=self.spring,
                    steps=self.steps,
                    climb=False,
                    verify=False,
                    relax_ends=False,
                    keep_order=True,
                )
            for number, image in enumerate(band.images[1:-1], start=1):
                yield sampled(image, "path", parent, image=number)


def hash_seed(*parts: int) -> int:
    """One non-negative seed of several."""
    return int(np.random.SeedSequence([int(part) for part in parts]).generate_state(1)[0])
