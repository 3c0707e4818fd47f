"""Lowest excitations of acenes: constrained transitions beside linear response and Delta-SCF.

    OMP_NUM_THREADS=1 python benchmarks/acenes.py FOLDER

FOLDER holds `acene2.xyz` (naphthalene), `acene3.xyz` and `acene4.xyz`. All three methods move an
electron from HOMO to LUMO, start from the same ground state and share the purification of the
singlet; Delta-SCF is PySCF's maximum-overlap method, which falls back to the ground state where
the printed overlap with the wanted determinant is far from one. The state of linear response is
the one to which HOMO -> LUMO contributes most.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from common import one_thread, save

from ase_neuralxc.records.units import HARTREE_EV


@dataclass(frozen=True)
class Protocol:
    molecules: tuple[str, ...] = ("acene2", "acene3", "acene4")
    functionals: tuple[str, ...] = ("pbe", "nxc-s9")
    # other methods beside these alone: linear response takes most of the time
    with_peers: tuple[str, ...] = ("pbe",)
    basis: str = "def2-svp"
    grid_level: int = 1
    n_states: int = 2
    # La: vertical estimates from experiment, Grimme and Parac, ChemPhysChem 4, 292 (2003); T1:
    # adiabatic, Murov, Carmichael and Hug, Handbook of Photochemistry (1993)
    singlet_ev: tuple[float, ...] = (4.66, 3.60, 2.88)
    triplet_ev: tuple[float, ...] = (2.64, 1.85, 1.27)


def constrained(atoms: Atoms, xc: str, protocol: Protocol) -> tuple[dict[str, Any], Any]:
    """T-CDFT: energies in eV, processor seconds after the ground state, and that solution."""
    from ase_neuralxc import SpinState, TransitionConstraint
    from ase_neuralxc.backend.molecular import MolecularBackend
    from ase_neuralxc.backend.settings import KSSettings
    from ase_neuralxc.backend.system import System
    from ase_neuralxc.excited.backend import TransitionBackend
    from ase_neuralxc.functional import load_functional

    settings = KSSettings(
        basis=protocol.basis, density_fit=True, grid_level=protocol.grid_level, stability="never"
    )
    system = System(atoms.numbers, atoms.positions, SpinState())
    host, functional = MolecularBackend(), load_functional(xc)
    ground = host.solve(system, functional, settings)
    found: dict[str, Any] = {"ground_cycles": ground.cycles}
    for state in ("singlet", "triplet"):
        backend = TransitionBackend(host, TransitionConstraint([("HOMO", "LUMO", 1.0)], state))
        start = time.process_time()
        solution = backend.solve(system, functional, settings, guess=ground.restart)
        found[f"{state}_seconds"] = round(time.process_time() - start, 1)
        found[state] = round(solution.excitation_energy * HARTREE_EV, 3)
        found[f"{state}_cycles"] = solution.cycles - solution.ground.cycles
    return found, ground


def response(ground: Any, protocol: Protocol) -> dict[str, Any]:
    """Tamm-Dancoff states to which HOMO -> LUMO contributes most."""
    found: dict[str, Any] = {}
    for state in ("singlet", "triplet"):
        start = time.process_time()
        engine = ground.host.TDA()
        engine.verbose, engine.nstates, engine.singlet = 0, protocol.n_states, state == "singlet"
        engine.kernel()
        # [occupied, empty] amplitudes of each state: the last occupied, the first empty
        weights = [2 * float(x[0][-1, 0]) ** 2 for x in engine.xy]
        best = int(np.argmax(weights))
        found[state] = round(float(engine.e[best]) * HARTREE_EV, 3)
        found[f"{state}_weight"] = round(weights[best], 3)
        found[f"{state}_converged"] = bool(np.all(engine.converged))
        found[f"{state}_seconds"] = round(time.process_time() - start, 1)
    return found


def free_determinants(ground: Any, functional: str, protocol: Protocol) -> dict[str, Any]:
    """Delta-SCF with the maximum-overlap method, and how much of the wanted determinant is left."""
    from pyscf import scf

    from ase_neuralxc.backend.molecular import MolecularBackend
    from ase_neuralxc.functional import load_functional

    orbitals = np.stack([np.asarray(ground.mo_coeff)] * 2)
    homo = int((np.asarray(ground.mo_occ) > 0).sum()) - 1
    energies, found = {}, {}
    for state in ("mixed", "triplet"):
        mol = ground.host.mol.copy()
        mol.spin = 2 if state == "triplet" else 0
        mol.build(False, False)
        mf = MolecularBackend().mean_field(
            mol, load_functional(functional), ground.settings, "uks", ()
        )
        occupations = np.zeros((2, orbitals.shape[2]))
        occupations[:, : homo + 1] = 1
        if state == "mixed":
            occupations[0, [homo, homo + 1]] = 0, 1
        else:
            occupations[0, homo + 1], occupations[1, homo] = 1, 0
        mf = scf.addons.mom_occ(mf, orbitals, occupations)
        mf.kernel(dm0=mf.make_rdm1(orbitals, occupations))
        energies[state] = (mf.e_tot - ground.energy) * HARTREE_EV
        left = orbitals[0][:, occupations[0] > 0].T @ mf.get_ovlp() @ mf.mo_coeff[0]
        found[f"{state}_overlap"] = round(float(np.linalg.det(left[:, mf.mo_occ[0] > 0])) ** 2, 3)
        found[f"{state}_converged"] = bool(mf.converged)
    found["singlet"] = round(2 * energies["mixed"] - energies["triplet"], 3)
    found["triplet"] = round(energies["triplet"], 3)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with acene2.xyz and so on")
    folder = parser.parse_args().folder
    one_thread()
    protocol, rows = Protocol(), []
    for name in protocol.molecules:
        atoms = ase.io.read(folder / f"{name}.xyz")
        for functional in protocol.functionals:
            found, ground = constrained(atoms, functional, protocol)
            row = {"case": f"{name} {functional}", "t_cdft": found}
            if functional in protocol.with_peers:
                row["delta_scf"] = free_determinants(ground, functional, protocol)
                row["tda"] = response(ground, protocol)
            rows.append(row)
            save("acenes", protocol, rows)


if __name__ == "__main__":
    main()
