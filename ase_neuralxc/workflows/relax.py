"""Relaxation of atomic positions with any optimiser of ASE."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.io import read
from ase.optimize.optimize import Optimizer

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    max_force,
    new_figure,
    require_positive,
    resolve_settings,
    save_figure,
    snapshot,
)


class UnconvergedWarning(UserWarning):
    """A relaxation ended before the forces were small enough."""


def optimizer_names() -> list[str]:
    """Names that `relax` accepts, as in `ase.optimize`."""
    return sorted(
        name
        for name, kind in vars(ase.optimize).items()
        # CellAwareBFGS optimises a cell and refuses bare atoms.
        if isinstance(kind, type) and issubclass(kind, Optimizer) and name != "CellAwareBFGS"
    )


@dataclass(frozen=True)
class RelaxSettings:
    """How to relax.

    Attributes:
        optimizer: name of a class in `ase.optimize`.
        fmax: largest force on an atom at convergence, in eV/Angstrom.
        steps: largest number of optimiser steps in this call.
        trajectory: ASE trajectory file of the path, or None.
        logfile: the optimiser's own log: a path, "-" for standard output, or None.
        restart: continue from the last frame of `trajectory` if it exists, with the optimiser's
            memory from `<trajectory>.optimizer` if it was kept, and append to the trajectory.
    """

    optimizer: str = "BFGS"
    fmax: float = 0.02
    steps: int = 200
    trajectory: str | Path | None = None
    logfile: str | Path | None = None
    restart: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in optimizer_names():
            raise unknown_name("optimizer", str(self.optimizer), optimizer_names())
        require_positive("fmax", self.fmax)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise InvalidInputError(f"steps: expected a number of steps >= 0, got {self.steps!r}")
        if self.restart and self.trajectory is None:
            raise InvalidInputError("restart: expected a trajectory to restart from, got None")


@dataclass(frozen=True)
class RelaxResult:
    """Outcome of a relaxation.

    Attributes:
        atoms: final structure with its energy and forces; a copy, detached from the calculator.
        converged: whether the largest force ended below `settings.fmax`.
        n_steps: optimiser steps taken in this call.
        energies: [n] energy of each geometry seen, first to last, in eV.
        fmaxes: [n] largest force of each geometry, in eV/Angstrom.
        settings: what was asked for.
    """

    atoms: Atoms
    converged: bool
    n_steps: int
    energies: tuple[float, ...]
    fmaxes: tuple[float, ...]
    settings: RelaxSettings

    @property
    def energy(self) -> float:
        """Energy of the final structure in eV."""
        return self.energies[-1]

    @property
    def fmax(self) -> float:
        """Largest force of the final structure in eV/Angstrom."""
        return self.fmaxes[-1]

    def table(self) -> str:
        """Text: one line per geometry and the verdict."""
        lines = [f"{'step':>5} {'energy / eV':>18} {'change / eV':>13} {'fmax / eV/A':>12}"]
        for step, (energy, fmax) in enumerate(zip(self.energies, self.fmaxes, strict=True)):
            change = energy - self.energies[max(step - 1, 0)]
            lines.append(f"{step:5d} {energy:18.8f} {change:13.2e} {fmax:12.5f}")
        verdict = "converged" if self.converged else "NOT CONVERGED"
        lines.append(
            f"{verdict}: {self.settings.optimizer}, {self.n_steps} steps, "
            f"fmax {self.fmax:.5f} (asked: {self.settings.fmax:g}) eV/A"
        )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of energy and largest force along the relaxation.

        Args:
            path: target file.

        Returns:
            The path.
        """
        figure, (above, below) = new_figure(rows=2)
        steps = np.arange(len(self.energies))
        above.plot(steps, np.array(self.energies) - self.energies[-1], "o-")
        above.set_ylabel("energy − final / eV")
        verdict = "converged" if self.converged else "not converged"
        above.set_title(f"{self.atoms.get_chemical_formula()}: {verdict}")
        below.semilogy(steps, np.maximum(self.fmaxes, 1e-12), "o-")
        below.axhline(self.settings.fmax, linestyle="--", color="gray")
        below.set_ylabel("largest force / eV/Å")
        below.set_xlabel("step")
        return save_figure(figure, path)


def _resume(atoms: Atoms, trajectory: Path) -> None:
    """Move atoms to the last frame of a trajectory that belongs to them."""
    last = read(trajectory, index=-1)
    if not np.array_equal(last.numbers, atoms.numbers):
        raise InvalidInputError(
            f"trajectory: expected frames of {atoms.get_chemical_formula()} in the same order, "
            f"got {last.get_chemical_formula()} in {trajectory}"
        )
    # Constraints stay those of `atoms`; they must not filter the step to where the path ended.
    atoms.set_positions(last.positions, apply_constraint=False)
    atoms.set_cell(last.cell)


def _make_optimizer(atoms: Atoms, settings: RelaxSettings, options: dict[str, Any]) -> Optimizer:
    """Optimiser with its kept memory, or without it where a kill left that file truncated."""
    kind = getattr(ase.optimize, settings.optimizer)
    try:
        return kind(atoms, **options)
    except ase.optimize.RestartError:
        Path(options["restart"]).unlink()
        return kind(atoms, **options)


def relax(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> RelaxResult:
    """Relax the positions of atoms, in place as ASE's optimisers do.

    Args:
        atoms: the structure; its constraints are honoured.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each geometry with (step, steps, message).
        **keywords: fields of `RelaxSettings`.

    Returns:
        The result. An unconverged one says so and also warns (`UnconvergedWarning`).

    Raises:
        InvalidInputError: for an unknown setting or one out of range.
    """
    settings = resolve_settings(RelaxSettings, keywords)
    calc = attach_calculator(atoms, calc)
    logfile = None if settings.logfile is None else str(settings.logfile)
    options: dict[str, Any] = {"logfile": logfile}
    if settings.trajectory is not None:
        trajectory = Path(settings.trajectory)
        trajectory.parent.mkdir(parents=True, exist_ok=True)
        memory = trajectory.with_name(trajectory.name + ".optimizer")
        resuming = settings.restart and trajectory.exists() and trajectory.stat().st_size > 0
        if resuming:
            _resume(atoms, trajectory)
        else:
            memory.unlink(missing_ok=True)
        options.update(trajectory=str(trajectory), restart=str(memory), append_trajectory=resuming)

    # Keyed by step: optimisers differ in whether they report the first geometry themselves.
    seen: dict[int, tuple[float, float]] = {}

    def record() -> None:
        fmax = max_force(atoms.get_forces())
        seen[optimizer.nsteps] = (float(atoms.get_potential_energy()), fmax)
        if progress is not None:
            progress(optimizer.nsteps, settings.steps, f"fmax {fmax:.4f} eV/A")

    with _make_optimizer(atoms, settings, options) as optimizer:
        record()
        optimizer.attach(record)
        optimizer.run(fmax=settings.fmax, steps=settings.steps)
        n_steps = int(optimizer.nsteps)
    energies = tuple(energy for energy, _ in seen.values())
    fmaxes = tuple(fmax for _, fmax in seen.values())
    # Judged here and not by the optimiser: some report the step before the last.
    converged = fmaxes[-1] < settings.fmax
    result = RelaxResult(snapshot(atoms), converged, n_steps, energies, fmaxes, settings)
    if not converged:
        warnings.warn(
            f"relaxation of {atoms.get_chemical_formula()} not converged: fmax {result.fmax:.4f} "
            f"eV/A after {n_steps} steps, asked for {settings.fmax:g}",
            UnconvergedWarning,
            stacklevel=2,
        )
    return result
