"""Crystals in PySCF: torch functionals against libxc, and forces against finite differences.

Both sides converge the same SCF from the same guess; what is left is the difference of the two
implementations of the functional. Cells are primitive and small: Gaussians on Fourier grids are
slow where pseudopotentials are deep.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from common import one_thread, save

COMPARED = ("energy_difference", "force_difference", "stress_difference", "magmom_difference")


@dataclass(frozen=True)
class Protocol:
    functionals: tuple[str, ...] = ("pbe", "r2scan")
    # name, grid cutoff in eV, k-points, smearing in eV, basis, pseudopotentials
    crystals: tuple[tuple[Any, ...], ...] = (
        ("Si", 1200.0, (2, 2, 1), None, "gth-dzvp-molopt-sr", "gth-pbe"),
        ("Al", 1000.0, (3, 3, 1), 0.2, "gth-dzvp-molopt-sr", "gth-pbe"),
        ("MgO", 3000.0, (1, 1, 1), None, "gth-dzvp-molopt-sr", "Mg: GTH-PBE-q2"),
        ("Fe", 3000.0, (2, 1, 1), 0.2, "gth-szv-molopt-sr", "gth-pbe"),
    )
    conv_tol: float = 1e-11
    conv_tol_grad: float = 1e-7
    force_step_angstrom: float = 2e-3
    energy_target_hartree: float = 1e-9
    force_target_hartree_bohr: float = 1e-8


def crystal(name: str) -> Atoms:
    """Off its symmetry where there is more than one atom, strained where there is one."""
    atoms = bulk("MgO", "rocksalt", a=4.21) if name == "MgO" else bulk(name)
    if name == "Fe":
        atoms.set_initial_magnetic_moments([2.3])
    atoms.set_cell(atoms.cell.array @ np.diag([1.0, 1.01, 0.98]), scale_atoms=True)
    atoms.rattle(0.03, seed=7)
    return atoms


def main() -> None:
    one_thread()
    from ase_neuralxc.backend.libxc import LibxcFunctional
    from ase_neuralxc.backend.pbc.cell import frozen
    from ase_neuralxc.backend.pbc.settings import PeriodicSettings
    from ase_neuralxc.backend.periodic import PeriodicBackend
    from ase_neuralxc.backend.system import System
    from ase_neuralxc.functional import load_functional
    from ase_neuralxc.records import SpinState, units

    def as_system(atoms: Atoms) -> System:
        moments = atoms.get_initial_magnetic_moments()
        state = SpinState(magmoms=tuple(moments) if moments.any() else None)
        return System(atoms.numbers, atoms.positions, state, atoms.cell.array, (True,) * 3)

    protocol, backend, rows = Protocol(), PeriodicBackend(), []
    for name, ecut, kpts, smearing, basis, pseudo in protocol.crystals:
        atoms = crystal(name)
        element, _, other = pseudo.partition(": ")
        settings = frozen(
            as_system(atoms),
            PeriodicSettings(
                basis=basis,
                pseudo={element: other, "default": "gth-pbe"} if other else pseudo,
                kpts=kpts,
                smearing=smearing,
                ecut=ecut,
                conv_tol=protocol.conv_tol,
                conv_tol_grad=protocol.conv_tol_grad,
            ),
        )
        for xc in protocol.functionals:
            found = []
            for functional in (load_functional(xc), LibxcFunctional(xc)):
                start = time.process_time()
                solution = backend.solve(as_system(atoms), functional, settings)
                seconds = time.process_time() - start
                forces, stress = backend.forces(solution), backend.stress(solution)
                found.append((solution, forces, stress, seconds))
            (ours, forces, stress, seconds), (theirs, *derivatives, native) = found
            row = {
                "case": f"{name} {xc}",
                "reference": ours.reference,
                "mesh": list(settings.mesh),
                "energy_hartree": ours.energy,
                "energy_difference": abs(ours.energy - theirs.energy),
                "force_difference": float(np.abs(forces - derivatives[0]).max()),
                "stress_difference": float(np.abs(stress - derivatives[1]).max()),
                "magmom": backend.properties(ours)["magmom"],
                "magmom_difference": abs(
                    backend.properties(ours)["magmom"] - backend.properties(theirs)["magmom"]
                ),
                "cycles": [ours.cycles, theirs.cycles],
                "scf_seconds": [round(seconds, 2), round(native, 2)],
            }
            if len(atoms) > 1:
                row["force_ev_angstrom"] = float(forces[1, 2] * units.HARTREE_BOHR_EV_ANGSTROM)
                row["force_error_of_differences_ev_angstrom"] = abs(
                    row["force_ev_angstrom"]
                    - _by_differences(backend, as_system(atoms), ours, settings, xc, protocol)
                )
            rows.append(row)
            worst = {key: max(r[key] for r in rows) for key in COMPARED}
            save("periodic_pyscf", protocol, {"worst": worst, "rows": rows})


def _by_differences(
    backend: Any, system: Any, solution: Any, settings: Any, xc: str, protocol: Protocol
) -> float:
    """Force on the second atom along z in eV/Angstrom, fourth order."""
    from ase_neuralxc.functional import load_functional
    from ase_neuralxc.records import units

    def energy(steps: int) -> float:
        positions = system.positions.copy()
        positions[1, 2] += steps * protocol.force_step_angstrom
        moved = replace(system, positions=positions)
        found = backend.solve(moved, load_functional(xc), settings, guess=solution.density_matrix)
        return float(found.free_energy)

    near, far = energy(1) - energy(-1), energy(2) - energy(-2)
    slope = (8 * near - far) / (12 * protocol.force_step_angstrom)
    return float(-slope * units.HARTREE_EV)


if __name__ == "__main__":
    main()
