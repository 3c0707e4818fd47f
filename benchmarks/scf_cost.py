"""A whole restricted SCF with the neural functional against PySCF's native r2SCAN.

Same molecule, basis, grid and density fit; everything from the molecule object to the converged
density is timed. The functionals need not take the same number of cycles, so the ratio per cycle
is given too. `pyscf`, to which all ratios refer, is PySCF as its own users would call it; `native`
is libxc's functional through the backend of this package; `neural` has initial weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ase.build import molecule
from common import compare, interleave, one_thread, save


@dataclass(frozen=True)
class Case:
    molecule: str
    basis: str
    repeats: int
    target: float


@dataclass(frozen=True)
class Protocol:
    cases: tuple[Case, ...] = (
        Case("H2O", "def2-svp", repeats=15, target=1.5),
        Case("C6H6", "def2-tzvp", repeats=3, target=1.15),
    )
    density_fit: bool = True
    grid_level: int = 3
    conv_tol: float = 1e-9
    width: int = 64
    depth: int = 3
    dtype: str = "float32"
    seed: int = 0
    trained: str = "nxc-s9"


def contenders(case: Case, protocol: Protocol) -> dict[str, Callable[[], dict[str, float]]]:
    from pyscf import df, dft, gto

    from ase_neuralxc.backend.libxc import LibxcFunctional
    from ase_neuralxc.backend.molecular import MolecularBackend
    from ase_neuralxc.backend.settings import KSSettings
    from ase_neuralxc.backend.system import System
    from ase_neuralxc.functional import load_functional
    from ase_neuralxc.functional.neural import NeuralSemilocal
    from ase_neuralxc.records import SpinState, units

    atoms = molecule(case.molecule)
    system = System(atoms.numbers, atoms.positions, SpinState())
    settings = KSSettings(
        basis=case.basis,
        density_fit=protocol.density_fit,
        grid_level=protocol.grid_level,
        conv_tol=protocol.conv_tol,
    )
    backend = MolecularBackend()

    def through_backend(functional: object) -> Callable[[], dict[str, float]]:
        def run() -> dict[str, float]:
            solution = backend.solve(system, functional, settings)  # type: ignore[arg-type]
            return {"cycles": solution.history[-1].cycles}

        return run

    def plain() -> dict[str, float]:
        mol = gto.M(
            atom=list(zip(system.symbols, atoms.positions / units.BOHR_ANGSTROM, strict=True)),
            unit="Bohr",
            basis=case.basis,
            verbose=0,
        )
        mf = dft.RKS(mol, xc="r2scan")
        mf.grids.level = protocol.grid_level
        mf.small_rho_cutoff = 0
        mf.conv_tol = protocol.conv_tol
        if protocol.density_fit:
            mf = mf.density_fit(auxbasis=df.make_auxbasis(mol, mp2fit=False))
        mf.kernel()
        return {"cycles": mf.cycles}

    network = NeuralSemilocal(
        width=protocol.width, depth=protocol.depth, dtype=protocol.dtype, seed=protocol.seed
    )
    return {
        "pyscf": plain,
        "native": through_backend(LibxcFunctional("r2scan")),
        "torch r2scan": through_backend(load_functional("r2scan")),
        "neural": through_backend(network),
        protocol.trained: through_backend(load_functional(protocol.trained)),
    }


def main() -> None:
    one_thread()
    protocol = Protocol()
    results = []
    for case in protocol.cases:
        timings = interleave(contenders(case, protocol), case.repeats)
        results.append(
            {
                "case": f"{case.molecule} {case.basis}",
                "target": case.target,
                **compare(timings, "pyscf", per="cycles"),
            }
        )
    save("scf_cost", protocol, results)


if __name__ == "__main__":
    main()
