"""Peak memory of SCF and forces on a 40-atom organic molecule: neural against native r2SCAN.

Every contender runs in a fresh process. The peak resident set of the whole process is compared,
and the same less what was resident after the imports: torch itself weighs, and the native run
through this package loads it too, so plain PySCF is measured as well.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from ase import Atoms
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    molecule: str = "n-tridecane, C13H28 (41 atoms), all-trans, idealised"
    carbons: int = 13
    basis: str = "def2-svp"
    density_fit: bool = True
    grid_level: int = 3
    #: PySCF's own budget, which sets the size of its blocks.
    max_memory_mb: float = 4000.0
    width: int = 64
    depth: int = 3
    seed: int = 0
    target_mb: float = 300.0


CONTENDERS = ("pyscf", "native", "torch r2scan", "neural")


def alkane(carbons: int) -> Atoms:
    """All-trans n-alkane with tetrahedral angles, C-C 1.53 and C-H 1.09 Angstrom."""
    step, height = 1.53 * (2 / 3) ** 0.5, 1.53 * (1 / 3) ** 0.5
    chain = Atoms()
    for i in range(carbons):
        side = 1 if i % 2 else -1
        x, y = i * step, side * height / 2
        chain += Atoms("C", [(x, y, 0.0)])
        up, out = 1.09 * (1 / 3) ** 0.5, 1.09 * (2 / 3) ** 0.5
        chain += Atoms("H2", [(x, y + side * up, out), (x, y + side * up, -out)])
        for end, sign in ((0, -1), (carbons - 1, 1)):
            if i == end:
                chain += Atoms("H", [(x + sign * out, y - side * up, 0.0)])
    return chain


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(contender: str) -> dict[str, float]:
    """Run one contender in this process."""
    protocol = Protocol()
    atoms = alkane(protocol.carbons)
    if contender == "pyscf":
        from pyscf import df, dft, gto, lib

        lib.num_threads(1)
        imported = resident_mb()
        mol = gto.M(
            atom=list(zip(atoms.symbols, atoms.positions, strict=True)),
            basis=protocol.basis,
            max_memory=protocol.max_memory_mb,
            verbose=0,
        )
        mf = dft.RKS(mol, xc="r2scan").density_fit(auxbasis=df.make_auxbasis(mol, mp2fit=False))
        mf.grids.level = protocol.grid_level
        mf.small_rho_cutoff = 0
        energy = mf.kernel()
        after_scf = _peak_mb()
        gradient = mf.nuc_grad_method()
        gradient.grid_response = True
        gradient.kernel()
    else:
        one_thread()
        from ase_neuralxc.backend.libxc import LibxcFunctional
        from ase_neuralxc.backend.molecular import MolecularBackend
        from ase_neuralxc.backend.settings import KSSettings
        from ase_neuralxc.backend.system import System
        from ase_neuralxc.functional import load_functional
        from ase_neuralxc.functional.neural import NeuralSemilocal
        from ase_neuralxc.records import SpinState

        functional = {
            "native": lambda: LibxcFunctional("r2scan"),
            "torch r2scan": lambda: load_functional("r2scan"),
            "neural": lambda: NeuralSemilocal(
                width=protocol.width, depth=protocol.depth, seed=protocol.seed
            ),
        }[contender]()
        imported = resident_mb()
        settings = KSSettings(
            basis=protocol.basis,
            density_fit=protocol.density_fit,
            grid_level=protocol.grid_level,
            max_memory=protocol.max_memory_mb,
        )
        backend = MolecularBackend()
        system = System(atoms.numbers, atoms.positions, SpinState())
        solution = backend.solve(system, functional, settings)
        energy = solution.energies["total"]
        after_scf = _peak_mb()
        backend.forces(solution)
    peak = _peak_mb()
    return {
        "peak_mb": round(peak, 1),
        "peak_after_scf_mb": round(after_scf, 1),
        "after_imports_mb": round(imported, 1),
        "net_mb": round(peak - imported, 1),
        "energy_hartree": round(float(energy), 6),
    }


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # kB on Linux


def main() -> None:
    if len(sys.argv) > 1:
        sys.stdout.write(json.dumps(measure(sys.argv[1])))
        return
    protocol = Protocol()
    results = {}
    for contender in CONTENDERS:
        run = subprocess.run(
            [sys.executable, __file__, contender], capture_output=True, text=True, check=True
        )
        results[contender] = json.loads(run.stdout)
    for values in results.values():
        for key in ("peak_mb", "net_mb"):
            values[f"{key}_above_native"] = round(values[key] - results["native"][key], 1)
    save("memory", protocol, {"target_mb": protocol.target_mb, **results})


if __name__ == "__main__":
    main()
