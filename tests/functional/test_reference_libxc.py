"""The torch reference functionals against libxc, and at densities where formulas break down."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyscf.dft import libxc

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional.lda import (
    pw92_energy_per_electron,
    slater_energy_density,
    slater_exchange,
)
from ase_neuralxc.functional.registry import load_functional

ENERGY_RTOL = 1e-12
FIRST_RTOL = 1e-10
SECOND_RTOL = 1e-8

#: Name of ours -> parts of libxc with their density thresholds.
REFERENCES = {
    "lda_x": [("lda,", 1e-15)],
    "lda": [("lda,", 1e-15), ("lda_c_pw_mod", 1e-15)],
    "pbe": [("gga_x_pbe", 1e-15), ("gga_c_pbe", 1e-12)],
    "r2scan": [("mgga_x_r2scan", 1e-11), ("mgga_c_r2scan", 1e-15)],
    # libxc's own hybrids, whose exc leaves out the exact exchange.
    "pbe0": [("pbe0", 1e-15)],
    "r2scan0": [("r2scan0", 1e-15)],
}
#: Invariants that a functional of each family reads, for a total density and for spin densities.
ROWS = {"LDA": (1, 2), "GGA": (2, 5), "MGGA": (3, 7)}

parametrise = pytest.mark.parametrize("name", REFERENCES)
components = pytest.mark.parametrize("name", ["lda_x", "lda", "pbe", "r2scan"])
spins = pytest.mark.parametrize("polarised", [False, True], ids=["closed", "polarised"])


def sample(rng, polarised, n=400, low=-4.0, high=2.0):
    """Densities [2, 5, n] or [5, n] with s in [0.01, 5] and alpha in [0.01, 10] per spin."""
    density = 10 ** rng.uniform(low, high, (2, n))
    density[1] = density[0] * 10 ** rng.uniform(-3, 0, n)
    direction = rng.normal(size=(2, 3, n))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    s = 10 ** rng.uniform(-2, 0.7, (2, n))
    gradient = direction * (s * 2 * (6 * np.pi**2 * density**4) ** (1 / 3))[:, None]
    uniform = 0.3 * (6 * np.pi**2) ** (2 / 3) * density ** (5 / 3)
    tau = weizsaecker(density, gradient) + 10 ** rng.uniform(-2, 1, (2, n)) * uniform
    rho = np.concatenate([density[:, None], gradient, tau[:, None]], axis=1)
    return rho if polarised else 2 * rho[0]


def weizsaecker(density, gradient):
    return (gradient**2).sum(-2) / (8 * density)


def invariants_of(rho):
    """Density, sigma and tau as leaves, [1, n] each or [2, n], [3, n], [2, n]."""
    if rho.ndim == 2:
        parts = rho[:1], (rho[1:4] ** 2).sum(0, keepdims=True), rho[4:]
    else:
        up, down = rho[:, 1:4]
        sigma = np.stack([(up * up).sum(0), (up * down).sum(0), (down * down).sum(0)])
        parts = rho[:, 0], sigma, rho[:, 4]
    return [torch.tensor(part, dtype=torch.float64, requires_grad=True) for part in parts]


def derivatives(functional, leaves):
    """Energy density [n], first [rows, n] and second [rows, rows, n] derivatives."""

    def grad(value):
        if not value.requires_grad:
            return torch.zeros(sum(len(leaf) for leaf in leaves), value.shape[-1])
        parts = torch.autograd.grad(value.sum(), leaves, create_graph=True, allow_unused=True)
        zeros = [torch.zeros_like(leaf) for leaf in leaves]
        return torch.cat([z if p is None else p for p, z in zip(parts, zeros, strict=True)])

    polarised = leaves[0].shape[0] == 2
    energy = functional.local_energy_density(
        DensityInvariants(*leaves)
        if polarised
        else DensityInvariants.from_total(*(leaf[0] for leaf in leaves))
    )
    assert energy.dtype == torch.float64
    first = grad(energy)
    second = torch.stack([grad(row) for row in first])
    return energy.detach().numpy(), first.detach().numpy(), second.detach().numpy()


def libxc_derivatives(name, rho):
    """The same from libxc, whose energy per electron refers to the floored density."""
    polarised = rho.ndim == 3
    rows, n = (7 if polarised else 3), rho.shape[-1]
    energy, first, second = np.zeros(n), np.zeros((rows, n)), np.zeros((rows, rows, n))
    spin_densities = rho[:, 0] if polarised else rho[:1]
    for code, threshold in REFERENCES[name]:
        family = libxc.xc_type(code)
        nvar = {"LDA": 1, "GGA": 4, "MGGA": 5}[family]
        values = rho[..., :nvar, :] if nvar > 1 else rho[..., 0, :]
        out = libxc.eval_xc1(code, values, spin=int(polarised), deriv=2)
        used = ROWS[family][polarised]
        energy += out[0] * np.maximum(spin_densities, threshold).sum(0)
        first[:used] += out[1 : 1 + used]
        for (i, j), row in zip(zip(*np.triu_indices(used), strict=True), out[1 + used :],
                               strict=True):  # fmt: skip
            second[i, j] += row
            if i != j:
                second[j, i] += row
    return energy, first, second


def deviations(name, rho):
    """Deviations from libxc relative to the energy density: e, y e_y, y e_yz z."""
    leaves = invariants_of(rho)
    ours = derivatives(load_functional(name), leaves)
    theirs = libxc_derivatives(name, rho)
    y = np.abs(torch.cat(leaves).detach().numpy())
    scale = np.abs(theirs[0])
    assert scale.min() > 0
    difference = [np.abs(a - b) / scale for a, b in zip(ours, theirs, strict=True)]
    return difference[0], difference[1] * y, difference[2] * y[:, None] * y[None], ours, theirs


def assert_agrees(name, rho):
    energy, first, second, _, _ = deviations(name, rho)
    assert energy.max() < ENERGY_RTOL
    assert first.max() < FIRST_RTOL
    assert second.max() < SECOND_RTOL


@parametrise
@spins
def test_energy_and_derivatives_equal_libxc(name, polarised, rng):
    rho = sample(rng, polarised)
    assert_agrees(name, rho)
    # Derivatives with respect to the density have no sign change: compare them to themselves.
    _, _, _, ours, theirs = deviations(name, rho)
    used = 2 if polarised else 1
    np.testing.assert_allclose(ours[1][:used], theirs[1][:used], rtol=FIRST_RTOL)


@parametrise
@spins
def test_vanishing_gradient_equals_libxc(name, polarised, rng):
    rho = sample(rng, polarised)
    rho[..., 1:4, :] = 0
    assert_agrees(name, rho)


@pytest.mark.parametrize("name", ["r2scan", "r2scan0"])
@pytest.mark.parametrize("factor", [0.0, 0.5, 1 - 1e-6, 1.0])
@spins
def test_tau_at_and_below_the_single_orbital_value_equals_libxc(name, factor, polarised, rng):
    rho = sample(rng, polarised)
    rho[..., 4, :] = factor * weizsaecker(rho[..., 0, :], rho[..., 1:4, :])
    assert_agrees(name, rho)


@components
def test_fully_polarised_equals_libxc(name, rng):
    rho = sample(rng, True)
    rho[1] = 0
    energy, first, _, ours, theirs = deviations(name, rho)
    assert energy.max() < ENERGY_RTOL
    assert first.max() < FIRST_RTOL
    # Of the empty channel only sigma has well-conditioned derivatives (libxc's 1 - zeta cancels).
    np.testing.assert_allclose(ours[1][3:5], theirs[1][3:5], rtol=1e-9, atol=1e-300)
    assert all(np.isfinite(values).all() for values in ours)


@components
def test_empty_up_channel_mirrors_an_empty_down_channel(name, rng):
    rho = sample(rng, True)
    rho[1] = 0
    functional = load_functional(name)
    one = derivatives(functional, invariants_of(rho))
    other = derivatives(functional, invariants_of(rho[::-1].copy()))
    order = [1, 0, 4, 3, 2, 6, 5]
    assert np.abs(one[1]).max() > 0
    np.testing.assert_allclose(other[0], one[0], rtol=1e-13)
    np.testing.assert_allclose(other[1][order], one[1], rtol=1e-12)


@components
@spins
def test_low_density_equals_libxc(name, polarised, rng):
    rho = sample(rng, polarised, low=-7, high=-4)
    energy, first, _, _, _ = deviations(name, rho)
    assert energy.max() < FIRST_RTOL
    assert first.max() < 1e-8


@parametrise
@spins
def test_tiny_density_is_finite_and_bounded(name, polarised, rng):
    rho = sample(rng, polarised, low=-13, high=-11)
    leaves = invariants_of(rho)
    results = derivatives(load_functional(name), leaves)
    assert all(np.isfinite(values).all() for values in results)
    # Per point, exchange is at most 1.804 * 2**(1/3) = 2.273 times Slater's, and correlation at
    # most that of the uniform gas, which is smaller than Slater's; at the floored density.
    total = leaves[0].detach().clamp_min(1e-12).sum(0)
    assert (results[0] <= 0).all()
    assert (results[0] >= 3.273 * slater_energy_density(total).numpy() - 1e-40).all()


@parametrise
@spins
def test_zero_density_gives_zero(name, polarised):
    rho = np.zeros((2, 5, 6) if polarised else (5, 6))
    rho[..., 4, 3:] = 1e-30
    for values in derivatives(load_functional(name), invariants_of(rho)):
        assert not values.any()


@parametrise
@spins
def test_every_input_gives_finite_derivatives(name, polarised, rng):
    n = 3000
    leaves = []
    for rows in (2, 3, 2) if polarised else (1, 1, 1):
        values = 10 ** rng.uniform(-40, 4, (rows, n))
        values[rng.random((rows, n)) < 0.1] = 0
        leaves.append(values)
    leaves[0][-1, :100] *= -1  # fitted densities may be slightly negative
    if polarised:
        leaves[1][1] *= rng.choice([-1, 1], n)
    tensors = [torch.tensor(values, requires_grad=True) for values in leaves]
    energy, first, second = derivatives(load_functional(name), tensors)
    assert np.isfinite(energy).all()
    assert np.isfinite(first).all()
    assert np.isfinite(second).all()
    assert (energy < 0).sum() > n / 10


@parametrise
def test_closed_shell_path_equals_two_equal_channels(name, rng):
    total = sample(rng, False)
    functional = load_functional(name)
    closed = derivatives(functional, invariants_of(total))
    both = derivatives(functional, invariants_of(np.stack([total, total]) / 2))
    np.testing.assert_allclose(closed[0], both[0], rtol=1e-13)
    np.testing.assert_allclose(closed[1][0], both[1][0], rtol=1e-12)
    np.testing.assert_allclose(closed[1][2], both[1][5], rtol=1e-8, atol=1e-13)


@parametrise
def test_closed_shell_path_reads_one_channel_only(name, rng):
    total = sample(rng, False, n=50)
    leaves = [leaf.detach() for leaf in invariants_of(total)]
    expected = load_functional(name).local_energy_density(
        DensityInvariants.from_total(*(leaf[0] for leaf in leaves))
    )
    nan = torch.full((1, 50), torch.nan, dtype=torch.float64)
    density, sigma, tau = leaves
    broken = DensityInvariants(
        torch.cat([density / 2, nan]),
        torch.cat([sigma / 4, nan, nan]),
        torch.cat([tau / 2, nan]),
        closed_shell=True,
    )
    assert torch.equal(load_functional(name).local_energy_density(broken), expected)


@parametrise
def test_features_name_what_is_read(name, rng):
    leaves = invariants_of(sample(rng, True, n=20))
    functional = load_functional(name)
    energy = functional.local_energy_density(DensityInvariants(*leaves))
    parts = torch.autograd.grad(energy.sum(), leaves, allow_unused=True)
    for part, feature in zip(parts, (Feature.DENSITY, Feature.GRADIENT, Feature.TAU), strict=True):
        assert (part is not None) == (feature in functional.features)


@pytest.mark.parametrize("name", ["pbe0", "r2scan0"])
def test_exchange_fraction_is_that_of_libxc(name):
    assert load_functional(name).exchange_fraction == libxc.hybrid_coeff(name) == 0.25


@pytest.mark.parametrize("zeta", [-1.0, -0.3, 0.0, 0.999, 1.0])
def test_pw92_building_block_equals_libxc(zeta):
    rs = np.logspace(-2, 0.5, 30)  # a density far above libxc's floor of the empty channel
    density = 3 / (4 * np.pi * rs**3)
    spin_densities = np.stack([(1 + zeta) / 2 * density, (1 - zeta) / 2 * density])
    expected = libxc.eval_xc1("lda_c_pw_mod", spin_densities, spin=1, deriv=0)[0]
    ours = pw92_energy_per_electron(
        torch.from_numpy(rs), torch.full((30,), zeta, dtype=torch.float64)
    )
    np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-8 if abs(zeta) == 1 else 1e-12)
    if zeta == 0:
        unpolarised = pw92_energy_per_electron(torch.from_numpy(rs))
        torch.testing.assert_close(unpolarised, ours, rtol=1e-14, atol=0)


def test_slater_building_blocks_scale_with_spin():
    density = torch.tensor([0.0, 1e-18, 1e-3, 1.0, 30.0], dtype=torch.float64)
    total = slater_energy_density(density)
    assert torch.equal(total[:2], torch.zeros(2, dtype=torch.float64))
    torch.testing.assert_close(2 * slater_exchange(density / 2), total)
    torch.testing.assert_close(slater_exchange(density), 2 ** (1 / 3) * total)
    assert total[3].item() == pytest.approx(-0.738558766382022, rel=1e-14)
