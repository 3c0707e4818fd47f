"""Harmonic frequencies of r2SCAN: the analytic Hessian against finite differences of forces.

At a geometry relaxed at the same level. Both Hessians are projected and diagonalised in the same
way. The Hessian of a grid at rest, which is all that PySCF has, is given for comparison.
Run one case with `python benchmarks/vibrations.py NAME LEVEL`, all of them without arguments.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace

import numpy as np
from ase.build import molecule
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    cases: tuple[tuple[str, int], ...] = (
        ("H2O", 3),
        ("H2O", 5),
        ("CH3CH2OH", 3),
        ("CH3CH2OH", 5),
    )
    xc: str = "r2scan"
    basis: str = "def2-svp"
    density_fit: bool = True
    conv_tol: float = 1e-11
    conv_tol_grad: float = 1e-7
    fmax: float = 1e-3
    displacement_angstrom: float = 0.005
    targets_cm1: tuple[tuple[int, float], ...] = ((3, 5.0), (5, 1.0))


def measure(name: str, level: int, protocol: Protocol) -> dict[str, object]:
    from ase_neuralxc import NeuralXC
    from ase_neuralxc.derivatives.hessian import hessian
    from ase_neuralxc.records.units import HARTREE_BOHR2_EV_ANGSTROM2
    from ase_neuralxc.workflows.modes import analyse
    from ase_neuralxc.workflows.relax import relax
    from ase_neuralxc.workflows.vibrations import vibrations

    calc = NeuralXC(
        xc=protocol.xc,
        basis=protocol.basis,
        density_fit=protocol.density_fit,
        grid_level=level,
        conv_tol=protocol.conv_tol,
        conv_tol_grad=protocol.conv_tol_grad,
    )
    atoms = relax(molecule(name), calc, fmax=protocol.fmax).atoms
    atoms.calc = calc
    start = time.process_time()
    differences = vibrations(atoms, calc, delta=protocol.displacement_angstrom, intensities=False)
    seconds = {"differences": time.process_time() - start}
    atoms.get_potential_energy()
    frequencies = {"differences": differences.frequencies}
    for label, moving in (("analytic", True), ("grid_at_rest", False)):
        solution = calc.solution
        solution = replace(solution, settings=replace(solution.settings, grid_response=moving))
        start = time.process_time()
        matrix = hessian(solution) * HARTREE_BOHR2_EV_ANGSTROM2
        seconds[label] = time.process_time() - start
        everything = np.arange(len(atoms))
        modes = analyse(atoms.copy(), everything, matrix, None, (0.0, 0.0))
        frequencies[label] = modes.frequencies
    largest = {
        label: round(float(np.abs(values - frequencies["differences"]).max()), 3)
        for label, values in frequencies.items()
        if label != "differences"
    }
    return {
        "case": f"{name} level {level}",
        "target_cm1": dict(protocol.targets_cm1)[level],
        "largest_difference_cm1": largest,
        "frequencies_cm1": {k: np.round(v, 2).tolist() for k, v in frequencies.items()},
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
    }


def main() -> None:
    one_thread()
    protocol = Protocol()
    if len(sys.argv) == 3:
        protocol = replace(protocol, cases=((sys.argv[1], int(sys.argv[2])),))
        name = f"vibrations_{sys.argv[1]}_{sys.argv[2]}"
    else:
        name = "vibrations"
    save(name, protocol, [measure(*case, protocol) for case in protocol.cases])


if __name__ == "__main__":
    main()
