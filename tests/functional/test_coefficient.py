"""The energy library against libxc, and sums of its terms with learned coefficients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pyscf.dft import libxc
from pyscf.dft.numint import NumInt

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.checkpoint import load_checkpoint, save_checkpoint
from ase_neuralxc.functional.coefficient import CoefficientFunctional
from ase_neuralxc.functional.energy_library import energy_names, energy_term, register_energy
from ase_neuralxc.functional.lda import LDA
from ase_neuralxc.functional.pbe import PBE

LIBXC = {
    "lda_x": "lda_x",
    "pbe_x": "gga_x_pbe",
    "b88_x": "gga_x_b88",
    "r2scan_x": "mgga_x_r2scan",
    "pw92_c": "lda_c_pw_mod",
    "vwn_c": "lda_c_vwn",
    "pbe_c": "gga_c_pbe",
    "r2scan_c": "mgga_c_r2scan",
}
DOUBLE = torch.float64


def density(n: int = 40) -> tuple[np.ndarray, DensityInvariants]:
    """PySCF's [2, 5, n] (density, gradient, tau) and the same as invariants."""
    rng = np.random.default_rng(7)
    rho = np.empty((2, 5, n))
    rho[:, 0] = 10.0 ** rng.uniform(-4, 1, (2, n))
    kf = (6 * math.pi**2) ** (1 / 3) * rho[:, 0] ** (4 / 3)
    rho[:, 1:4] = rng.normal(size=(2, 3, n)) * kf[:, None]
    square = (rho[:, 1:4] ** 2).sum(1)
    uniform = 0.3 * (6 * math.pi**2) ** (2 / 3) * rho[:, 0] ** (5 / 3)
    rho[:, 4] = square / (8 * rho[:, 0]) + rng.uniform(0.05, 2, (2, n)) * uniform
    gradient = torch.from_numpy(rho[:, 1:4])
    up, down = gradient
    sigma = torch.stack([(up * up).sum(0), (up * down).sum(0), (down * down).sum(0)])
    return rho, DensityInvariants(
        torch.from_numpy(rho[:, 0].copy()), sigma, torch.from_numpy(rho[:, 4].copy())
    )


def hostile() -> DensityInvariants:
    axis = torch.tensor([0.0, 1e-30, 3e-15, 1e-12, 1e-6, 1.0], dtype=DOUBLE)
    up, down, sigma, tau = (
        t.reshape(-1) for t in torch.meshgrid(axis, axis, axis, axis, indexing="ij")
    )
    parts = (
        torch.stack([up, down]), torch.stack([sigma, -0.5 * sigma, sigma]), torch.stack([tau, tau])
    )  # fmt: skip
    return DensityInvariants(*(p.clone().requires_grad_() for p in parts))


def test_every_term_is_compared_with_libxc() -> None:
    assert set(LIBXC) == set(energy_names())


@pytest.mark.parametrize("name", LIBXC)
@pytest.mark.parametrize("closed_shell", [False, True])
def test_term_equals_libxc(name: str, closed_shell: bool) -> None:
    rho, y = density()
    xctype = libxc.xc_type(LIBXC[name])
    rho = rho[:, : {"LDA": 1, "GGA": 4, "MGGA": 5}[xctype]].copy()
    if closed_shell:
        rho = 2 * rho[0]
        y = DensityInvariants.from_total(2 * y.density[0], 4 * y.sigma[0], 2 * y.tau[0])
    values = rho[..., 0, :] if xctype == "LDA" else rho
    exc, vxc = NumInt().eval_xc_eff(
        LIBXC[name], values, deriv=1, xctype=xctype, spin=0 if closed_shell else 1
    )[:2]
    expected = exc * (rho[0] if closed_shell else rho[:, 0].sum(0))
    slope = vxc.reshape(rho.shape)[..., 0, :]
    y = replace(y, density=y.density.clone().requires_grad_())
    ours = energy_term(name).function(y)
    torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=1e-10, atol=1e-14)
    (derivative,) = torch.autograd.grad(ours.sum(), y.density)
    # A closed shell leaves the derivative of both channels with the one that was read.
    derivative = 0.5 * derivative.sum(0) if closed_shell else derivative
    torch.testing.assert_close(derivative, torch.from_numpy(slope), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", energy_names())
@pytest.mark.parametrize("closed_shell", [False, True])
def test_terms_are_finite_to_second_order(name: str, closed_shell: bool) -> None:
    y = replace(hostile(), closed_shell=closed_shell)
    inputs = (y.density, y.sigma, y.tau)
    keys = {"allow_unused": True, "materialize_grads": True}
    energy = energy_term(name).function(y)
    assert energy.isfinite().all()
    for g in torch.autograd.grad(energy.sum(), inputs, create_graph=True, **keys):
        assert g.isfinite().all()
        if g.requires_grad:
            for h in torch.autograd.grad(g.sum(), inputs, retain_graph=True, **keys):
                assert h.isfinite().all()


def test_zero_head_is_the_weighted_sum() -> None:
    _, y = density()
    functional = CoefficientFunctional(terms=("lda_x", "pbe_x", "pw92_c"), weights=(0.25, 0.75, 1))
    functional.zero_head_()
    terms = [energy_term(t).function(y) for t in ("lda_x", "pbe_x", "pw92_c")]
    expected = 0.25 * terms[0] + 0.75 * terms[1] + terms[2]
    torch.testing.assert_close(functional.local_energy_density(y), expected, rtol=1e-14, atol=0)


def test_exchange_fraction_reduces_exchange_alone() -> None:
    _, y = density()
    functional = CoefficientFunctional(terms=("pbe_x", "pbe_c"), exchange_fraction=0.25)
    functional.zero_head_()
    expected = PBE(exchange_fraction=0.25).local_energy_density(y)
    torch.testing.assert_close(functional.local_energy_density(y), expected, rtol=1e-13, atol=0)
    assert functional.exchange_fraction == 0.25


def test_wild_coefficients_keep_limits_bounds_and_symmetry() -> None:
    functional = CoefficientFunctional(head_scale=30.0, dtype="float64", width=8, depth=2)
    up = torch.logspace(-4, 2, 7, dtype=DOUBLE)
    spins = torch.stack([up, 0.4 * up])
    tau = 0.3 * (6 * math.pi**2) ** (2 / 3) * spins ** (5 / 3)
    uniform = DensityInvariants(spins, torch.zeros(3, 7, dtype=DOUBLE), tau)
    torch.testing.assert_close(
        functional.local_energy_density(uniform),
        LDA().local_energy_density(uniform),
        rtol=1e-12,
        atol=0,
    )
    generator = torch.Generator().manual_seed(0)
    inputs = 2 * torch.rand(500, 4, generator=generator, dtype=DOUBLE) - 1
    for coefficient in functional.coefficients(inputs):
        assert 0 <= coefficient.min() < 0.2
        assert 0.8 < coefficient.max() <= 0.5 * functional.settings.coefficient_bound
    _, y = density()
    flipped = DensityInvariants(y.density.flip(0), y.sigma.flip(0), y.tau.flip(0))
    torch.testing.assert_close(
        functional.local_energy_density(y),
        functional.local_energy_density(flipped),
        rtol=1e-12,
        atol=0,
    )


def test_derivatives_match_finite_differences() -> None:
    functional = CoefficientFunctional(dtype="float64", width=6, depth=2, head_scale=2.0)
    functional.requires_grad_(False)
    spins = torch.tensor([[0.3, 0.5], [0.8, 0.4]], dtype=DOUBLE)
    sigma = torch.tensor([[0.3], [0.1], [0.2]], dtype=DOUBLE).repeat(1, 2)
    inputs = tuple(t.requires_grad_() for t in (spins, sigma, 1 + spins))

    def energy(*parts: torch.Tensor) -> torch.Tensor:
        return functional.local_energy_density(DensityInvariants(*parts))

    assert torch.autograd.gradcheck(energy, inputs, eps=1e-6, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(energy, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)


def test_checkpoint_round_trip(tmp_path) -> None:
    functional = CoefficientFunctional(terms=["lda_x", "vwn_c"], weights=[0.9, 1.1], width=4)
    path = tmp_path / "sum.safetensors"
    save_checkpoint(path, functional)
    loaded = load_checkpoint(path)
    assert isinstance(loaded, CoefficientFunctional)
    assert loaded.settings == functional.settings
    _, y = density()
    assert torch.equal(loaded.local_energy_density(y), functional.local_energy_density(y))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": ("b89_x",)}, r"unknown energy density 'b89_x'. Did you mean 'b88_x'"),
        ({"terms": ()}, "terms: expected different names"),
        ({"terms": ("lda_x", "lda_x")}, "terms: expected different names"),
        ({"weights": (1.0,)}, "weights: expected 4 finite numbers, one for each term"),
        ({"coefficient_bound": 0.5}, "coefficient_bound: expected a finite number above 1"),
        ({"term": ("lda_x",)}, r"unknown setting 'term'. Did you mean 'terms'"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        CoefficientFunctional(**changes)


def test_library_names_are_unique_and_kinds_closed() -> None:
    with pytest.raises(InvalidInputError, match="'lda_x' is already in the library"):
        register_energy("lda_x", "exchange")
    with pytest.raises(InvalidInputError, match="unknown kind 'exchang'"):
        register_energy("mine", "exchang")
