"""Direct minimisation against DIIS, from starts where it must go downhill."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft, gto, scf

from ase_neuralxc.backend.minimise import minimise, orbitals_of

METHODS = {
    "rhf": (scf.RHF, 0),
    "uhf": (scf.UHF, 1),
    "rohf": (scf.ROHF, 1),
    "rks": (dft.RKS, 0),
    "uks": (dft.UKS, 1),
    "roks": (dft.ROKS, 1),
}


@pytest.fixture(params=METHODS)
def host(request):
    kind, unpaired = METHODS[request.param]
    element = "N" if unpaired else "O"  # NH2: its ground state is not degenerate
    atoms = f"{element} 0 0 0.11; H 0 0.76 -0.45; H 0.1 -0.76 -0.47"
    mol = gto.M(atom=atoms, basis="6-31g", spin=unpaired, verbose=0)
    mf = kind(mol)
    if hasattr(mf, "grids"):
        mf.grids.level = 0
    mf.conv_tol, mf.conv_tol_grad, mf.max_cycle = 1e-10, 1e-5, 100
    return mf


def test_it_agrees_with_diis(host):
    reference = host.copy()
    reference.kernel()
    cycles = minimise(host, *orbitals_of(host, host.get_init_guess()))
    assert host.converged
    assert 1 < cycles < 40
    assert host.e_tot == pytest.approx(reference.e_tot, abs=1e-8)
    assert np.linalg.norm(host.get_grad(host.mo_coeff, host.mo_occ)) < 1e-5
    assert host.energy_tot() == pytest.approx(host.e_tot, abs=1e-10)


def test_the_energy_never_rises(host, monkeypatch):
    accepted = []
    store = type(host).canonicalize

    def spy(self, *arguments, **keywords):
        accepted.append(self.energy_tot(self.make_rdm1(arguments[0], arguments[1])))
        return store(self, *arguments, **keywords)

    monkeypatch.setattr(type(host), "canonicalize", spy)
    orbitals, occupations = orbitals_of(host, host.get_init_guess())
    minimise(host, orbitals, occupations)
    assert accepted[0] > accepted[-1] + 1e-3
    assert np.diff(accepted).max() < 1e-9


def test_orbitals_come_back_from_their_density(host):
    host.kernel()
    orbitals, occupations = orbitals_of(host, host.make_rdm1())
    assert np.array_equal(np.sort(occupations), np.sort(host.mo_occ))
    found = host.make_rdm1(orbitals, occupations)
    assert np.abs(np.asarray(found) - np.asarray(host.make_rdm1())).max() < 1e-7


def test_cycles_are_bounded_and_failure_is_reported(host):
    host.max_cycle = 3
    assert minimise(host, *orbitals_of(host, host.get_init_guess())) <= 3
    assert not host.converged
