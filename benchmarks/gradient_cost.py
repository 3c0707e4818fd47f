"""Analytic forces with the response of the grid: neural functional against native r2SCAN.

The SCF is done beforehand and is not timed.
"""

from __future__ import annotations

from dataclasses import dataclass

from ase.build import molecule
from common import compare, interleave, one_thread, save


@dataclass(frozen=True)
class Case:
    molecule: str
    basis: str
    repeats: int
    density_fit: bool


@dataclass(frozen=True)
class Protocol:
    cases: tuple[Case, ...] = (
        Case("H2O", "def2-svp", repeats=15, density_fit=True),
        Case("C6H6", "def2-svp", repeats=5, density_fit=True),
        Case("CH3CH2OH", "def2-svp", repeats=5, density_fit=False),
    )
    grid_level: int = 3
    width: int = 64
    depth: int = 3
    seed: int = 0
    trained: str = "nxc-s9"
    target: float = 1.2


def main() -> None:
    one_thread()
    from ase_neuralxc.backend.libxc import LibxcFunctional
    from ase_neuralxc.backend.molecular import MolecularBackend
    from ase_neuralxc.backend.settings import KSSettings
    from ase_neuralxc.backend.system import System
    from ase_neuralxc.functional import load_functional
    from ase_neuralxc.functional.neural import NeuralSemilocal
    from ase_neuralxc.records import SpinState

    protocol = Protocol()
    backend = MolecularBackend()
    functionals = {
        "native": LibxcFunctional("r2scan"),
        "torch r2scan": load_functional("r2scan"),
        "neural": NeuralSemilocal(width=protocol.width, depth=protocol.depth, seed=protocol.seed),
        protocol.trained: load_functional(protocol.trained),
    }
    results = []
    for case in protocol.cases:
        atoms = molecule(case.molecule)
        system = System(atoms.numbers, atoms.positions, SpinState())
        settings = KSSettings(
            basis=case.basis,
            density_fit=case.density_fit,
            grid_level=protocol.grid_level,
            grid_response=True,
        )
        runs = {}
        for name, functional in functionals.items():
            solution = backend.solve(system, functional, settings)
            runs[name] = lambda solution=solution: (backend.forces(solution), {})[1]
        fit = "density fit" if case.density_fit else "exact Coulomb"
        results.append(
            {
                "case": f"{case.molecule} {case.basis}, {fit}",
                "target": protocol.target,
                **compare(interleave(runs, case.repeats), "native"),
            }
        )
    save("gradient_cost", protocol, results)


if __name__ == "__main__":
    main()
