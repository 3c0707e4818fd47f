"""Slabs in plane waves: does the energy depend on how much vacuum there is?

    OMP_NUM_THREADS=1 python benchmarks/slab_vacuum.py

Meta-GGAs are unstable where the density vanishes; the bounds of the density are there to keep the
energy of a slab the same whatever its vacuum. PBE, which needs no bounds, shows what is left of the
cutoff and the grid.
"""

from __future__ import annotations

from dataclasses import dataclass

from ase.build import add_adsorbate, fcc111
from common import one_thread, save
from periodic_gpaw import solver


@dataclass(frozen=True)
class Protocol:
    functionals: tuple[str, ...] = ("libxc:pbe", "r2scan", "nxc-s9")
    vacuum_angstrom: tuple[float, ...] = (5.0, 7.5, 10.0, 15.0)
    element: str = "Al"
    layers: int = 3
    adsorbate: str = "H"
    ecut: float = 300.0
    kpts: tuple[int, int, int] = (4, 4, 1)
    smearing: float = 0.1


def main() -> None:
    one_thread()
    from ase_neuralxc.backend.gpaw_pw import GPAWSettings
    from ase_neuralxc.records import units

    protocol, results = Protocol(), {}
    solve = solver(GPAWSettings(ecut=protocol.ecut, kpts=protocol.kpts, smearing=protocol.smearing))
    for name in protocol.functionals:
        rows = []
        for vacuum in protocol.vacuum_angstrom:
            atoms = fcc111(protocol.element, (1, 1, protocol.layers), vacuum=vacuum)
            add_adsorbate(atoms, protocol.adsorbate, 1.0, "fcc")
            atoms.center(vacuum=vacuum, axis=2)
            solution = solve(atoms, name)
            energy = solution.free_energy * units.HARTREE_EV
            rows.append({"vacuum": vacuum, "free_energy_ev": energy, "cycles": solution.cycles})
            print(name, rows[-1], flush=True)
        widest = rows[-1]["free_energy_ev"]
        for row in rows:
            row["above_widest_mev"] = 1e3 * (row["free_energy_ev"] - widest)
        results[name] = rows
        save("slab_vacuum", protocol, results)


if __name__ == "__main__":
    main()
