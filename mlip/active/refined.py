"""Minima and saddle points of DFT, found on the potential, corrected by DFT at chosen steps.

The structure is relaxed on potential + correction, DFT is asked once at the end, the correction
learns the difference, and so on until the DFT forces themselves are small. A saddle point is found
in the same way, by following its mode uphill. The work of the many
small steps is the potential's; what DFT is asked for is the few points at which the correction is
wrong. Every DFT calculation is counted, the one that verifies the end included.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.optimize import BFGS
from numpy.typing import NDArray

from ase_neuralxc.records import LabelRecord
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows.common import (
    Progress,
    max_force,
    new_figure,
    require_positive,
    resolve_settings,
    save_figure,
)
from ase_neuralxc.workflows.saddle import refine_saddle
from mlip.active.bonding import Bonds
from mlip.active.energies import labelled_surface
from mlip.active.refined_calculator import RefinedCalculator


class BondsChangedWarning(UserWarning):
    """A relaxation ended with other bonds than those of its start."""


#: The trusted distance grows after a step that gained this fraction of what was expected of it.
GOOD = 0.5


@dataclass(frozen=True)
class RefinedSettings:
    """How to relax.

    Attributes:
        fmax: largest DFT force on an atom at convergence, in eV/Angstrom.
        budget: largest number of DFT calculations.
        inner: the corrected surface is relaxed to this fraction of `fmax`.
        inner_steps: largest number of steps between two DFT calculations.
        trust: farthest that any atom moves away from the last DFT point before the next one, in
            Angstrom; the way from the start to the first is not limited. It is halved whenever
            DFT says that things got worse, when the search also goes back to the best point, and
            doubled again when they get better by at least half of what the corrected potential
            had promised.
    """

    fmax: float = 0.02
    budget: int = 20
    inner: float = 0.3
    inner_steps: int = 500
    trust: float = 0.4

    def __post_init__(self) -> None:
        for name in ("fmax", "budget", "inner", "inner_steps", "trust"):
            require_positive(name, getattr(self, name))


@dataclass(frozen=True, eq=False)
class RefinedRelaxation:
    """Outcome of a relaxation that DFT corrected.

    Attributes:
        atoms: final structure with DFT energy and forces.
        converged: whether the largest DFT force ended below `settings.fmax`.
        records: the labels, one per DFT calculation; the last but for failures is the end.
        energies: [n_dft] free energies of DFT in eV.
        fmaxes: [n_dft] largest DFT forces in eV/Angstrom.
        potential_steps: steps on the corrected potential before each DFT calculation.
        bond_changes: bonds broken or made on the way, such as "C0-O3 broken".
        settings: what was asked for.
    """

    atoms: Atoms
    converged: bool
    records: tuple[LabelRecord, ...]
    energies: tuple[float, ...]
    fmaxes: tuple[float, ...]
    potential_steps: tuple[int, ...]
    bond_changes: tuple[str, ...]
    settings: RefinedSettings

    @property
    def n_dft(self) -> int:
        """DFT calculations, verification included."""
        return len(self.records)

    def table(self) -> str:
        """Text: one line per DFT calculation and the verdict."""
        lines = [f"{'DFT':>4} {'energy / eV':>18} {'fmax / eV/A':>12} {'steps before':>13}"]
        rows = zip(self.energies, self.fmaxes, self.potential_steps, strict=True)
        for number, (energy, fmax, steps) in enumerate(rows, start=1):
            lines.append(f"{number:4d} {energy:18.8f} {fmax:12.5f} {steps:13d}")
        verdict = "converged" if self.converged else "NOT CONVERGED"
        lines.append(
            f"{verdict}: {self.n_dft} DFT calculations, {sum(self.potential_steps)} steps on the "
            f"potential, fmax {self.fmaxes[-1]:.5f} (asked: {self.settings.fmax:g}) eV/A"
        )
        if self.bond_changes:
            lines.append(f"bonds: {', '.join(self.bond_changes)}")
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of the DFT forces over the DFT calculations.

        Args:
            path: target file.

        Returns:
            The path.
        """
        figure, (axes,) = new_figure()
        axes.semilogy(range(1, self.n_dft + 1), self.fmaxes, "o-")
        axes.axhline(self.settings.fmax, linestyle="--", color="gray")
        axes.set_xlabel("DFT calculation")
        axes.set_ylabel("largest DFT force / eV/Å")
        axes.set_title(self.atoms.get_chemical_formula())
        return save_figure(figure, path)


def relax_refined(
    atoms: Atoms,
    potential: Any,
    dft: Any,
    *,
    known: Sequence[LabelRecord] = (),
    progress: Progress | None = None,
    **keywords: Any,
) -> RefinedRelaxation:
    """Relax a structure to its DFT minimum with few DFT calculations.

    Args:
        atoms: the structure, moved in place; its constraints are honoured.
        potential: a calculator of ASE.
        dft: a labeller, `NeuralXC(...)` or any other calculator of ASE.
        known: labels of the same system that the correction starts with; they are not counted.
        progress: called after each DFT calculation with (done, budget, message).
        **keywords: fields of `RefinedSettings`.

    Returns:
        The result. An unconverged one says so and also warns (`UnconvergedWarning`), as does one
        with other bonds than at the start (`BondsChangedWarning`).

    Raises:
        InvalidInputError: for an unknown setting or one out of range.
        SCFNotConverged: from the DFT core.
    """
    settings = resolve_settings(RefinedSettings, keywords)
    calc = RefinedCalculator(potential, dft, known)
    return _iterate(atoms, calc, settings, _descend, lambda energy, fmax: energy, progress)


def saddle_refined(
    atoms: Atoms,
    mode: NDArray,
    potential: Any,
    dft: Any,
    *,
    known: Sequence[LabelRecord] = (),
    progress: Progress | None = None,
    **keywords: Any,
) -> RefinedRelaxation:
    """Move a structure to the DFT saddle point nearby with few DFT calculations.

    Args:
        atoms: a saddle point of the potential, moved in place; its constraints are honoured.
        mode: [n, 3] the mode that leads downhill, such as the tangent of a path.
        potential: a calculator of ASE.
        dft: a labeller, `NeuralXC(...)` or any other calculator of ASE.
        known: labels of the same system that the correction starts with; they are not counted.
        progress: called after each DFT calculation with (done, budget, message).
        **keywords: fields of `RefinedSettings`.

    Returns:
        The result. An unconverged one says so and also warns (`UnconvergedWarning`), as does one
        with other bonds than at the start (`BondsChangedWarning`).

    Raises:
        InvalidInputError: for an unknown setting or one out of range.
        SCFNotConverged: from the DFT core.
    """
    settings = resolve_settings(RefinedSettings, keywords)

    def climb(
        atoms: Atoms, calc: RefinedCalculator, settings: RefinedSettings, trust: float
    ) -> int:
        steps, start = 0, atoms.positions.copy()

        def count(done: int, total: int, message: str) -> None:
            nonlocal steps
            steps = done

        fmax = settings.inner * settings.fmax
        found = refine_saddle(
            atoms, calc, mode, "dimer", fmax=fmax, steps=settings.inner_steps, progress=count
        )
        step = found.atoms.positions - start
        step *= min(1.0, trust / max(float(np.linalg.norm(step, axis=1).max()), 1e-12))
        atoms.set_positions(start + step, apply_constraint=False)
        return steps

    calc = RefinedCalculator(potential, dft, known)
    return _iterate(atoms, calc, settings, climb, lambda energy, fmax: fmax, progress)


def _iterate(
    atoms: Atoms,
    calc: RefinedCalculator,
    settings: RefinedSettings,
    search: Callable[[Atoms, RefinedCalculator, RefinedSettings, float], int],
    merit_of: Callable[[float, float], float],
    progress: Progress | None,
) -> RefinedRelaxation:
    """Search on the corrected potential and ask DFT, in turn.

    `merit_of` takes energy and largest force of DFT and is smaller for a better point.
    """
    energies: list[float] = []
    fmaxes: list[float] = []
    inner_steps: list[int] = []
    bonds = Bonds(atoms)
    trust = settings.trust if calc.corrected else np.inf
    best, best_positions = np.inf, atoms.positions.copy()
    for record in calc.known:
        merit = merit_of(labelled_surface(record)[0], max_force(_constrained(atoms, record)))
        if merit < best:
            best, best_positions = merit, np.array(record.positions)
    while len(calc.records) < settings.budget:
        inner_steps.append(search(atoms, calc, settings, trust))
        atoms.calc = calc
        expected = merit_of(float(atoms.get_potential_energy()), max_force(atoms.get_forces()))
        record = calc.observe(atoms)
        energies.append(labelled_surface(record)[0])
        fmaxes.append(max_force(_constrained(atoms, record)))
        if progress is not None:
            progress(calc.n_dft, settings.budget, f"fmax {fmaxes[-1]:.4f} eV/A")
        if fmaxes[-1] < settings.fmax:
            break
        merit = merit_of(energies[-1], fmaxes[-1])
        if merit < best:
            if np.isinf(best) or best - merit > GOOD * (best - expected):
                trust = min(2.0 * trust, settings.trust)
            best, best_positions = merit, atoms.positions.copy()
        elif len(calc.records) < settings.budget:
            # the correction knows this point now; the next try is closer to the best one
            trust *= 0.5
            atoms.set_positions(best_positions, apply_constraint=False)
            calc.focus(atoms)
    final = calc.records[-1].to_atoms()
    atoms.calc = calc
    result = RefinedRelaxation(
        atoms=_with_constraints(final, atoms),
        converged=fmaxes[-1] < settings.fmax,
        records=tuple(calc.records),
        energies=tuple(energies),
        fmaxes=tuple(fmaxes),
        potential_steps=tuple(inner_steps),
        bond_changes=tuple(bonds.changes(final)),
        settings=settings,
    )
    if result.bond_changes:
        warnings.warn(
            f"relaxation of {atoms.get_chemical_formula()}: bonds changed on the way: "
            f"{', '.join(result.bond_changes)}",
            BondsChangedWarning,
            stacklevel=3,
        )
    if not result.converged:
        warnings.warn(
            f"relaxation of {atoms.get_chemical_formula()} not converged: DFT fmax "
            f"{fmaxes[-1]:.4f} eV/A after {calc.n_dft} DFT calculations, asked for "
            f"{settings.fmax:g}",
            UnconvergedWarning,
            stacklevel=3,
        )
    return result


def _descend(atoms: Atoms, calc: RefinedCalculator, settings: RefinedSettings, trust: float) -> int:
    """Relax on the corrected potential, no farther than is trusted; returns the steps taken."""
    start = atoms.positions.copy()
    atoms.calc = calc
    with BFGS(atoms, logfile=None) as optimizer:
        for _ in optimizer.irun(fmax=settings.inner * settings.fmax, steps=settings.inner_steps):
            step = atoms.positions - start
            moved = float(np.linalg.norm(step, axis=1).max())
            if moved > trust:
                atoms.set_positions(start + step * (trust / moved), apply_constraint=False)
                break
        return int(optimizer.nsteps)


def _constrained(atoms: Atoms, record: LabelRecord) -> NDArray:
    """DFT forces without what the constraints hold, [n, 3] in eV/Angstrom."""
    bare = atoms.copy()
    bare.calc = SinglePointCalculator(bare, forces=np.array(record.forces))
    return np.asarray(bare.get_forces())


def _with_constraints(final: Atoms, atoms: Atoms) -> Atoms:
    """DFT structure with the constraints of the one that was relaxed."""
    final.set_constraint([constraint.copy() for constraint in atoms.constraints])
    return final
