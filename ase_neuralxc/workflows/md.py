"""Molecular dynamics at constant energy (velocity Verlet) or temperature (Langevin)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows.analysis import mean_square_displacement, radial_distribution
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    new_figure,
    require_positive,
    resolve_settings,
    save_figure,
    snapshot,
)

ENSEMBLES = ("nve", "nvt")


@dataclass(frozen=True)
class MDSettings:
    """How to run molecular dynamics.

    Attributes:
        ensemble: "nve" (velocity Verlet) or "nvt" (Langevin).
        timestep: in femtoseconds.
        steps: length of the whole run, including what a restart finds in the trajectory.
        interval: steps between stored frames; a divisor of `steps`.
        temperature: in kelvin. Velocities are drawn from it where the atoms have none; None leaves
            them as they are (not for "nvt").
        friction: of the Langevin thermostat, in 1/femtosecond.
        seed: of the random numbers.
        trajectory: ASE trajectory file of the frames, or None.
        logfile: ASE's own log: a path, "-" for standard output, or None.
        restart: continue from the last frame of `trajectory` if it exists, and append to it.
    """

    ensemble: str = "nve"
    timestep: float = 0.5
    steps: int = 1000
    interval: int = 1
    temperature: float | None = 300.0
    friction: float = 0.01
    seed: int = 0
    trajectory: str | Path | None = None
    logfile: str | Path | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise unknown_name("ensemble", str(self.ensemble), ENSEMBLES)
        require_positive("timestep", self.timestep)
        require_positive("steps", self.steps)
        require_positive("interval", self.interval)
        require_positive("friction", self.friction)
        if self.steps % self.interval:
            raise InvalidInputError(
                f"interval: expected a divisor of steps={self.steps}, got {self.interval!r}"
            )
        if self.temperature is not None:
            require_positive("temperature", self.temperature)
        elif self.ensemble == "nvt":
            raise InvalidInputError("temperature: expected kelvin for ensemble 'nvt', got None")
        if self.restart and self.trajectory is None:
            raise InvalidInputError("restart: expected a trajectory to restart from, got None")


@dataclass(frozen=True, eq=False)
class MDResult:
    """A trajectory and what it says.

    Attributes:
        frames: stored structures with energy, forces and momenta, from the start of the run.
        times: [n] in femtoseconds.
        potential: [n] potential energy in eV.
        kinetic: [n] kinetic energy in eV.
        temperatures: [n] instantaneous temperature in kelvin.
        settings: what was asked for.
    """

    frames: tuple[Atoms, ...]
    times: np.ndarray
    potential: np.ndarray
    kinetic: np.ndarray
    temperatures: np.ndarray
    settings: MDSettings

    @property
    def total(self) -> np.ndarray:
        """[n] total energy in eV."""
        return self.potential + self.kinetic

    @property
    def drift(self) -> float:
        """Slope of the total energy (least squares) in eV per atom and picosecond."""
        if len(self.times) < 2:
            raise InvalidInputError(f"drift: expected at least 2 frames, got {len(self.times)}")
        slope = np.polyfit(self.times, self.total, 1)[0]
        return float(slope * 1000.0 / len(self.frames[0]))

    @property
    def fluctuation(self) -> float:
        """Standard deviation of the total energy in eV per atom."""
        return float(self.total.std() / len(self.frames[0]))

    def rdf(
        self, rmax: float, n_bins: int = 100, pair: tuple[str, str] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Radial distribution function over all frames.

        Args:
            rmax: largest distance in Angstrom.
            n_bins: number of bins.
            pair: chemical symbols of centre and neighbour; None counts all atoms.

        Returns:
            Distances [n_bins] in Angstrom and g(r) [n_bins].
        """
        return radial_distribution(self.frames, rmax, n_bins, pair)

    def msd(self) -> np.ndarray:
        """Mean square displacement [n] in Angstrom^2 at each lag in `times - times[0]`."""
        return mean_square_displacement(self.frames)

    def table(self) -> str:
        """Text: averages, fluctuation and drift."""
        lines = [
            f"{self.settings.ensemble.upper()}, {self.frames[0].get_chemical_formula()}: "
            f"{self.settings.steps} steps of {self.settings.timestep:g} fs, "
            f"{len(self.frames)} frames",
            f"{'':14} {'mean':>16} {'std':>12}",
        ]
        rows = {
            "potential / eV": self.potential,
            "kinetic / eV": self.kinetic,
            "total / eV": self.total,
            "temp. / K": self.temperatures,
        }
        lines += [f"{name:14} {v.mean():16.6f} {v.std():12.6f}" for name, v in rows.items()]
        lines.append(f"drift of the total energy: {self.drift:.3e} eV/atom/ps")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of energies and temperature against time.

        Args:
            path: target file.

        Returns:
            The path.
        """
        figure, (above, below) = new_figure(rows=2)
        above.plot(self.times, self.potential - self.potential[0], label="potential")
        above.plot(self.times, self.total - self.total[0], label="total")
        above.set_ylabel("energy − first / eV")
        above.legend()
        below.plot(self.times, self.temperatures)
        below.set_ylabel("temperature / K")
        below.set_xlabel("time / fs")
        return save_figure(figure, path)


def _load_frames(atoms: Atoms, settings: MDSettings) -> list[Atoms]:
    """Frames of an earlier run, after checking that it is the same run."""
    path = str(settings.trajectory)
    with Trajectory(path) as trajectory:
        frames = list(trajectory)
        stored = trajectory.description.get("timestep", settings.timestep * units.fs)
    if frames and not np.array_equal(frames[0].numbers, atoms.numbers):
        raise InvalidInputError(
            f"trajectory: expected frames of {atoms.get_chemical_formula()} in the same order, "
            f"got {frames[0].get_chemical_formula()} in {path}"
        )
    if not np.isclose(stored, settings.timestep * units.fs, rtol=1e-9):
        raise InvalidInputError(
            f"timestep: expected {stored / units.fs:g} fs as in {path}, got {settings.timestep:g}"
        )
    return frames


def _initial_velocities(atoms: Atoms, settings: MDSettings, rng: np.random.Generator) -> None:
    """Draw velocities for atoms that have none, without drift and (for molecules) rotation."""
    if settings.temperature is None or np.any(atoms.get_momenta()):
        return
    # Exactly, because a draw for a few atoms scatters by sqrt(2/3N): 25 % for benzene.
    thermalize_momenta(atoms, settings.temperature, exact_temperature=True, rng=rng)
    if len(atoms) > 1 and not atoms.constraints:
        Stationary(atoms, preserve_temperature=True)
        if len(atoms) > 2 and not atoms.pbc.any():
            ZeroRotation(atoms, preserve_temperature=True)


def _integrator(atoms: Atoms, settings: MDSettings, done: int) -> MolecularDynamics:
    """Integrator that stands at step `done`."""
    options: dict[str, Any] = {"timestep": settings.timestep * units.fs}
    if settings.logfile is not None:
        options.update(logfile=str(settings.logfile), loginterval=settings.interval)
    if settings.ensemble == "nve":
        dynamics: MolecularDynamics = VelocityVerlet(atoms, **options)
    else:
        dynamics = Langevin(
            atoms,
            temperature_K=settings.temperature,
            friction=settings.friction / units.fs,
            # A restart must not repeat the random numbers of the first part.
            rng=np.random.default_rng((settings.seed, 1, done)),
            # True is deprecated in ASE: it does not sample the canonical ensemble exactly.
            fixcm=False,
            **options,
        )
    dynamics.nsteps = done
    return dynamics


def md(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> MDResult:
    """Run molecular dynamics; atoms end at the last step.

    Args:
        atoms: the structure; momenta that are present are kept.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each stored frame with (step, steps, message).
        **keywords: fields of `MDSettings`.

    Returns:
        The whole run, including the part that a restart found.

    Raises:
        InvalidInputError: for an unknown setting, one out of range, or a trajectory of another run.
    """
    settings = resolve_settings(MDSettings, keywords)
    attach_calculator(atoms, calc)
    frames: list[Atoms] = []
    path = None if settings.trajectory is None else Path(settings.trajectory)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if settings.restart and path.exists() and path.stat().st_size > 0:
            frames = _load_frames(atoms, settings)
    if frames:
        atoms.set_positions(frames[-1].positions, apply_constraint=False)
        atoms.set_momenta(frames[-1].get_momenta(), apply_constraint=False)
    else:
        _initial_velocities(atoms, settings, np.random.default_rng((settings.seed, 0)))
    # ASE calls the observers before the first step only at step 0: no frame is stored twice.
    done = max(len(frames) - 1, 0) * settings.interval

    dynamics = _integrator(atoms, settings, done)
    writer = None
    if path is not None:
        writer = Trajectory(str(path), "a" if frames else "w", atoms)
        writer.set_description(dynamics.todict())

    def store() -> None:
        frames.append(snapshot(atoms))
        if writer is not None:
            writer.write()
        if progress is not None:
            progress(dynamics.nsteps, settings.steps, f"{atoms.get_temperature():.0f} K")

    dynamics.attach(store, interval=settings.interval)
    try:
        if done < settings.steps:
            dynamics.run(settings.steps - done)
    finally:
        dynamics.close()
        if writer is not None:
            writer.close()
    return _summarise(frames, settings)


def _summarise(frames: list[Atoms], settings: MDSettings) -> MDResult:
    """Collect the series of a run from its frames."""
    return MDResult(
        frames=tuple(frames),
        times=np.arange(len(frames)) * settings.interval * settings.timestep,
        potential=np.array([frame.get_potential_energy() for frame in frames]),
        kinetic=np.array([frame.get_kinetic_energy() for frame in frames]),
        temperatures=np.array([frame.get_temperature() for frame in frames]),
        settings=settings,
    )
