"""Equation of state: energy against volume, and what follows from the fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.eos import EquationOfState, eos_names
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    new_figure,
    require_crystal,
    require_positive,
    resolve_settings,
    save_figure,
)

#: Those of ASE that are functions of the volume; "sj" is a polynomial in V^(-1/3) with another API.
_EQUATIONS = tuple(name for name in eos_names if name != "sj")


@dataclass(frozen=True)
class EOSSettings:
    """How to sample and fit.

    Attributes:
        points: number of volumes, at least 5.
        strain: largest relative change of the volume in either direction.
        equation: name of an equation of state in `ase.eos`.
    """

    points: int = 7
    strain: float = 0.06
    equation: str = "birchmurnaghan"

    def __post_init__(self) -> None:
        if isinstance(self.points, bool) or not isinstance(self.points, int) or self.points < 5:
            raise InvalidInputError(f"points: expected at least 5 volumes, got {self.points!r}")
        require_positive("strain", self.strain)
        if self.strain >= 0.5:
            raise InvalidInputError(f"strain: expected less than 0.5, got {self.strain!r}")
        if self.equation not in _EQUATIONS:
            raise unknown_name("equation", self.equation, _EQUATIONS)


@dataclass(frozen=True)
class EOSResult:
    """A fitted equation of state.

    Attributes:
        atoms: the structure at the fitted volume, without calculator.
        volumes: [n] in Angstrom^3.
        energies: [n] in eV.
        volume: equilibrium volume in Angstrom^3.
        energy: energy at that volume in eV, from the fit.
        bulk_modulus: in GPa.
        residual: largest distance of a point from the fit, in eV.
        settings: what was asked for.
    """

    atoms: Atoms
    volumes: NDArray
    energies: NDArray
    volume: float
    energy: float
    bulk_modulus: float
    residual: float
    settings: EOSSettings

    def table(self) -> str:
        """Text: the points and the fit."""
        lines = [f"{'volume / A^3':>14} {'energy / eV':>18}"]
        lines += [f"{v:14.5f} {e:18.8f}" for v, e in zip(self.volumes, self.energies, strict=True)]
        lengths = ", ".join(f"{x:.5f}" for x in self.atoms.cell.lengths())
        lines += [
            f"equilibrium volume {self.volume:.5f} A^3, cell lengths {lengths} A",
            f"bulk modulus {self.bulk_modulus:.3f} GPa ({self.settings.equation}, largest residual "
            f"{self.residual:.1e} eV)",
        ]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of points and fit.

        Args:
            path: target; the ending chooses the format.

        Returns:
            The path.
        """
        figure, (axes,) = new_figure()
        fit = EquationOfState(self.volumes, self.energies, self.settings.equation)
        fit.fit(warn=False)
        _, _, _, _, x, y, *_ = fit.getplotdata()
        axes.plot(x, y, "-")
        axes.plot(self.volumes, self.energies, "o")
        axes.axvline(self.volume, linestyle="--", color="gray")
        axes.set(xlabel="volume / Å³", ylabel="energy / eV")
        return save_figure(figure, path)


def eos(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> EOSResult:
    """Equation of state of a crystal under uniform scaling of its cell.

    Scaled positions stay as they are; a structure with free internal coordinates is relaxed at
    each volume by the caller's own loop.

    Args:
        atoms: a crystal with three periodic directions; it is not changed.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each volume with (done, total, message).
        **keywords: fields of `EOSSettings`.

    Returns:
        Points, fit and the structure at the equilibrium volume.

    Raises:
        InvalidInputError: for a structure that is not a crystal, an unknown setting, or a minimum
            that lies outside the sampled volumes (with the volume at the lowest point).
    """
    settings = resolve_settings(EOSSettings, keywords)
    calc = attach_calculator(atoms, calc)
    require_crystal(atoms)
    factors = np.linspace(1 - settings.strain, 1 + settings.strain, settings.points)
    work = atoms.copy()
    work.calc = calc
    energies = []
    for number, factor in enumerate(factors, 1):
        work.set_cell(atoms.cell * factor ** (1 / 3), scale_atoms=True)
        energies.append(work.get_potential_energy())
        if progress is not None:
            progress(number, settings.points, f"volume {work.get_volume():.3f} A^3")
    volumes, values = factors * atoms.get_volume(), np.array(energies)
    lowest = int(values.argmin())
    if lowest in (0, settings.points - 1):
        raise InvalidInputError(
            f"atoms: expected the minimum between {volumes[0]:.3f} and {volumes[-1]:.3f} A^3, got "
            f"the lowest energy at the end, {volumes[lowest]:.3f} A^3; start nearer or use a "
            "larger strain"
        )
    fit = EquationOfState(volumes, values, settings.equation)
    volume, energy, modulus = fit.fit(warn=False)
    residual = np.abs(fit.func(volumes, *fit.eos_parameters) - values).max()
    final = atoms.copy()
    final.calc = None
    final.set_cell(atoms.cell * (volume / atoms.get_volume()) ** (1 / 3), scale_atoms=True)
    return EOSResult(
        atoms=final,
        volumes=volumes,
        energies=values,
        volume=float(volume),
        energy=float(energy),
        bulk_modulus=float(modulus) * EV_ANGSTROM3_GPA,
        residual=float(residual),
        settings=settings,
    )
