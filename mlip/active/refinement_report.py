"""What DFT said about the stationary points of a potential: table and energy diagram."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord
from ase_neuralxc.workflows.common import new_figure, save_figure

STANDS, MOVE = "stands", "needs re-relaxation"
FAILED, NOT_ASKED = "failed", "not asked"


@dataclass(frozen=True, eq=False)
class Point:
    """A stationary point of the potential and what DFT makes of it.

    Attributes:
        name: in tables and diagrams.
        kind: "minimum" or "saddle".
        atoms: the structure, with results of the potential or, where it was moved, of DFT.
        potential_energy: in eV.
        potential_fmax: largest force of the potential in eV/Angstrom.
        mode: [n, 3] mode of a saddle that leads downhill, where it is known.
        uncertainty: expected error of the potential energy in eV, where the potential gives one.
        dft_energy: in eV (extrapolated to zero smearing); None where there is none.
        correction: free energy of DFT minus energy of the potential, at the point of the
            potential, in eV.
        dft_fmax: largest DFT force in eV/Angstrom.
        n_dft: DFT calculations of this point.
        moved: whether it was moved to DFT's own stationary point.
        verdict: "stands", "needs re-relaxation", "failed" or "not asked".
        reason: of a failure.
    """

    name: str
    kind: str
    atoms: Atoms
    potential_energy: float
    potential_fmax: float
    mode: Any = None
    uncertainty: float | None = None
    dft_energy: float | None = None
    correction: float | None = None
    dft_fmax: float | None = None
    n_dft: int = 0
    moved: bool = False
    verdict: str = NOT_ASKED
    reason: str = ""


@dataclass(frozen=True, eq=False)
class RefineReport:
    """All points.

    Attributes:
        points: in the order given.
        n_dft: DFT calculations, failed ones included.
        budget: how many were allowed.
        reference: name of the point that is zero, None for the lowest minimum.
        records: the labels that were made.
    """

    points: tuple[Point, ...]
    n_dft: int
    budget: int
    reference: str | None
    records: tuple[LabelRecord, ...]

    @property
    def zero(self) -> Point:
        """The point that energies are relative to.

        Raises:
            InvalidInputError: no point has a DFT energy, or the chosen one has none.
        """
        known = [point for point in self.points if point.dft_energy is not None]
        if self.reference is not None:
            known = [point for point in known if point.name == self.reference]
        if not known:
            what = "any point" if self.reference is None else repr(self.reference)
            raise InvalidInputError(f"reference: expected a DFT energy of {what}, got none")
        minima = [point for point in known if point.kind == "minimum"] or known
        return min(minima, key=lambda point: float(point.dft_energy or 0.0))

    def relative(self) -> dict[str, tuple[float, float | None]]:
        """Energies relative to the reference, each by its own method.

        Returns:
            Name to (potential, DFT) in eV; None where DFT failed or was not asked.

        Raises:
            InvalidInputError: points of several compositions, whose energies do not compare.
        """
        formulas = sorted({point.atoms.get_chemical_formula() for point in self.points})
        if len(formulas) > 1:
            raise InvalidInputError(
                f"points: expected one composition for relative energies, got {formulas}"
            )
        zero = self.zero
        return {
            point.name: (
                point.potential_energy - zero.potential_energy,
                None
                if point.dft_energy is None or zero.dft_energy is None
                else point.dft_energy - zero.dft_energy,
            )
            for point in self.points
        }

    def table(self) -> str:
        """Text: one line per point, then what failed."""
        try:
            relative = self.relative()
            note = f"relative to {self.zero.name}"
        except InvalidInputError as error:
            relative, note = {}, f"no relative energies: {error}"
        lines = [
            f"{'point':<24} {'kind':<8} {'potential':>10} {'DFT':>10} {'correction':>11} "
            f"{'fmax DFT':>9} {'DFT calls':>9}  verdict",
            f"{'':<24} {'':<8} {'eV':>10} {'eV':>10} {'eV':>11} {'eV/A':>9}",
        ]
        for point in self.points:
            potential, dft = relative.get(point.name, (None, None))
            verdict = point.verdict + (", moved" if point.moved else "")
            lines.append(
                f"{point.name:<24} {point.kind:<8} {_number(potential, 10, 4)} "
                f"{_number(dft, 10, 4)} {_number(point.correction, 11, 4)} "
                f"{_number(point.dft_fmax, 9, 3)} {point.n_dft:9d}  {verdict}"
            )
        lines += [f"{point.name}: {point.reason}" for point in self.points if point.reason]
        lines.append(f"{self.n_dft} of {self.budget} DFT calculations; energies {note}")
        return "\n".join(lines)

    def diagram(self, path: str | Path) -> Path:
        """Draw the energy diagram: potential with its uncertainty, DFT, and what has no DFT.

        Args:
            path: target file.

        Returns:
            The path.

        Raises:
            InvalidInputError: no DFT energy, or points of several compositions.
        """
        relative, zero = self.relative(), self.zero
        figure, (axes,) = new_figure()
        potentials = np.array([relative[point.name][0] for point in self.points])
        for place, point in enumerate(self.points):
            energy, dft = relative[point.name]
            axes.hlines(energy, place - 0.3, place + 0.3, color="tab:orange", linestyle="--")
            if point.uncertainty is not None and point is not zero:
                axes.errorbar(
                    place - 0.15, energy, yerr=point.uncertainty, color="tab:orange", capsize=3
                )
            if dft is None:
                axes.plot(place, energy, "x", color="tab:red", markersize=10)
                axes.annotate(point.verdict, (place, energy), (0, 9), **_ABOVE, color="tab:red")
                continue
            axes.hlines(dft, place - 0.3, place + 0.3, color="tab:blue", linewidth=2.5)
            mark = f"{dft:.3f}" + ("*" if point.verdict == MOVE else "")
            axes.annotate(mark, (place, max(dft, energy)), (0, 5), **_ABOVE)
        shown = [
            potentials[k] if relative[p.name][1] is None else float(relative[p.name][1] or 0.0)
            for k, p in enumerate(self.points)
        ]
        axes.plot(range(len(shown)), shown, color="lightgray", zorder=0, linewidth=1.0)
        axes.set_xticks(range(len(self.points)), [p.name for p in self.points], rotation=20)
        axes.set_ylabel(f"energy − {zero.name} / eV")
        axes.plot([], [], "--", color="tab:orange", label="potential")
        axes.plot([], [], color="tab:blue", linewidth=2.5, label="DFT (* forces too large)")
        axes.margins(y=0.15)
        axes.legend()
        return save_figure(figure, path)


_ABOVE: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "fontsize": 9}


def _number(value: float | None, width: int, digits: int) -> str:
    return " " * (width - 1) + "-" if value is None else f"{value:{width}.{digits}f}"
