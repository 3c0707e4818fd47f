"""How far energies on the grids of an SCF are from those on a fine one.

    OMP_NUM_THREADS=1 python benchmarks/grid_dependence.py [FUNCTIONAL ...]

Self-consistent energies of atoms and small molecules at grid levels 1 to 5, minus that at level 6.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

from ase import Atoms
from ase.build import molecule
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    functionals: tuple[str, ...] = ("r2scan", "nxc-s9", "nxc-h4")
    # names of ASE's molecules, or atoms with their number of unpaired electrons
    systems: tuple[tuple[str, int | None], ...] = (
        ("N", 3), ("P", 3), ("Ar", 0), ("H2", None), ("N2", None), ("H2O", None),
    )  # fmt: skip
    basis: str = "def2-svp"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)
    finest: int = 6


def structure(name: str, unpaired: int | None) -> Atoms:
    return molecule(name) if unpaired is None else Atoms(name, magmoms=[unpaired])


def main() -> None:
    from ase_neuralxc import NeuralXC

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("functional", nargs="*", help="instead of r2SCAN and the shipped ones")
    chosen = parser.parse_args().functional
    one_thread()
    protocol = Protocol()
    if chosen:
        protocol = replace(protocol, functionals=tuple(chosen))
    results: dict[str, dict[str, list[float]]] = {}
    for xc in protocol.functionals:
        for name, unpaired in protocol.systems:
            energies = []
            for level in (*protocol.levels, protocol.finest):
                atoms = structure(name, unpaired)
                atoms.calc = NeuralXC(xc, basis=protocol.basis, grid_level=level)
                energies.append(atoms.get_potential_energy())
            errors = [1000.0 * (energy - energies[-1]) for energy in energies[:-1]]
            results.setdefault(xc, {})[f"{name}_mev"] = errors
            print(xc, name, *(f"{error:8.1f}" for error in errors), flush=True)
    save("grid_dependence", protocol, results)


if __name__ == "__main__":
    main()
