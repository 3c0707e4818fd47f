"""What a nudged elastic band gives: the path, its barriers, its saddle point."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import Atoms
from ase.utils.forcecurve import ForceFit, fit_images
from numpy.typing import NDArray

from ase_neuralxc.workflows.common import new_figure, save_figure
from ase_neuralxc.workflows.saddle import Saddle

if TYPE_CHECKING:
    from ase_neuralxc.workflows.neb import NEBSettings


@dataclass(frozen=True, eq=False)
class NEBResult:
    """A reaction path.

    Attributes:
        images: the structures of the path with energy and forces, both ends included.
        fmaxes: [n] largest force on an atom in eV/Angstrom: for the ends the true force, for the
            images between them the force of the band (perpendicular to the path, plus springs).
        converged: whether band, ends and saddle are converged.
        n_steps: steps of the band's optimiser in this call.
        saddle: the saddle point, None where no climbing image and no refinement looked for it or
            the path has no maximum between its ends.
        settings: what was asked for.
    """

    images: tuple[Atoms, ...]
    fmaxes: NDArray
    converged: bool
    n_steps: int
    saddle: Saddle | None
    settings: NEBSettings

    @property
    def energies(self) -> NDArray:
        """[n] energies in eV."""
        return np.array([image.get_potential_energy() for image in self.images])

    @property
    def fit(self) -> ForceFit:
        """Piecewise cubic through energies and forces along the path (`ase.utils.forcecurve`)."""
        return fit_images(list(self.images))

    @property
    def barrier(self) -> float:
        """Energy of the saddle above the start in eV: of the fitted maximum where none is known."""
        if self.saddle is not None:
            return self.saddle.energy - float(self.energies[0])
        return float(self.fit.fit_energies.max())

    @property
    def reverse_barrier(self) -> float:
        """Energy of the saddle above the end in eV."""
        return self.barrier - self.reaction_energy

    @property
    def reaction_energy(self) -> float:
        """Energy of the end minus that of the start in eV."""
        return float(self.energies[-1] - self.energies[0])

    @property
    def intermediates(self) -> list[int]:
        """Images that are local minima between the ends: the path is of more than one step."""
        e = self.energies
        return [k for k in range(1, len(e) - 1) if e[k] < e[k - 1] and e[k] < e[k + 1]]

    def table(self) -> str:
        """Text: one line per image, barriers, the saddle and warnings where there is cause."""
        first = self.energies[0]
        lines = [f"{'image':>5} {'path / A':>9} {'energy / eV':>18} {'rel. / eV':>11} {'fmax':>9}"]
        rows = zip(self.fit.path, self.energies, self.fmaxes, strict=True)
        for number, (path, energy, fmax) in enumerate(rows):
            lines.append(
                f"{number:5d} {path:9.4f} {energy:18.8f} {energy - first:11.5f} {fmax:9.4f}"
            )
        lines.append(f"forward barrier  {self.barrier:10.4f} eV")
        lines.append(f"reverse barrier  {self.reverse_barrier:10.4f} eV")
        lines.append(f"reaction energy  {self.reaction_energy:10.4f} eV")
        lines += self._saddle_lines()
        if self.intermediates:
            lines.append(
                f"INTERMEDIATE minimum at image {self.intermediates[0]}: relax it and run two paths"
            )
        verdict = "converged" if self.converged else "NOT CONVERGED"
        lines.append(
            f"{verdict}: {self.settings.optimizer}, {self.n_steps} steps, band fmax "
            f"{self.fmaxes[1:-1].max():.4f} (asked: {self.settings.fmax:g}) eV/A"
        )
        return "\n".join(lines)

    def _saddle_lines(self) -> list[str]:
        """Text about the saddle."""
        if self.saddle is None:
            inner = self.energies[1:-1].max()
            if inner <= max(self.energies[0], self.energies[-1]):
                return ["no maximum between the ends: no saddle"]
            return ["no saddle was located: the barrier is the maximum of the fit"]
        saddle = self.saddle
        lines = [f"saddle by {saddle.method}: largest force {saddle.fmax:.4f} eV/A"]
        if saddle.modes is not None:
            found = ", ".join(f"{abs(f):.1f}i" for f in saddle.imaginary) or "none"
            verdict = "a first-order saddle" if saddle.verified else "NOT a first-order saddle"
            lines.append(
                f"imaginary modes: {found} cm^-1, {verdict}; overlap with the path "
                f"{saddle.overlap:.2f}"
            )
        return lines

    def plot(self, path: str | Path) -> Path:
        """Write a picture of the energy along the path: images, fit and saddle.

        Args:
            path: target file.

        Returns:
            The path.
        """
        fit = self.fit
        figure, (axes,) = new_figure()
        axes.plot(fit.fit_path, fit.fit_energies, color="gray")
        axes.plot(fit.path, fit.energies, "o")
        if self.saddle is not None:
            axes.axhline(self.barrier, linestyle="--", color="gray", linewidth=0.8)
        axes.set_xlabel("path / Å")
        axes.set_ylabel("energy − start / eV")
        axes.set_title(
            f"{self.images[0].get_chemical_formula()}: barrier {self.barrier:.3f} eV, back "
            f"{self.reverse_barrier:.3f} eV"
        )
        return save_figure(figure, path)
