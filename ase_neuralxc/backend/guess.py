"""Initial density matrices, among them broken-symmetry ones from signed atomic moments."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.data import elements
from pyscf.scf import atom_hf
from scipy.linalg import block_diag

from ase_neuralxc.backend.system import System


def initial_density(mf: Any, system: System, reference: str) -> NDArray:
    """Starting density matrix for a host object.

    Without moments it is PySCF's minimal-basis guess. With moments it is the superposition of
    spherical atoms whose open shells are polarised, so that a moment sits in the d shell of iron
    and not in its core.

    Args:
        mf: PySCF mean-field object.
        system: atoms and resolved spin state.
        reference: "rks", "uks" or "roks".

    Returns:
        [nao, nao] for RKS, else [2, nao, nao].
    """
    moments = np.asarray(system.spin_state.magmoms or 0.0, dtype=float)
    if reference == "rks" or np.abs(moments).max() < 1e-8:
        return np.asarray(mf.get_init_guess(mf.mol, "minao"))
    return polarised_atoms(mf.mol, moments)


def polarised_atoms(mol: Any, moments: NDArray) -> NDArray:
    """Superposition of spherical atoms with fractional occupations and given moments.

    The atoms have their ground-state configurations, averaged over each subshell. An orbital with
    n electrons can carry at most min(n, 2 - n) of a moment; the moment of an atom is shared among
    its orbitals in proportion to that, up to what they can carry.

    Args:
        mol: PySCF molecule.
        moments: [n_atoms] in mu_B.

    Returns:
        [2, nao, nao] spin density matrices of the neutral atoms.
    """
    with warnings.catch_warnings():  # PySCF's atomic solver calls its own deprecated function
        warnings.simplefilter("ignore", DeprecationWarning)
        atoms = atom_hf.get_atm_nrhf(mol, atomic_configuration=elements.CONFIGURATION)
    blocks: tuple[list[NDArray], list[NDArray]] = ([], [])
    for index, moment in enumerate(moments):
        symbol = mol.atom_symbol(index)
        key = symbol if symbol in atoms else mol.atom_pure_symbol(index)
        _, _, orbitals, occupations = atoms[key]
        for spin, block in enumerate(_polarised(orbitals, occupations, float(moment))):
            blocks[spin].append(block)
    density = np.stack([block_diag(*spin) for spin in blocks])
    if mol.cart:
        turn = mol.cart2sph_coeff(normalized="sp")
        density = turn @ density @ turn.T
    return density


def _polarised(orbitals: NDArray, occupations: NDArray, moment: float) -> tuple[NDArray, NDArray]:
    """Spin density matrices of one atom with a moment."""
    capacity = np.minimum(occupations, 2.0 - occupations).clip(min=0.0)
    if capacity.sum() < 1e-6:  # no open shell: all of them share the moment
        capacity = occupations
    share = capacity * np.clip(moment / max(capacity.sum(), 1e-6), -1.0, 1.0)
    up, down = (
        (orbitals * (0.5 * (occupations + sign * share))) @ orbitals.T for sign in (1.0, -1.0)
    )
    return up, down


def split_by_moments(mol: Any, total: NDArray, moments: NDArray) -> NDArray:
    """Spin densities from a total density and the moments of the atoms.

    Args:
        mol: PySCF molecule or cell.
        total: [..., nao, nao] density matrix without large elements between atoms.
        moments: [n_atoms] in mu_B, clipped to the electrons of each atom.

    Returns:
        [2, ..., nao, nao].
    """
    up, down = 0.5 * total, 0.5 * total
    for atom, (_, _, start, stop) in enumerate(mol.aoslice_by_atom()):
        share = np.clip(moments[atom] / max(mol.atom_charge(atom), 1), -1.0, 1.0)
        up[..., start:stop, start:stop] *= 1 + share
        down[..., start:stop, start:stop] *= 1 - share
    return np.stack([up, down])
