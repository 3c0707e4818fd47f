"""Charges and moments of atoms from the density matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pyscf import lo

from ase_neuralxc.backend.solution import KSSolution


def atomic_populations(solution: KSSolution) -> tuple[NDArray, NDArray]:
    """Meta-Loewdin charges and moments (Sun and Chan, JCTC 10, 3784 (2014)).

    Args:
        solution: a converged solution.

    Returns:
        Charges [n_atoms] in e and moments [n_atoms] in mu_B; their sums are the total charge and
        the number of unpaired electrons.
    """
    mol = solution.host.mol
    overlap = mol.intor_symmetric("int1e_ovlp")
    orthogonal = np.asarray(lo.orth_ao(mol, "meta_lowdin", s=overlap))
    project = orthogonal.T @ overlap
    density = solution.density_matrix
    spins = density if density.ndim == 3 else 0.5 * np.stack([density, density])
    by_orbital = np.einsum("pi,sij,pj->sp", project, spins, project)
    slices = mol.aoslice_by_atom()[:, 2:]
    by_atom = np.array([by_orbital[:, start:stop].sum(axis=1) for start, stop in slices])
    return mol.atom_charges() - by_atom.sum(axis=1), by_atom[:, 0] - by_atom[:, 1]
