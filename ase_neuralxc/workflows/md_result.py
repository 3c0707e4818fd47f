"""What molecular dynamics gives: frames, series, drift, structure and diffusion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
from ase_neuralxc.workflows.analysis import mean_square_displacement, radial_distribution
from ase_neuralxc.workflows.common import new_figure, save_figure

if TYPE_CHECKING:
    from ase_neuralxc.workflows.md import MDSettings


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
    def volumes(self) -> np.ndarray:
        """[n] volume of the cell in Angstrom^3."""
        return np.array([frame.get_volume() for frame in self.frames])

    @property
    def pressures(self) -> np.ndarray:
        """[n] instantaneous pressure in GPa, with the part of the velocities.

        Raises:
            InvalidInputError: frames without stress: only constant pressure needs it.
        """
        if any("stress" not in frame.calc.results for frame in self.frames):
            raise InvalidInputError("pressures: expected frames with stress, got some without")
        stress = [frame.get_stress(include_ideal_gas=True)[:3].mean() for frame in self.frames]
        return -np.array(stress) * EV_ANGSTROM3_GPA

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
        if self.settings.ensemble == "npt":
            rows["volume / A^3"] = self.volumes
            rows["pressure / GPa"] = self.pressures
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

    def plot_analysis(self, path: str | Path, rmax: float = 6.0) -> Path:
        """Write a picture of structure and diffusion.

        The radial distribution is left out where there is no mean density (molecules, slabs).

        Args:
            path: target file.
            rmax: largest distance of the radial distribution in Angstrom.

        Returns:
            The path.
        """
        bulk = bool(self.frames[0].pbc.all())
        figure, axes = new_figure(rows=2 if bulk else 1)
        if bulk:
            axes[0].plot(*self.rdf(rmax))
            axes[0].axhline(1.0, linestyle="--", color="gray")
            axes[0].set_xlabel("r / Å")
            axes[0].set_ylabel("g(r)")
        axes[-1].plot(self.times - self.times[0], self.msd())
        axes[-1].set_xlabel("lag / fs")
        axes[-1].set_ylabel("mean square displacement / Å²")
        return save_figure(figure, path)
