"""Molecular dynamics at constant energy, temperature, or temperature and pressure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import Trajectory
from ase.md.langevin import Langevin
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import MTKNPT, IsotropicMTKNPT
from ase.md.velocitydistribution import Stationary, ZeroRotation, thermalize_momenta
from ase.md.verlet import VelocityVerlet

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    require_positive,
    resolve_settings,
    snapshot,
)
from ase_neuralxc.workflows.md_result import MDResult

__all__ = ["MDResult", "MDSettings", "md"]

ENSEMBLES = ("nve", "nvt", "npt")
#: Integrators of ASE by what of the cell fluctuates: its volume, or all of it.
_BAROSTATS = {"volume": IsotropicMTKNPT, "free": MTKNPT}


@dataclass(frozen=True)
class MDSettings:
    """How to run molecular dynamics.

    Attributes:
        ensemble: "nve" (velocity Verlet), "nvt" (Langevin) or "npt" (Nose-Hoover chains and a
            barostat: Martyna, Tobias and Klein, J. Chem. Phys. 101, 4177 (1994)).
        timestep: in femtoseconds.
        steps: length of the whole run, including what a restart finds in the trajectory.
        interval: steps between stored frames; a divisor of `steps`.
        temperature: in kelvin. Velocities are drawn from it where the atoms have none; None leaves
            them as they are (for "nve" only).
        friction: of the Langevin thermostat, in 1/femtosecond.
        pressure: in GPa, for "npt".
        cell: what fluctuates at constant pressure: "volume" (all lengths by one factor) or "free".
        thermostat_time: of the Nose-Hoover chains in femtoseconds, about 100 time steps.
        barostat_time: of the cell in femtoseconds, about 1000 time steps.
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
    pressure: float = 0.0
    cell: str = "volume"
    thermostat_time: float = 100.0
    barostat_time: float = 1000.0
    seed: int = 0
    trajectory: str | Path | None = None
    logfile: str | Path | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.ensemble not in ENSEMBLES:
            raise unknown_name("ensemble", str(self.ensemble), ENSEMBLES)
        for name in (
            "timestep",
            "steps",
            "interval",
            "friction",
            "thermostat_time",
            "barostat_time",
        ):
            require_positive(name, getattr(self, name))
        for name in ("thermostat_time", "barostat_time"):
            # Faster ones than this are integrated wrongly, down to overflow.
            if self.ensemble == "npt" and getattr(self, name) < 10 * self.timestep:
                raise InvalidInputError(
                    f"{name}: expected at least 10 time steps, {10 * self.timestep:g} fs, got "
                    f"{getattr(self, name):g}"
                )
        if self.cell not in _BAROSTATS:
            raise unknown_name("cell", str(self.cell), _BAROSTATS)
        if self.pressure and self.ensemble != "npt":
            raise InvalidInputError(
                f"pressure: expected 0 for ensemble {self.ensemble!r}, got {self.pressure!r} GPa"
            )
        if self.steps % self.interval:
            raise InvalidInputError(
                f"interval: expected a divisor of steps={self.steps}, got {self.interval!r}"
            )
        if self.temperature is not None:
            require_positive("temperature", self.temperature)
        elif self.ensemble != "nve":
            raise InvalidInputError(
                f"temperature: expected kelvin for ensemble {self.ensemble!r}, got None"
            )
        if self.restart and self.trajectory is None:
            raise InvalidInputError("restart: expected a trajectory to restart from, got None")


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


def _require_free_crystal(atoms: Atoms) -> None:
    """Constant pressure needs a cell, and atoms that all follow it."""
    if not atoms.pbc.all() or atoms.cell.rank < 3:
        raise InvalidInputError(
            f"ensemble: expected three periodic directions for 'npt', got pbc = "
            f"{atoms.pbc.tolist()}"
        )
    if atoms.constraints:
        raise InvalidInputError(
            f"ensemble: expected no constraints for 'npt', got {atoms.constraints!r}"
        )


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
    elif settings.ensemble == "npt":
        dynamics = _BAROSTATS[settings.cell](
            atoms,
            temperature_K=settings.temperature,
            pressure_au=settings.pressure * units.GPa,
            tdamp=settings.thermostat_time * units.fs,
            pdamp=settings.barostat_time * units.fs,
            **options,
        )
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
    if settings.ensemble == "npt":
        _require_free_crystal(atoms)
    if frames:
        atoms.set_cell(frames[-1].cell)
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
