"""The dense integrator against PySCF's own."""

import numpy as np
import pytest
from pyscf import dft, gto

from ase_neuralxc.training.dense import densities_of, natural_orbitals, use_dense_products


def radical():
    return gto.M(atom="O 0 0 0; H 0.1 0.2 0.95", basis="6-31g*", spin=1, verbose=0)


def water():
    return gto.M(atom="O 0 0 0; H 0 0.76 0.59; H 0 -0.7 0.62", basis="6-31g*", verbose=0)


def guess(mf):
    """A density that is not symmetric in anything, not even between the spins."""
    mf.max_cycle = 2
    mf.kernel()
    return np.asarray(mf.make_rdm1())


def prepare(molecule, method, xc):
    mf = getattr(dft, method)(molecule)
    mf.xc, mf.grids.level = xc, 1
    mf.grids.build(with_non0tab=True)
    return mf


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "r2scan"])
@pytest.mark.parametrize(("molecule", "method"), [(water, "RKS"), (radical, "UKS")])
def test_matrices_equal_those_of_the_host(molecule, method, xc):
    mf = prepare(molecule(), method, xc)
    density = guess(mf)
    call = "nr_rks" if method == "RKS" else "nr_uks"
    expected = getattr(mf._numint, call)(mf.mol, mf.grids, xc, density)
    dense = use_dense_products(mf)._numint
    for _ in range(2):  # the second time from the orbitals that were kept
        electrons, energy, matrix = getattr(dense, call)(mf.mol, mf.grids, xc, density)
        assert dense.blocks is not None
        assert np.abs(matrix).max() > 1.0
        np.testing.assert_allclose(electrons, expected[0], rtol=1e-10)
        assert energy == pytest.approx(expected[1], abs=1e-10)
        np.testing.assert_allclose(matrix, expected[2], atol=1e-9)


def test_orbitals_that_do_not_fit_are_not_kept(monkeypatch):
    monkeypatch.setattr("ase_neuralxc.training.dense.CACHE", 1e5)
    mf = prepare(water(), "RKS", "pbe")
    density = guess(mf)
    expected = mf._numint.nr_rks(mf.mol, mf.grids, "pbe", density)
    dense = use_dense_products(mf)._numint
    np.testing.assert_allclose(
        dense.nr_rks(mf.mol, mf.grids, "pbe", density)[2], expected[2], atol=1e-9
    )
    assert dense.blocks is None


def test_another_grid_or_molecule_is_noticed():
    mf = use_dense_products(prepare(water(), "RKS", "pbe"))
    density = guess(mf)
    first = mf._numint.nr_rks(mf.mol, mf.grids, "pbe", density)[1]
    mf.grids.level = 0
    mf.grids.build(with_non0tab=True)
    second = mf._numint.nr_rks(mf.mol, mf.grids, "pbe", density)[1]
    assert abs(second - first) > 1e-6
    fresh = prepare(water(), "RKS", "pbe")
    fresh.grids.level = 0
    fresh.grids.build(with_non0tab=True)
    assert second == pytest.approx(
        fresh._numint.nr_rks(fresh.mol, fresh.grids, "pbe", density)[1], abs=1e-10
    )


def test_several_matrices_go_the_usual_way():
    mf = prepare(water(), "RKS", "pbe")
    density = guess(mf)
    both = np.stack([density, 0.9 * density])
    expected = mf._numint.nr_rks(mf.mol, mf.grids, "pbe", both)
    found = use_dense_products(mf)._numint.nr_rks(mf.mol, mf.grids, "pbe", both)
    np.testing.assert_allclose(found[2], expected[2], atol=1e-12)


def test_densities_from_natural_orbitals():
    mf = prepare(radical(), "UKS", "pbe")
    up = guess(mf)[0]
    coords = mf.grids.coords[:500]
    ao = mf._numint.eval_ao(mf.mol, coords, deriv=1)
    expected = mf._numint.eval_rho(mf.mol, ao, up, xctype="MGGA", with_lapl=False)
    found = densities_of(ao, *natural_orbitals(up))
    assert np.abs(expected).min(axis=1).max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())
