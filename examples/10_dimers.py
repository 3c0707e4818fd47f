"""Train a functional through the SCF on a few dimers, and watch bonds that it has not seen break.

Energies and densities are learnt together: the loss has the bond energies and the distance of the
self-consistent density from that of coupled cluster, and its gradient is that of the converged SCF
(one adjoint solve per molecule). The references are computed here, in the same small basis.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from matplotlib.figure import Figure
from pyscf import cc, scf

from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import System, build_mole
from ase_neuralxc.functional import NeuralSemilocal, save_checkpoint
from ase_neuralxc.records import SpinState, units
from ase_neuralxc.response.adjoint import differentiable
from ase_neuralxc.training.property_losses import DensityReference, density_loss

SETTINGS = KSSettings(
    basis="6-31g", grid_level=1, conv_tol=1e-9, conv_tol_grad=1e-6, stability="never"
)
BACKEND = MolecularBackend()
#: Atoms of each bond, lengths (Angstrom) at which it is learnt, charge, unpaired electrons.
BONDS = {
    "H2": (("H", "H"), [0.74, 1.2], 0, 0),
    "H2+": (("H", "H"), [1.06], 1, 1),
    "LiH": (("Li", "H"), [1.60], 0, 0),
    "N2": (("N", "N"), [1.10], 0, 0),
}
ATOMS = {"H": 1, "Li": 1, "N": 3}  # unpaired electrons
CURVES = {
    "H2": np.linspace(0.5, 3.0, 9), "H2+": np.linspace(0.6, 4.0, 9), "N2": np.linspace(0.9, 1.8, 7)
}  # fmt: skip


def system(symbols, distance=0.0, charge=0, unpaired=0):
    atoms = Atoms(symbols, [(0, 0, distance * i) for i in range(len(symbols))])
    return System(atoms.numbers, atoms.positions, SpinState(charge, unpaired))


def coupled_cluster(one):
    """CCSD(T) energy and CCSD density matrix; exact for one and two electrons."""
    mol = build_mole(one, SETTINGS)
    mf = (scf.UHF if mol.spin else scf.RHF)(mol).run(conv_tol=1e-10)
    if mol.nelectron == 1:
        return mf.e_tot, np.asarray(mf.make_rdm1())
    solver = cc.CCSD(mf).run(conv_tol=1e-8)
    triples = solver.ccsd_t() if mol.nelectron > 2 else 0.0
    return solver.e_tot + triples, np.asarray(solver.make_rdm1(ao_repr=True))


def bond_energy(name, energies, length):
    """Energy of the free atoms minus that of the molecule, in kcal/mol; H+ has no energy."""
    symbols, _, charge, _ = BONDS[name]
    apart = sum(energies[s] for s in symbols[charge:])
    return (apart - energies[name, length]) / units.KCALMOL_HARTREE


def curve(name, energy_of):
    symbols, _, charge, unpaired = BONDS[name]
    apart = sum(energy_of(system((s,), unpaired=ATOMS[s])) for s in symbols[charge:])
    values = [energy_of(system(symbols, r, charge, unpaired)) - apart for r in CURVES[name]]
    return np.array(values) / units.KCALMOL_HARTREE


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", type=Path, default=Path())
    arguments = parser.parse_args()
    species = {s: system((s,), unpaired=n) for s, n in ATOMS.items()}
    for name, (symbols, lengths, charge, unpaired) in BONDS.items():
        species |= {(name, r): system(symbols, r, charge, unpaired) for r in lengths}
    reference = {key: coupled_cluster(one) for key, one in species.items()}
    exact = {key: energy for key, (energy, _) in reference.items()}
    bonds = [key for key in species if isinstance(key, tuple)]

    # zero heads: the start is LDA, with every exact constraint that the network has built in
    xc = NeuralSemilocal(width=16, depth=2, head_scale=0.0, dtype="float64")
    start = NeuralSemilocal(width=16, depth=2, head_scale=0.0, dtype="float64")
    # all weights move each energy: small steps, and smaller ones towards the end
    optimizer = torch.optim.Adam(xc.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, arguments.epochs, 2e-4)
    guess, targets = dict.fromkeys(species), {}
    for epoch in range(arguments.epochs + 1):
        energies, distances = {}, []
        for key, one in species.items():
            solution = BACKEND.solve(one, xc, SETTINGS, guess=guess[key])
            guess[key] = solution.density_matrix
            found = differentiable(solution, xc, tolerance=1e-4)
            energies[key] = found.energy
            if key in ATOMS:  # energies need no response, and that of an open shell may be soft
                continue
            if key not in targets:
                targets[key] = DensityReference.from_matrix(solution, reference[key][1])
            distances.append(density_loss(found, targets[key]))
        errors = torch.stack(
            [bond_energy(n, energies, r) - bond_energy(n, exact, r) for n, r in bonds]
        )
        density = torch.stack(distances).mean()
        if epoch % 5 == 0:
            mae, distance = float(errors.detach().abs().mean()), float(density.detach())
            print(f"{epoch:3d}  bonds {mae:7.2f} kcal/mol   density {distance:.2e}", flush=True)
        optimizer.zero_grad()
        ((errors / 5.0) ** 2).mean().add(1e3 * density).backward()
        optimizer.step()
        schedule.step()
    save_checkpoint(arguments.out / "dimers.safetensors", xc, {"method": "CCSD(T)/6-31G"})

    figure = Figure(figsize=(9.0, 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(CURVES)), CURVES, strict=True):
        for label, energy_of in {
            "CCSD(T)": lambda one: coupled_cluster(one)[0],
            "LDA": lambda one: BACKEND.solve(one, start, SETTINGS).energy,
            "trained": lambda one: BACKEND.solve(one, xc, SETTINGS).energy,
        }.items():
            axes.plot(CURVES[name], curve(name, energy_of), "o-", markersize=3, label=label)
        axes.set(title=name, xlabel="distance / Å", ylabel="energy / kcal/mol")
    axes.legend()
    figure.savefig(arguments.out / "dimers.png", dpi=150)


if __name__ == "__main__":
    main()
