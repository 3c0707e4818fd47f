"""Harris and one-step energies against the host's, their gradients against finite differences."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numerical import central_difference
from pyscf import dft
from training.helpers import HF, NH2, SETTINGS, pair
from training.test_precompute import mole

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.neural import NeuralSemilocal
from ase_neuralxc.training.compression import compress
from ase_neuralxc.training.one_step import FixedDensity
from ase_neuralxc.training.precompute import DensityTask

EXACT = replace(SETTINGS, grid_level=3, scf_grid_level=3, density_fit=False, conv_tol=1e-10)


@pytest.fixture(scope="module")
def stored():
    return {s.name: DensityTask(EXACT)(s) for s in (HF, NH2)}


@pytest.mark.parametrize("name", ["HF", "NH2"])
@pytest.mark.parametrize("xc", ["r2scan", "pbe", "pbe0"])
def test_energies_equal_those_of_the_host(stored, name, xc):
    species = {"HF": HF, "NH2": NH2}[name]
    fixed = FixedDensity(stored[name])
    mf = (dft.RKS if species.multiplicity == 1 else dft.UKS)(mole(species))
    mf.xc, mf.grids.level = xc, 3
    density = fixed.density[0] if species.multiplicity == 1 else fixed.density
    start = mf.energy_tot(density)
    fock = mf.get_fock(dm=density)
    energies, orbitals = mf.eig(fock, mf.get_ovlp())
    after = mf.make_rdm1(orbitals, mf.get_occ(energies, orbitals))
    found = fixed.evaluate(load_functional(xc))
    assert float(found.stored) == pytest.approx(start, abs=1e-6)
    assert float(found.one_step) == pytest.approx(mf.energy_tot(after), abs=1e-6)
    harris = start + np.sum(np.asarray(fock) * (after - density))
    assert float(found.harris) == pytest.approx(harris, abs=1e-6)
    gain = float(found.scf_gain)
    if xc == "r2scan":  # its own density
        assert abs(gain) < 1e-7
    else:
        assert gain < -1e-5
        mf.conv_tol = 1e-10
        mf.kernel(dm0=density)
        assert gain == pytest.approx(mf.e_tot - start, rel=0.6)


def test_a_fitted_density_has_the_fitted_fock_matrix():
    settings = replace(EXACT, density_fit=True)
    fixed = FixedDensity(DensityTask(settings)(HF))
    assert abs(float(fixed.evaluate(load_functional("r2scan")).scf_gain)) < 1e-7


def test_a_species_in_a_field():
    polar = replace(pair("H", "F", 0.92), field=(0.0, 0.0, 0.02))
    fixed = FixedDensity(DensityTask(EXACT)(polar))
    assert abs(float(fixed.evaluate(load_functional("r2scan")).scf_gain)) < 1e-7


@pytest.mark.parametrize("name", ["HF", "NH2"])
@pytest.mark.parametrize("quantity", ["stored", "harris", "one_step"])
def test_gradients_equal_finite_differences(stored, name, quantity):
    functional = NeuralSemilocal(
        width=6, depth=1, seed=3, dtype="float64", exchange_fraction=0.2, head_scale=0.5
    )
    fixed = FixedDensity(stored[name])
    parameters = list(functional.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    getattr(fixed.evaluate(functional, one_step=quantity == "one_step"), quantity).backward()
    found = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    start = [p.detach().clone() for p in parameters]

    def value(step):
        with torch.no_grad():
            for p, p0, d in zip(parameters, start, direction, strict=True):
                p.copy_(p0 + step * d)
        return float(getattr(fixed.evaluate(functional), quantity).detach())

    expected = central_difference(value, 1e-3)
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=1e-6)


def test_compressed_densities_have_no_orbitals(stored):
    small = compress(stored["HF"], load_functional("r2scan"))
    with pytest.raises(InvalidInputError, match="stored: expected a density with orbitals"):
        FixedDensity(small)
