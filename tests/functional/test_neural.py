"""The neural semi-local functional: constraints for random weights, derivatives, hostile points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.lda import LDA, slater_exchange
from ase_neuralxc.functional.neural import NeuralSemilocal

DOUBLE = torch.float64
#: Random weights far from LDA, so that a constraint is not met by being near it.
WILD = {"seed": 3, "head_scale": 20.0, "width": 16, "depth": 2}


def sample(n: int = 64, seed: int = 0) -> DensityInvariants:
    """Spin densities over twelve orders of magnitude, s to 3, alpha to 3."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=DOUBLE)

    density = 10.0 ** (-8 + 10 * uniform(2, n))
    scale = 2 * (3 * math.pi**2) ** (1 / 3) * (2 * density) ** (4 / 3)
    up, down = 0.5 * 3 * uniform(2, n) * scale
    sigma = torch.stack([up * up, up * down * (2 * uniform(n) - 1), down * down])
    tau_uniform = 0.3 * (6 * math.pi**2) ** (2 / 3) * density ** (5 / 3)
    tau = sigma[::2] / (8 * density) + 3 * uniform(2, n) * tau_uniform
    return DensityInvariants(density, sigma, tau)


def leaves(y: DensityInvariants) -> DensityInvariants:
    parts = (t.detach().clone().requires_grad_() for t in (y.density, y.sigma, y.tau))
    return DensityInvariants(*parts, closed_shell=y.closed_shell)


def gradients(functional: torch.nn.Module, y: DensityInvariants) -> list[Tensor]:
    y = leaves(y)
    energy = functional.local_energy_density(y)
    return list(
        torch.autograd.grad(
            energy.sum(), (y.density, y.sigma, y.tau), allow_unused=True, materialize_grads=True
        )
    )


def swap(y: DensityInvariants) -> DensityInvariants:
    return replace(y, density=y.density.flip(0), sigma=y.sigma.flip(0), tau=y.tau.flip(0))


def exchange_enhancement(functional: NeuralSemilocal, n: int = 2000) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    s2 = torch.rand(n, generator=generator, dtype=DOUBLE)
    alpha = 2 * torch.rand(n, generator=generator, dtype=DOUBLE) - 1
    return functional.exchange_enhancement(s2, alpha).detach()


@pytest.mark.parametrize("base", ["lda", "r2scan"])
@pytest.mark.parametrize("closed_shell", [True, False])
def test_zero_head_is_the_base_in_energy_and_derivatives(closed_shell: bool, base: str) -> None:
    functional = NeuralSemilocal(width=8, depth=2, base=base)
    functional.zero_head_()
    known = load_functional(base)
    y = sample()
    if closed_shell:
        y = DensityInvariants.from_total(2 * y.density[0], 4 * y.sigma[0], 2 * y.tau[0])
    torch.testing.assert_close(
        functional.local_energy_density(y), known.local_energy_density(y), rtol=1e-13, atol=0
    )
    ours, expected = gradients(functional, y), gradients(known, y)
    assert expected[0].abs().max() > 0.1
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize(("base", "rtol"), [("lda", 1e-13), ("r2scan", 1e-9)])
@pytest.mark.parametrize("polarised", [False, True])
def test_uniform_gas_is_exact_for_any_weights(polarised: bool, base: str, rtol: float) -> None:
    functional = NeuralSemilocal(base=base, **WILD)
    up = torch.logspace(-6, 2, 9, dtype=DOUBLE)
    density = torch.stack([up, 0.3 * up if polarised else up])
    tau = 0.3 * (6 * math.pi**2) ** (2 / 3) * density ** (5 / 3)
    y = DensityInvariants(density, torch.zeros(3, 9, dtype=DOUBLE), tau)
    torch.testing.assert_close(
        functional.local_energy_density(y), LDA().local_energy_density(y), rtol=rtol, atol=0
    )
    zero = torch.zeros(1, dtype=DOUBLE)
    assert functional.exchange_enhancement(zero, zero).item() == 1.0
    assert (
        functional.correlation_enhancement(torch.tensor([[0.3, 0.2, 0, 0]]).double()).item() == 1.0
    )


@pytest.mark.parametrize(("name", "bound"), [("lieb-oxford", 1.804), ("tight", 1.174)])
def test_exchange_is_non_positive_and_bounded(name: str, bound: float) -> None:
    factor = exchange_enhancement(NeuralSemilocal(exchange_bound=name, **WILD))
    assert factor.min() >= 0
    assert factor.min() < 0.1  # the bounds are reached: random weights do test them
    assert bound - 0.01 < factor.max() <= bound


def test_exchange_on_r2scan_keeps_the_bound_of_the_product() -> None:
    functional = NeuralSemilocal(base="r2scan", **WILD)
    factor = exchange_enhancement(functional)
    assert factor.min() >= 0
    assert 1.5 < factor.max() <= 1.804 / 1.174


@pytest.mark.parametrize("base", ["lda", "r2scan"])
def test_exchange_scales_uniformly(base: str) -> None:
    # n_g(r) = g^3 n(g r): e_x scales as g^4 at each point, s and alpha do not change.
    functional = NeuralSemilocal(base=base, dtype="float64", **WILD)
    y, g = sample(), 1.7
    scaled = replace(y, density=g**3 * y.density, sigma=g**8 * y.sigma, tau=g**5 * y.tau)
    ours, theirs = exchange(functional, scaled), g**4 * exchange(functional, y)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    assert not torch.allclose(exchange(functional, y), slater_exchange(y.density).sum(0), rtol=0.1)


def exchange(functional: NeuralSemilocal, y: DensityInvariants) -> Tensor:
    """Exchange alone: total minus what remains with 100 % exact exchange."""
    without = NeuralSemilocal(replace(functional.settings, exchange_fraction=1.0))
    return (functional.local_energy_density(y) - without.local_energy_density(y)).detach()


@pytest.mark.parametrize("base", ["lda", "r2scan"])
def test_exchange_obeys_spin_scaling(base: str) -> None:
    # A milder head: where F_x nearly vanishes, exchange is lost in the subtraction of correlation.
    functional = NeuralSemilocal(base=base, dtype="float64", **{**WILD, "head_scale": 5.0})
    y = sample()
    channels = [
        DensityInvariants.from_total(2 * y.density[i], 4 * y.sigma[2 * i], 2 * y.tau[i])
        for i in (0, 1)
    ]
    halves = 0.5 * sum(exchange(functional, channel) for channel in channels)
    torch.testing.assert_close(exchange(functional, y), halves, rtol=1e-12, atol=1e-20)


@pytest.mark.parametrize("base", ["lda", "r2scan"])
def test_spin_flip_symmetry_and_closed_shell_path(base: str) -> None:
    functional = NeuralSemilocal(base=base, dtype="float64", **WILD)
    y = sample()
    torch.testing.assert_close(
        functional.local_energy_density(y),
        functional.local_energy_density(swap(y)),
        rtol=1e-12,
        atol=1e-20,
    )
    closed = DensityInvariants.from_total(2 * y.density[0], 4 * y.sigma[0], 2 * y.tau[0])
    opened = replace(closed, closed_shell=False)
    torch.testing.assert_close(
        functional.local_energy_density(closed),
        functional.local_energy_density(opened),
        rtol=1e-12,
        atol=1e-20,
    )


def test_first_and_second_derivatives_match_finite_differences() -> None:
    functional = NeuralSemilocal(dtype="float64", seed=2, head_scale=3.0, width=12, depth=3)
    functional.requires_grad_(False)

    def energy(density: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
        return functional.local_energy_density(DensityInvariants(density, sigma, tau))

    density = sample(4, seed=4).density.clamp(min=0.3, max=1.0)
    sigma = torch.tensor([[0.9], [0.2], [0.4]], dtype=DOUBLE).repeat(1, 4)
    inputs = tuple(t.requires_grad_() for t in (density, sigma, density + 1))
    assert torch.autograd.gradcheck(energy, inputs, eps=1e-6, atol=1e-8, rtol=1e-6)
    assert torch.autograd.gradgradcheck(energy, inputs, eps=1e-6, atol=1e-7, rtol=1e-6)


def test_weight_derivatives_match_finite_differences_also_mixed() -> None:
    functional = NeuralSemilocal(dtype="float64", width=4, depth=2, head_scale=3.0)
    y = leaves(sample(6))
    weight = functional.exchange_net.weights[1]
    (slope,) = torch.autograd.grad(functional.local_energy_density(y).sum(), weight)

    def potential() -> Tensor:
        return torch.autograd.grad(
            functional.local_energy_density(y).sum(), y.density, create_graph=True
        )[0].sum()

    (mixed,) = torch.autograd.grad(potential(), weight)
    values = []
    for step in (1e-5, -1e-5):
        with torch.no_grad():
            weight[0, 1] += step
        values.append((functional.local_energy_density(y).sum().item(), potential().item()))
        with torch.no_grad():
            weight[0, 1] -= step
    numerical = [(a - b) / 2e-5 for a, b in zip(*values, strict=True)]
    assert abs(slope[0, 1]) > 1e-3
    assert slope[0, 1].item() == pytest.approx(numerical[0], rel=1e-6)
    assert mixed[0, 1].item() == pytest.approx(numerical[1], rel=1e-6)
    # The other order: d/dn of dE/dw, through the node that only weights reach.
    (first,) = torch.autograd.grad(
        functional.local_energy_density(y).sum(), weight, create_graph=True
    )
    (other,) = torch.autograd.grad(first[0, 1], y.density)
    assert other.sum().item() == pytest.approx(mixed[0, 1].item(), rel=1e-9)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("closed_shell", [True, False])
@pytest.mark.parametrize("base", ["lda", "r2scan"])
def test_hostile_points_are_finite_to_second_order(
    base: str, dtype: str, closed_shell: bool
) -> None:
    functional = NeuralSemilocal(base=base, dtype=dtype, **WILD)
    axis = torch.tensor([0.0, 1e-30, 9e-16, 3e-15, 1e-12, 1e-6, 1.0, 1e4], dtype=DOUBLE)
    strength = torch.tensor([0.0, 1e-30, 1e-10, 1.0, 1e6], dtype=DOUBLE)
    up, down, sigma, tau = (
        t.reshape(-1) for t in torch.meshgrid(axis, axis, strength, strength, indexing="ij")
    )
    y = DensityInvariants(
        torch.stack([up, down]), torch.stack([sigma, -0.5 * sigma, sigma]), torch.stack([tau, tau])
    )
    y = replace(leaves(y), closed_shell=closed_shell)
    inputs = (y.density, y.sigma, y.tau)
    energy = functional.local_energy_density(y)
    assert energy.isfinite().all()
    first = torch.autograd.grad(energy.sum(), inputs, create_graph=True)
    for g in first:
        assert g.isfinite().all()
        for row in g:
            if row.requires_grad:
                second = torch.autograd.grad(row.sum(), inputs, retain_graph=True)
                assert all(h.isfinite().all() for h in second)


def test_one_orbital_regions_are_smooth_in_tau() -> None:
    # alpha = 0 up to rounding everywhere in H2: the potential must not depend on its sign.
    functional = NeuralSemilocal(dtype="float64", **WILD)
    density, sigma = torch.tensor([[0.1], [0.1]], dtype=DOUBLE), torch.full((3, 1), 0.02).double()
    tau = sigma[:2] / (8 * density)
    below, at = (
        gradients(functional, DensityInvariants(density, sigma, tau * (1 - e)))[2]
        for e in (1e-12, 0)
    )
    assert at.abs().min() > 1e-4
    torch.testing.assert_close(below, at, rtol=1e-9, atol=0)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = NeuralSemilocal(seed=5, width=4).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = NeuralSemilocal(seed=5, width=4).state_dict()
    other = NeuralSemilocal(seed=6, width=4).state_dict()
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["exchange_net.weights.0"], other["exchange_net.weights.0"])


def test_float32_network_agrees_with_float64() -> None:
    single, double = NeuralSemilocal(seed=1), NeuralSemilocal(seed=1, dtype="float64")
    y = sample()
    assert single.exchange_net.weights[0].dtype == torch.float32
    energy = single.local_energy_density(y)
    assert energy.dtype == DOUBLE
    torch.testing.assert_close(energy, double.local_energy_density(y), rtol=2e-6, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widht": 8}, "unknown setting 'widht'. Did you mean 'width'"),
        ({"depth": 0}, "depth: expected a positive integer, got 0"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"exchange_bound": "lieb"}, "Did you mean 'lieb-oxford'"),
        ({"base": "r2scan", "exchange_bound": "tight"}, "exchange_bound: expected room"),
        ({"base": "pbe"}, "unknown base"),
        ({"correlation_bound": 1.0}, "correlation_bound: expected a finite number above 1"),
        ({"exchange_fraction": 1.5}, "exchange_fraction: expected a number from 0 to 1"),
    ],
)
def test_bad_settings_are_named(changes: dict, message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        NeuralSemilocal(**changes)


def test_saturate_maps_zero_to_one_exactly() -> None:
    x = torch.tensor([-1e6, -800.0, 0.0, 800.0, 1e6], dtype=DOUBLE, requires_grad=True)
    for bound in (1.174, 1.804, 2.0, 7.3):
        y = exact.saturate(x, bound)
        assert y[2].item() == 1.0
        assert y[0].item() == 0.0
        assert y[-1].item() == pytest.approx(bound, rel=1e-15)
        assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()
