"""Relax a molecule with r2SCAN, compute its vibrations, and draw both."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from ase.build import molecule
from matplotlib.figure import Figure
from tqdm import tqdm

from ase_neuralxc import NeuralXC
from ase_neuralxc.workflows import RelaxResult, VibrationsResult, relax, vibrations


def draw(relaxation: RelaxResult, modes: VibrationsResult, path: Path) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.semilogy(relaxation.fmaxes, "o-")
    left.axhline(relaxation.settings.fmax, linestyle="--", color="gray")
    left.set(xlabel="step", ylabel="largest force / eV/Å", title="relaxation")
    grid = np.linspace(0, 4200, 3000)
    width = 15.0
    lines = width / np.pi / ((grid[:, None] - modes.frequencies) ** 2 + width**2)
    right.plot(grid, lines @ modes.intensities)
    right.set(xlabel="wavenumber / cm⁻¹", ylabel="IR / km mol⁻¹ per cm⁻¹", title="infrared")
    figure.suptitle(f"{relaxation.atoms.get_chemical_formula()}, r2SCAN/def2-SVP, harmonic")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--molecule", default="H2O", help="name in ase.build.molecule")
    parser.add_argument("--out", default="quickstart", type=Path, help="directory of the picture")
    arguments = parser.parse_args()
    start = time.perf_counter()

    atoms = molecule(arguments.molecule)
    atoms.calc = NeuralXC(xc="r2scan", basis="def2-svp", density_fit=True)
    relaxation = relax(atoms, fmax=0.01)
    print(relaxation.table())
    print(f"forces / eV/A:\n{np.round(atoms.get_forces(), 5)}")
    dipole = atoms.get_dipole_moment()
    print(f"dipole: {np.round(dipole, 4).tolist()} eA, norm {np.linalg.norm(dipole):.4f} eA\n")

    with tqdm(file=sys.stderr, unit="displacement", leave=False) as bar:

        def report(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.update(done - bar.n)

        modes = vibrations(atoms, progress=report)
    print(modes.table())
    if not modes.imaginary.any():
        print(modes.thermochemistry().table())

    picture = arguments.out / "picture.png"
    draw(relaxation, modes, picture)
    print(f"\n{picture} written after {time.perf_counter() - start:.0f} s")
    return 0 if relaxation.converged and not modes.imaginary.any() else 1


if __name__ == "__main__":
    sys.exit(main())
