"""Relaxation of atomic positions, and of the cell if asked, with any optimiser of ASE."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.optimize
import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize.optimize import Optimizer

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
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


#: Options of ASE's cell filter for each choice of `cell`; Voigt order xx, yy, zz, yz, xz, xy.
_CELLS: dict[str, dict[str, Any]] = {
    "fixed": {},
    "free": {},
    "volume": {"hydrostatic_strain": True},
    "in-plane": {"mask": (1, 1, 0, 0, 0, 1)},
}


@dataclass(frozen=True)
class RelaxSettings:
    """How to relax.

    Attributes:
        optimizer: name of a class in `ase.optimize`.
        fmax: largest force on an atom at convergence, in eV/Angstrom; for a cell that relaxes also
            the largest force on the cell, in ASE's definition (stress times volume per atom).
        steps: largest number of optimiser steps in this call.
        trajectory: ASE trajectory file of the path, or None.
        logfile: the optimiser's own log: a path, "-" for standard output, or None.
        restart: continue from the last frame of `trajectory` if it exists, with the optimiser's
            memory from `<trajectory>.optimizer` if it was kept, and append to the trajectory.
        cell: what of the cell relaxes: "fixed", "free" (all six strains), "volume" (uniform
            scaling) or "in-plane" (the strains of x and y: slabs).
        pressure: external pressure in GPa, for a cell that relaxes.
        keep_symmetry: allow no step that breaks the space group of the start.
    """

    optimizer: str = "BFGS"
    fmax: float = 0.02
    steps: int = 200
    trajectory: str | Path | None = None
    logfile: str | Path | None = None
    restart: bool = False
    cell: str = "fixed"
    pressure: float = 0.0
    keep_symmetry: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in optimizer_names():
            raise unknown_name("optimizer", str(self.optimizer), optimizer_names())
        require_positive("fmax", self.fmax)
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 0:
            raise InvalidInputError(f"steps: expected a number of steps >= 0, got {self.steps!r}")
        if self.restart and self.trajectory is None:
            raise InvalidInputError("restart: expected a trajectory to restart from, got None")
        if self.cell not in _CELLS:
            raise unknown_name("cell", str(self.cell), _CELLS)
        if self.pressure and self.cell == "fixed":
            raise InvalidInputError(
                f"pressure: expected 0 for a fixed cell, got {self.pressure!r} GPa; set cell"
            )


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


def _degrees_of_freedom(atoms: Atoms, settings: RelaxSettings) -> Any:
    """What the optimiser moves: the atoms, or atoms and cell (Frechet filter of ASE)."""
    if settings.cell == "fixed":
        return atoms
    if not atoms.pbc.any():
        raise InvalidInputError(
            f"cell: expected 'fixed' for a structure without periodic directions, got "
            f"{settings.cell!r}"
        )
    return FrechetCellFilter(
        atoms, scalar_pressure=settings.pressure / EV_ANGSTROM3_GPA, **_CELLS[settings.cell]
    )


@contextmanager
def _symmetry(atoms: Atoms, keep: bool) -> Iterator[None]:
    """Add the symmetry to the constraints for a while."""
    before = list(atoms.constraints)
    if keep:
        atoms.set_constraint([*before, FixSymmetry(atoms)])
    try:
        yield
    finally:
        atoms.set_constraint(before)


def _make_optimizer(atoms: Any, settings: RelaxSettings, options: dict[str, Any]) -> Optimizer:
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
    """Relax atoms, and their cell if asked, in place as ASE's optimisers do.

    Args:
        atoms: the structure; its constraints are honoured.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each geometry with (step, steps, message).
        **keywords: fields of `RelaxSettings`.

    Returns:
        The result. An unconverged one says so and also warns (`UnconvergedWarning`).

    Raises:
        InvalidInputError: for an unknown setting or one out of range, or a cell to be relaxed that
            is not periodic.
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

    moving = _degrees_of_freedom(atoms, settings)

    def record() -> None:
        fmax = max_force(moving.get_forces())
        seen[optimizer.nsteps] = (float(atoms.get_potential_energy()), fmax)
        if progress is not None:
            progress(optimizer.nsteps, settings.steps, f"fmax {fmax:.4f} eV/A")

    with (
        _symmetry(atoms, settings.keep_symmetry),
        _make_optimizer(moving, settings, options) as optimizer,
    ):
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
