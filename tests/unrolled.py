"""A tiny Kohn-Sham SCF written in torch from end to end: the oracle of adjoint derivatives.

Every iteration stays in the graph, so that autograd sees the whole path. Plain mixing instead of
DIIS; meant for a few basis functions and a few thousand points.
"""

from __future__ import annotations

import numpy as np
import torch
from pyscf import dft

from ase_neuralxc.features.grid import GridFeatures


class UnrolledSCF:
    """SCF of two spins for a molecule and its grid, starting from given density matrices."""

    def __init__(self, mol, grids, functional, electrons, core=None):
        tensor = lambda a: torch.from_numpy(np.array(a, dtype=float))  # noqa: E731
        self.core = tensor(
            mol.intor("int1e_kin") + mol.intor("int1e_nuc") if core is None else core
        )
        self.integrals = tensor(mol.intor("int2e"))
        values, vectors = np.linalg.eigh(mol.intor("int1e_ovlp"))
        self.half = tensor(vectors / np.sqrt(values) @ vectors.T)
        self.ao = tensor(dft.numint.eval_ao(mol, grids.coords, deriv=1))
        self.weights = tensor(grids.weights)
        self.functional, self.electrons = functional, electrons
        self.nuclear = mol.energy_nuc()

    def rows(self, density):
        moved = torch.einsum("gi,sij->sgj", self.ao[0], density)
        rho = torch.einsum("sgj,gj->sg", moved, self.ao[0])
        gradient = 2 * torch.einsum("sgj,xgj->sxg", moved, self.ao[1:4])
        half = torch.einsum("xgi,sij->sxgj", self.ao[1:4], density)
        tau = 0.5 * torch.einsum("sxgj,xgj->sg", half, self.ao[1:4])
        return rho, gradient, tau

    def exchange_correlation(self, density):
        rho, gradient, tau = self.rows(density)
        energy = self.functional.energy_density(GridFeatures(rho, gradient, tau))
        return (self.weights * energy).sum()

    def energy_of(self, density):
        total = density.sum(0)
        coulomb = torch.einsum("ijkl,kl->ij", self.integrals, total)
        exchange = torch.einsum("ikjl,skl->sij", self.integrals, density)
        fraction = self.functional.exchange_fraction
        return (
            self.nuclear
            + (self.core * total).sum()
            + 0.5 * (coulomb * total).sum()
            - 0.5 * fraction * (exchange * density).sum()
            + self.exchange_correlation(density)
        )

    def fock(self, density):
        # dE/dD by autograd, kept in the graph
        leaf = density if density.requires_grad else density.clone().requires_grad_(True)
        (gradient,) = torch.autograd.grad(self.energy_of(leaf), leaf, create_graph=True)
        return 0.5 * (gradient + gradient.transpose(1, 2))

    def run(self, density, iterations=50, mixing=0.3):
        """Energy, density matrices and orbital energies after some iterations."""
        density = density.clone().requires_grad_(True)
        levels = None
        for _ in range(iterations):
            fock = self.half @ self.fock(density) @ self.half
            levels, vectors = torch.linalg.eigh(fock)
            orbitals = self.half @ vectors
            new = torch.stack(
                [orbitals[s][:, :n] @ orbitals[s][:, :n].T for s, n in enumerate(self.electrons)]
            )
            density = (1 - mixing) * density + mixing * new
        return self.energy_of(density), density, levels
