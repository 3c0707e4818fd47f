"""PBE and r2SCAN in torch against libxc, through the calculator: energies, forces, net force.

Both sides converge the same SCF from the same guess; what is left is the difference of the two
implementations of the functional, and the convergence of the density.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ase.build import molecule
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    molecules: tuple[tuple[str, int], ...] = (
        ("H2O", 1),
        ("CH3OH", 1),
        ("SO2", 1),
        ("LiF", 1),
        ("NH2", 2),
        ("O2", 3),
    )
    functionals: tuple[str, ...] = ("pbe", "r2scan")
    basis: str = "def2-svp"
    density_fit: tuple[bool, ...] = (False, True)
    grid_level: int = 3
    conv_tol: float = 1e-11
    conv_tol_grad: float = 1e-7
    energy_target_hartree: float = 1e-8
    force_target_hartree_bohr: float = 1e-7
    net_force_target_hartree_bohr: float = 1e-8


def main() -> None:
    one_thread()
    from ase_neuralxc import NeuralXC
    from ase_neuralxc.records import units

    protocol = Protocol()
    rows = []
    for name, multiplicity in protocol.molecules:
        for xc in protocol.functionals:
            for fit in protocol.density_fit:
                energies, forces = [], []
                for spec in (xc, f"libxc:{xc}"):
                    atoms = molecule(name)
                    # Off the minimum and off symmetry, so that no force vanishes.
                    atoms.rattle(0.03, seed=7)
                    atoms.calc = NeuralXC(
                        xc=spec,
                        basis=protocol.basis,
                        multiplicity=multiplicity,
                        density_fit=fit,
                        grid_level=protocol.grid_level,
                        conv_tol=protocol.conv_tol,
                        conv_tol_grad=protocol.conv_tol_grad,
                    )
                    energies.append(atoms.get_potential_energy() / units.HARTREE_EV)
                    forces.append(atoms.get_forces() / units.HARTREE_BOHR_EV_ANGSTROM)
                rows.append(
                    {
                        "case": f"{name} {xc} {'density fit' if fit else 'exact Coulomb'}",
                        "energy_difference": abs(energies[0] - energies[1]),
                        "force_difference": float(np.abs(forces[0] - forces[1]).max()),
                        "net_force": float(np.abs(forces[0].sum(axis=0)).max()),
                        "largest_force": float(np.abs(forces[0]).max()),
                    }
                )
    keys = ("energy_difference", "force_difference", "net_force")
    worst = {key: max(row[key] for row in rows) for key in keys}
    save("agreement", protocol, {"worst": worst, "rows": rows})


if __name__ == "__main__":
    main()
