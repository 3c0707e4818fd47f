"""Initial densities with the moments that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import gto

from ase_neuralxc.backend.guess import polarised_atoms


def moments_of(mol, density):
    spin = (density[0] - density[1]) @ mol.intor_symmetric("int1e_ovlp")
    return [np.trace(spin[a:b, a:b]) for _, _, a, b in mol.aoslice_by_atom()]


@pytest.mark.parametrize("cart", [False, True])
def test_moments_have_the_requested_sizes_and_signs(cart):
    mol = gto.M(atom="Fe 0 0 0; O 0 0 8; Fe 0 8 0", basis="def2-svp", cart=cart, verbose=0)
    density = polarised_atoms(mol, np.array([3.0, 1.0, -4.0]))
    assert moments_of(mol, density) == pytest.approx([3.0, 1.0, -4.0], abs=1e-6)
    overlap = mol.intor_symmetric("int1e_ovlp")
    assert np.einsum("sij,ji->", density, overlap) == pytest.approx(mol.nelectron, abs=1e-6)


def test_the_moment_sits_in_the_d_shell_with_a_hundred_times_more_than_the_rest():
    mol = gto.M(atom="Mn", basis="def2-svp", spin=5, verbose=0)
    density = polarised_atoms(mol, np.array([5.0]))
    spin = (density[0] - density[1]) @ mol.intor_symmetric("int1e_ovlp")
    d = [i for i, label in enumerate(mol.ao_labels(fmt=None)) if "d" in label[2]]
    assert np.trace(spin[np.ix_(d, d)]) == pytest.approx(5.0, abs=0.05)


def test_no_orbital_holds_more_than_one_electron_of_a_spin():
    mol = gto.M(atom="Fe", basis="def2-svp", spin=4, verbose=0)
    overlap = mol.intor_symmetric("int1e_ovlp")
    density = polarised_atoms(mol, np.array([9.0]))
    for matrix in density:
        occupations = np.linalg.eigvals(matrix @ overlap).real
        assert occupations.min() > -1e-6
        assert occupations.max() < 1 + 1e-6
    assert moments_of(mol, density) == pytest.approx([4.0], abs=1e-6)


def test_a_closed_shell_atom_can_carry_a_moment():
    mol = gto.M(atom="Be", basis="def2-svp", spin=2, verbose=0)
    assert moments_of(mol, polarised_atoms(mol, np.array([2.0]))) == pytest.approx([2.0], abs=1e-6)
