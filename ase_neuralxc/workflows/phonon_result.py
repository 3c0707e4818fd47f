"""What a phonon calculation gives: bands, density of states, thermal properties, a report."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import save_figure

if TYPE_CHECKING:
    from phonopy import Phonopy

#: One THz in cm^-1 (the speed of light is exact).
THZ_CM1 = 1e12 / 29979245800.0
#: Frequencies below minus this (THz) are reported as imaginary; acoustic noise at Gamma is smaller.
IMAGINARY = 0.05


@dataclass(frozen=True)
class PhononsResult:
    """Phonons of a crystal. Frequencies are in THz; imaginary ones are negative numbers.

    Attributes:
        distances: [s] list of [q] positions along each segment of the band path.
        bands: [s] list of [q, 3 n] frequencies on each segment.
        qpoints: [s] list of [q, 3] reduced coordinates of the primitive cell.
        labels: names of the ends of each segment.
        dos_frequencies: [m] frequencies of the density of states.
        dos: [m] density of states in 1/THz, its integral 3 n.
        temperatures: [t] in K.
        free_energies: [t] harmonic free energies in kJ/mol of primitive cells.
        entropies: [t] in J/(K mol).
        heat_capacities: [t] at constant volume, in J/(K mol).
        lowest: lowest frequency on path and mesh, and its q-point.
        acoustic: [3] acoustic frequencies at Gamma.
        drift: largest sum of force constants over a row before symmetrisation, in eV/Angstrom^2:
            the violation of the acoustic sum rule by the forces.
        fmax: largest force in the undisplaced supercell, in eV/Angstrom.
        forces: [displacements, n_supercell, 3] forces of the displaced supercells.
        phonopy: the phonopy object, for everything else.
    """

    distances: list[NDArray]
    bands: list[NDArray]
    qpoints: list[NDArray]
    labels: list[tuple[str, str]]
    dos_frequencies: NDArray
    dos: NDArray
    temperatures: NDArray
    free_energies: NDArray
    entropies: NDArray
    heat_capacities: NDArray
    lowest: tuple[float, NDArray]
    acoustic: NDArray
    drift: float
    fmax: float
    forces: NDArray
    phonopy: Any = field(repr=False)

    @property
    def stable(self) -> bool:
        """Whether no mode is imaginary beyond the noise of acoustic modes at Gamma."""
        return self.lowest[0] > -IMAGINARY

    def difference(self, other: PhononsResult) -> float:
        """Root-mean-square difference of the bands, for two calculators on one structure.

        Args:
            other: phonons of the same primitive cell on the same path.

        Returns:
            In THz.

        Raises:
            InvalidInputError: the paths differ.
        """
        same = len(self.qpoints) == len(other.qpoints) and all(
            a.shape == b.shape and np.allclose(a, b, atol=1e-4)
            for a, b in zip(self.qpoints, other.qpoints, strict=True)
        )
        if not same:
            raise InvalidInputError("other: expected bands on the same path, got another one")
        squares = [(a - b) ** 2 for a, b in zip(self.bands, other.bands, strict=True)]
        return float(np.sqrt(np.concatenate([s.ravel() for s in squares]).mean()))

    def table(self) -> str:
        """Text: frequencies at the special points, thermal properties, the verdict."""
        lines = [f"{'q-point':>10}  frequencies / THz"]
        seen: set[str] = set()
        for (first, last), bands in zip(self.labels, self.bands, strict=True):
            for label, values in ((first, bands[0]), (last, bands[-1])):
                if label not in seen:
                    seen.add(label)
                    lines.append(f"{label:>10}  " + " ".join(f"{v:9.4f}" for v in values))
        lines.append(f"{'T / K':>10} {'F / kJ/mol':>12} {'S / J/K/mol':>12} {'C_V / J/K/mol':>14}")
        rows = zip(
            self.temperatures,
            self.free_energies,
            self.entropies,
            self.heat_capacities,
            strict=True,
        )
        lines += [f"{t:10.1f} {f:12.4f} {s:12.4f} {c:14.4f}" for t, f, s, c in rows]
        value, q = self.lowest
        verdict = "no imaginary modes" if self.stable else "IMAGINARY MODES"
        lines += [
            f"{verdict}: lowest {value:.4f} THz at q = {np.round(q, 4).tolist()}",
            f"acoustic sum rule: drift of the forces {self.drift:.1e} eV/A^2, largest acoustic "
            f"frequency at Gamma {np.abs(self.acoustic).max():.1e} THz; forces of the perfect "
            f"crystal {self.fmax:.1e} eV/A",
        ]
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of the bands beside the density of states.

        Args:
            path: target; the ending chooses the format.

        Returns:
            The path.
        """
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8.0, 4.4), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 1))
        for x, bands in zip(self.distances, self.bands, strict=True):
            left.plot(x, bands, color="C0", linewidth=1.2)
        ticks: dict[float, str] = {}
        for (first, last), x in zip(self.labels, self.distances, strict=True):
            for position, label in ((x[0], first), (x[-1], last)):
                known = ticks.get(round(float(position), 8))
                joined = label if known in (None, label) else f"{known}|{label}"
                ticks[round(float(position), 8)] = joined
        for position in ticks:
            left.axvline(position, color="gray", linewidth=0.6)
        left.axhline(0.0, color="gray", linewidth=0.6)
        left.set_xticks(list(ticks), list(ticks.values()))
        left.set(ylabel="frequency / THz", xlim=(0.0, float(self.distances[-1][-1])))
        right.plot(self.dos, self.dos_frequencies, color="C0")
        right.set(xlabel="DOS / THz⁻¹", xlim=(0.0, None))
        return save_figure(figure, path)


def gather(
    phonopy: Phonopy,
    *,
    points: int,
    mesh: float,
    temperatures: tuple[float, float, float],
    drift: float,
    fmax: float,
    forces: NDArray,
) -> PhononsResult:
    """Derive everything from force constants.

    Args:
        phonopy: with its force constants produced.
        points: q-points per segment of the path.
        mesh: length in Angstrom that sets the q-mesh.
        temperatures: first, last and step in K.
        drift: violation of the acoustic sum rule before symmetrisation, eV/Angstrom^2.
        fmax: largest force in the undisplaced supercell, eV/Angstrom.
        forces: [displacements, n, 3] forces of the displaced supercells, eV/Angstrom.

    Returns:
        The result.
    """
    from phonopy.phonon.band_structure import get_band_qpoints_by_seekpath

    paths, labels, connections = get_band_qpoints_by_seekpath(phonopy.primitive, points)
    found = phonopy.run_band_structure(paths, path_connections=connections, labels=labels)
    bands = [np.asarray(f) for f in found.frequencies]
    qpoints = [np.asarray(q) for q in found.qpoints]
    grid = phonopy.run_mesh(mesh)
    dos = phonopy.run_total_dos()
    first, last, step = temperatures
    # the logarithm of three frequencies that are zero but for rounding is not a property
    thermal = phonopy.run_thermal_properties(
        t_min=first, t_max=last, t_step=step, exclude_gamma_acoustic=True
    )
    all_frequencies = np.concatenate([*bands, np.asarray(grid.frequencies)])
    all_qpoints = np.concatenate([*qpoints, np.asarray(grid.qpoints)])
    lowest = int(all_frequencies.min(axis=1).argmin())
    at_gamma = np.asarray(phonopy.run_qpoints([(0.0, 0.0, 0.0)]).frequencies)[0]
    return PhononsResult(
        distances=[np.asarray(d) for d in found.distances],
        bands=bands,
        qpoints=qpoints,
        labels=_segments(list(labels), list(connections)),
        dos_frequencies=np.asarray(dos.frequency_points),
        dos=np.asarray(dos.dos),
        temperatures=np.asarray(thermal.temperatures),
        free_energies=np.asarray(thermal.free_energy),
        entropies=np.asarray(thermal.entropy),
        heat_capacities=np.asarray(thermal.heat_capacity),
        lowest=(float(all_frequencies[lowest].min()), all_qpoints[lowest]),
        acoustic=np.sort(np.abs(at_gamma))[:3],
        drift=drift,
        fmax=fmax,
        forces=forces,
        phonopy=phonopy,
    )


def _segments(labels: list[str], connections: list[bool]) -> list[tuple[str, str]]:
    """Names of both ends of each segment; connected segments share a label in phonopy's list."""
    readable = [re.sub(r"[$\\{}]|mathrm", "", label).replace("Gamma", "Γ") for label in labels]
    ends, position = [], 0
    for connected in connections:
        ends.append((readable[position], readable[position + 1]))
        position += 1 if connected else 2
    return ends
