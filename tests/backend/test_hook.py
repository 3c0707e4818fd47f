"""The torch integrator against libxc, quantity by quantity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyscf.dft import numint

from ase_neuralxc.backend.hook import TorchNumInt
from ase_neuralxc.errors import FunctionalError, InvalidInputError
from ase_neuralxc.functional import SemilocalFunctional, load_functional

CASES = [
    ("lda", "lda,pw_mod", "LDA"),
    ("pbe", "pbe,pbe", "GGA"),
    ("r2scan", "r2scan,r2scan", "MGGA"),
]
ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


def random_density(rng, xctype, spins, n=400):
    """Densities, gradients and kinetic-energy densities with tau above von Weizsaecker's."""
    shape = (2, n) if spins else (1, n)
    density = 10.0 ** rng.uniform(-4, 1, shape)
    direction = rng.normal(size=(shape[0], 3, n))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    gradient = direction * (density ** (4 / 3) * rng.uniform(0.1, 5, shape))[:, None]
    weizsaecker = (gradient**2).sum(1) / (8 * density)
    tau = weizsaecker * (1 + rng.uniform(0.05, 3, shape)) + 0.1 * density ** (5 / 3)
    rho = np.concatenate([density[:, None], gradient, tau[:, None]], axis=1)[:, : ROWS[xctype]]
    return rho if spins else rho[0]


@pytest.mark.parametrize(("name", "code", "xctype"), CASES)
@pytest.mark.parametrize("spins", [False, True])
def test_energy_potential_and_kernel_equal_libxc(rng, name, code, xctype, spins):
    rho = random_density(rng, xctype, spins)
    ours = TorchNumInt(load_functional(name)).eval_xc_eff("torch", rho, deriv=2, xctype=xctype)
    theirs = numint.NumInt().eval_xc_eff(code, rho, deriv=2, xctype=xctype, spin=int(spins))
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-10)
    scale = np.abs(theirs[1]).max(axis=-1, keepdims=True)
    np.testing.assert_allclose(ours[1] / scale, theirs[1] / scale, atol=1e-10, rtol=1e-9)
    scale = np.abs(theirs[2]).max(axis=-1, keepdims=True) + 1e-12
    np.testing.assert_allclose(ours[2] / scale, theirs[2] / scale, atol=1e-8, rtol=1e-7)


def test_laplacian_row_is_dropped(rng):
    rho = random_density(rng, "MGGA", spins=True)
    with_laplacian = np.insert(rho, 4, rng.normal(size=rho[:, 0].shape), axis=1)
    ni = TorchNumInt(load_functional("r2scan"))
    for a, b in zip(
        ni.eval_xc_eff("", rho)[:2], ni.eval_xc_eff("", with_laplacian)[:2], strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("shape", ["flat", "row", "spins", "tuple"])
def test_lda_input_in_every_shape(rng, shape):
    density = random_density(rng, "LDA", spins=True)
    inputs = {
        "flat": density[0, 0], "row": density[0], "spins": density[:, 0],
        "tuple": (density[0, 0], density[1, 0]),
    }  # fmt: skip
    ni = TorchNumInt(load_functional("lda"))
    expected = ni.eval_xc_eff("", density if shape in ("spins", "tuple") else density[0])
    for a, b in zip(ni.eval_xc_eff("", inputs[shape])[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(a, b)


def test_negligible_density_gives_exact_zeros():
    rho = np.zeros((5, 3))
    rho[0] = [0.0, 1e-14, 0.3]
    rho[4] = [0.0, 1e-14, 0.5]
    exc, vxc = TorchNumInt(load_functional("r2scan")).eval_xc_eff("", rho)[:2]
    assert (exc[:2] == 0).all()
    assert (vxc[:, :2] == 0).all()
    assert exc[2] < -0.1


def test_third_derivatives_are_refused(rng):
    with pytest.raises(InvalidInputError, match="up to order 2, got 3"):
        TorchNumInt(load_functional("lda")).eval_xc_eff("", random_density(rng, "LDA", False), 3)


def test_nan_is_reported_with_the_range_that_caused_it():
    class Broken(SemilocalFunctional):
        name = "broken"

        def local_energy_density(self, invariants):
            density = invariants.density.sum(0)
            return -density * torch.log(0.5 - density)

    rho = np.zeros((5, 4))
    rho[0] = [0.1, 0.2, 0.7, 0.9]
    with pytest.raises(
        FunctionalError, match=r"'broken'.*2 of 4 points.*density in \[7\.000e-01, 9"
    ):
        TorchNumInt(Broken()).eval_xc_eff("", rho)
