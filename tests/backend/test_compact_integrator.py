"""The compact integrator against PySCF's own."""

import numpy as np
import pytest
from pyscf import dft, gto

from ase_neuralxc.backend import compact_integrator
from ase_neuralxc.backend.compact_integrator import use_compact_integration
from ase_neuralxc.backend.density_change import OccupiedOrbitals, Rotation, tag_rotations
from ase_neuralxc.backend.orbital_sums import densities_of, natural_orbitals, potential_matrix


def radical():
    return gto.M(atom="O 0 0 0; H 0.1 0.2 0.95", basis="6-31g*", spin=1, verbose=0)


def water():
    return gto.M(atom="O 0 0 0; H 0 0.76 0.59; H 0 -0.7 0.62", basis="6-31g*", verbose=0)


def distant():
    """Two fragments that share no point: most blocks see one of them only."""
    return gto.M(
        atom="O 0 0 0; H 0 0.76 0.59; H 0 -0.7 0.62; C 30 0 0; O 31.1 0 0",
        basis="6-31g*",
        verbose=0,
    )


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
@pytest.mark.parametrize(
    ("molecule", "method"), [(water, "RKS"), (radical, "UKS"), (distant, "RKS")]
)
def test_matrices_equal_those_of_the_host(molecule, method, xc):
    mf = prepare(molecule(), method, xc)
    density = guess(mf)
    call = "nr_rks" if method == "RKS" else "nr_uks"
    expected = getattr(mf._numint, call)(mf.mol, mf.grids, xc, density)
    compact = use_compact_integration(mf)._numint
    for _ in range(2):  # the second time from the orbitals that were kept
        electrons, energy, matrix = getattr(compact, call)(mf.mol, mf.grids, xc, density)
        assert np.abs(matrix).max() > 1.0
        np.testing.assert_allclose(electrons, expected[0], rtol=1e-10)
        assert energy == pytest.approx(expected[1], abs=1e-10)
        np.testing.assert_allclose(matrix, expected[2], atol=1e-9)


def test_blocks_keep_the_orbitals_that_reach_them():
    mf = use_compact_integration(prepare(distant(), "RKS", "pbe"))
    sizes = [block.orbitals.shape[1] for block in mf._numint._blocks(mf.mol, mf.grids, 1)]
    assert min(sizes) < 0.5 * mf.mol.nao
    assert max(sizes) <= mf.mol.nao


@pytest.mark.parametrize("room", [0.0, 3e6])
def test_what_does_not_fit_is_evaluated_again(room):
    mf = prepare(water(), "RKS", "pbe")
    density = guess(mf)
    expected = mf._numint.nr_rks(mf.mol, mf.grids, "pbe", density)
    compact = use_compact_integration(mf)._numint
    compact.cache_bytes = room
    for _ in range(2):
        matrix = compact.nr_rks(mf.mol, mf.grids, "pbe", density)[2]
        np.testing.assert_allclose(matrix, expected[2], atol=1e-9)
        kept = sum(block.orbitals.nbytes for block in compact._cache[3])
        assert kept <= room
        assert (kept > 0) == (room > 0)
    compact.forget_orbitals()
    assert compact._cache is None


def test_another_grid_or_molecule_is_noticed():
    mf = use_compact_integration(prepare(water(), "RKS", "pbe"))
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
    found = use_compact_integration(mf)._numint.nr_rks(mf.mol, mf.grids, "pbe", both)
    np.testing.assert_allclose(found[2], expected[2], atol=1e-12)


def test_densities_from_natural_orbitals():
    mf = prepare(radical(), "UKS", "pbe")
    up = guess(mf)[0]
    ao = mf._numint.eval_ao(mf.mol, mf.grids.coords[:500], deriv=1)
    expected = mf._numint.eval_rho(mf.mol, ao, up, xctype="MGGA", with_lapl=False)
    found = densities_of(ao.transpose(0, 2, 1), *natural_orbitals(up))
    assert np.abs(expected).min(axis=1).max() > 0
    np.testing.assert_allclose(found, expected, atol=1e-10 * np.abs(expected).max())


def test_a_potential_of_both_signs():
    rng = np.random.default_rng(0)
    orbitals, potential = rng.normal(size=(4, 7, 50)), rng.normal(size=(5, 50))
    expected = np.einsum("n,in,jn->ij", potential[0], orbitals[0], orbitals[0])
    for axis in (1, 2, 3):
        product = np.einsum("n,in,jn->ij", potential[axis], orbitals[axis], orbitals[0])
        expected += product + product.T
        expected += 0.5 * np.einsum("n,in,jn->ij", potential[4], orbitals[axis], orbitals[axis])
    np.testing.assert_allclose(potential_matrix(orbitals, potential), expected, atol=1e-12)


def test_blocks_are_made_of_whole_tiles():
    assert compact_integrator.BLOCK % compact_integrator.BLKSIZE == 0


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "r2scan"])
@pytest.mark.parametrize(
    ("molecule", "method"), [(water, "RKS"), (radical, "UKS"), (distant, "RKS")]
)
def test_responses_equal_those_of_the_host(molecule, method, xc):
    mf = prepare(molecule(), method, xc)
    density = guess(mf)
    kernel = mf._numint.cache_xc_kernel(
        mf.mol, mf.grids, xc, mf.mo_coeff, mf.mo_occ, int(method == "UKS")
    )
    change = np.random.default_rng(0).normal(size=density.shape)
    change = change + np.swapaxes(change, -1, -2)
    call = "nr_rks_fxc" if method == "RKS" else "nr_uks_fxc"
    arguments = (mf.mol, mf.grids, xc, None, change, 0, 1, *kernel)
    expected = getattr(mf._numint, call)(*arguments)
    compact = use_compact_integration(mf)._numint
    found = getattr(compact, call)(*arguments)
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    # several changes at once go the usual way
    several = np.stack([change, 2 * change], axis=-3)
    arguments = (mf.mol, mf.grids, xc, None, several, 0, 1, *kernel)
    np.testing.assert_allclose(
        getattr(compact, call)(*arguments)[..., 1, :, :],
        2 * expected,
        atol=1e-8 * np.abs(found).max(),
    )


@pytest.mark.parametrize("xc", ["lda,vwn", "pbe", "r2scan"])
@pytest.mark.parametrize(
    ("molecule", "method"), [(water, "RKS"), (radical, "UKS"), (distant, "RKS")]
)
def test_rotations_give_the_elements_of_occupied_orbitals(molecule, method, xc):
    mf = prepare(molecule(), method, xc)
    guess(mf)
    polarised = method == "UKS"
    overlap = mf.get_ovlp()
    random = np.random.default_rng(0)
    coefficients = np.asarray(mf.mo_coeff) if polarised else mf.mo_coeff[None]
    numbers = np.asarray(mf.mo_occ) if polarised else mf.mo_occ[None]
    rotations = []
    for c, n in zip(coefficients, numbers, strict=True):
        filled = n > 0
        mixing = random.normal(size=((~filled).sum(), filled.sum()))
        occupied = OccupiedOrbitals(c[:, filled], overlap, float(n.max()))
        rotations.append(Rotation(occupied, c[:, ~filled] @ mixing))
    changes = tag_rotations(rotations)
    compact = use_compact_integration(mf)._numint
    kernel = compact.cache_xc_kernel(mf.mol, mf.grids, xc, mf.mo_coeff, mf.mo_occ, int(polarised))
    call = compact.nr_uks_fxc if polarised else compact.nr_rks_fxc
    whole = call(mf.mol, mf.grids, xc, None, np.array(changes), 0, 1, *kernel)
    found = call(mf.mol, mf.grids, xc, None, changes, 0, 1, *kernel)
    for m, expected, c, n in zip(
        *(a if polarised else a[None] for a in (found, whole)), coefficients, numbers, strict=True
    ):
        np.testing.assert_allclose(m, m.T, atol=1e-10)
        elements, wanted = (c.T @ matrix @ c for matrix in (m, expected))
        empty = n == 0
        scale = np.abs(wanted).max()
        assert np.abs(wanted[~empty]).max() > 0.1 * scale
        np.testing.assert_allclose(elements[~empty], wanted[~empty], atol=1e-10 * scale)
        np.testing.assert_allclose(elements[np.ix_(empty, empty)], 0, atol=1e-10 * scale)


@pytest.mark.parametrize(
    ("molecule", "method", "spin"), [(water, "RKS", 0), (water, "RKS", 1), (radical, "UKS", 1)]
)
def test_kernels_equal_those_of_the_host(molecule, method, spin):
    mf = prepare(molecule(), method, "r2scan")
    guess(mf)
    arguments = (mf.mol, mf.grids, "r2scan", mf.mo_coeff, mf.mo_occ, spin)
    expected = mf._numint.cache_xc_kernel(*arguments)
    found = use_compact_integration(mf)._numint.cache_xc_kernel(*arguments)
    dense = np.asarray(expected[0]).reshape(-1, 5, expected[0][0].shape[-1])[:, 0].sum(0) > 1e-4
    assert dense.sum() > 1000
    for value, reference in zip(found, expected, strict=True):
        wanted = np.asarray(reference)[..., dense]
        np.testing.assert_allclose(value[..., dense], wanted, rtol=1e-6, atol=1e-7)
