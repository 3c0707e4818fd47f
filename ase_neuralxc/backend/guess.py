"""Initial density matrices, among them broken-symmetry ones from signed atomic moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

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

    An orbital with n electrons can carry at most min(n, 2 - n) of a moment; the moment of an atom
    is shared among its orbitals in proportion to that, up to what they can carry.

    Args:
        mol: PySCF molecule.
        moments: [n_atoms] in mu_B.

    Returns:
        [2, nao, nao] spin density matrices of the neutral atoms.
    """
    superposed = scf.hf.init_guess_by_atom(mol)
    orbitals, occupations = superposed.mo_coeff, superposed.mo_occ
    capacity = np.minimum(occupations, 2.0 - occupations).clip(min=0.0)
    share = np.zeros_like(capacity)
    without = []  # atoms that have no open shell to carry their moment
    for atom, (_, _, start, stop) in enumerate(_orbital_slices(mol)):
        room = capacity[start:stop].sum()
        if room > 1e-6:
            share[start:stop] = capacity[start:stop] * np.clip(moments[atom] / room, -1.0, 1.0)
        elif abs(moments[atom]) > 1e-8:
            without.append(atom)
    up, down = (
        (orbitals * (0.5 * (occupations + sign * share))) @ orbitals.T for sign in (1.0, -1.0)
    )
    if without:
        rest = np.zeros(len(moments))
        rest[without] = moments[without]
        split = split_by_moments(mol, up + down, rest)
        up, down = up + 0.5 * (split[0] - split[1]), down - 0.5 * (split[0] - split[1])
    return np.stack([up, down])


def _orbital_slices(mol: Any) -> NDArray:
    """Slices of the atoms' spherical orbitals, which PySCF's superposition of atoms has."""
    if not mol.cart:
        return mol.aoslice_by_atom()
    spherical = mol.copy()
    spherical.cart = False
    return spherical.aoslice_by_atom()


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
