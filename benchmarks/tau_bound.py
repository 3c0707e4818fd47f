"""The bound tau >= tau_W in plane waves: with a corner, and smooth.

    OMP_NUM_THREADS=1 python benchmarks/tau_bound.py

Cycles of all strategies, and energies, of atoms, a radical and solids; the corner is the limit of a
band without width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ase import Atoms
from ase.build import bulk, fcc111, molecule
from common import one_thread, save
from periodic_gpaw import solver


@dataclass(frozen=True)
class Protocol:
    functionals: tuple[str, ...] = ("r2scan", "nxc-s8", "nxc-s9")
    bounds: tuple[str, ...] = ("corner", "smooth")
    # name, cutoff in eV, k-points per direction, smearing in eV
    systems: tuple[tuple[str, float, int, float | None], ...] = (
        ("H", 250.0, 1, None),
        ("N", 250.0, 1, None),
        ("O2", 400.0, 1, None),
        ("MgO", 500.0, 3, None),
        ("Fe", 350.0, 6, 0.1),
        ("Al(111)", 300.0, 4, 0.1),
    )


def structure(name: str) -> Atoms:
    """Atoms in a cell of 4 Angstrom, O2 in one of 5 x 5 x 6, crystals, three layers."""
    if name in ("H", "N"):
        atoms = Atoms(name, positions=[[2.0] * 3], cell=[4.0] * 3, pbc=True)
        atoms.set_initial_magnetic_moments([{"H": 1, "N": 3}[name]])
    elif name == "O2":
        atoms = molecule("O2", cell=[5.0, 5.0, 6.0], pbc=True)
        atoms.center()
    elif name == "MgO":
        atoms = bulk("MgO", "rocksalt", a=4.19)
    elif name == "Fe":
        atoms = bulk("Fe")
        atoms.set_initial_magnetic_moments([2.2])
    else:
        atoms = fcc111("Al", (1, 1, 3), vacuum=6.0)
    return atoms


@contextmanager
def bound(kind: str) -> Iterator[None]:
    """Calculations with the bound as it is, or with a band that is too narrow to be one."""
    from ase_neuralxc.backend import clamps

    before = clamps.BAND, clamps.WIDEST
    if kind == "corner":
        clamps.BAND = clamps.WIDEST = 1e-9
    try:
        yield
    finally:
        clamps.BAND, clamps.WIDEST = before


def measure(solve: Any, atoms: Atoms, functional: str) -> dict[str, Any]:
    from ase_neuralxc.errors import SCFNotConverged

    try:
        solution = solve(atoms, functional)
    except SCFNotConverged as error:
        return {"converged": False, "cycles": sum(a.cycles for a in error.history)}
    return {
        "converged": True,
        "cycles": sum(a.cycles for a in solution.history),
        "energy_ha": solution.energy,
    }


def main() -> None:
    one_thread()
    from ase_neuralxc.backend.gpaw_pw import GPAWSettings

    protocol, results = Protocol(), []
    for name, ecut, kpts, smearing in protocol.systems:
        size = (kpts, kpts, 1 if name.startswith("Al") else kpts)
        solve = solver(GPAWSettings(ecut=ecut, kpts=size, smearing=smearing))
        for functional in protocol.functionals:
            row: dict[str, Any] = {"system": name, "functional": functional}
            for kind in protocol.bounds:
                with bound(kind):
                    row[kind] = measure(solve, structure(name), functional)
            results.append(row)
            print(row, flush=True)
    save("tau_bound", protocol, results)


if __name__ == "__main__":
    main()
