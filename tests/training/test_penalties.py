"""What Gauss-Newton adds to the loss: values and derivatives as defined, and what they change."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from training.helpers import HF, MOMENTS, NEURAL, SETTINGS, F, prepare, slopes
from training.test_trainer import config, data  # noqa: F401

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.architectures import build
from ase_neuralxc.functional.network import AnchoredNetwork
from ase_neuralxc.functional.r2scan import R2SCAN
from ase_neuralxc.records import units
from ase_neuralxc.training.base_penalties import BaseDistance, KineticPotential
from ase_neuralxc.training.grid_noise import GridNoise
from ase_neuralxc.training.model_densities import spread_gas
from ase_neuralxc.training.smoothness import STEP, Roughness, network_inputs
from ase_neuralxc.training.stored import density_path, open_density
from ase_neuralxc.training.stored_energies import xc_energies
from ase_neuralxc.training.trainer import Trainer


@pytest.mark.parametrize("kind", [NEURAL, MOMENTS], ids=["semi-local", "moments"])
def test_roughness_is_the_second_difference_of_every_network(data, kind):  # noqa: F811
    settings = {**kind["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(kind["architecture"], settings)
    paths = sorted((data / "densities" / "results").iterdir())[:2]
    rough = Roughness(functional, network_inputs(functional, list(map(open_density, paths))), (0,))
    networks = [m for m in functional.modules() if isinstance(m, AnchoredNetwork)]
    assert len(rough.probes) == len(networks) == 2
    expected = []
    with torch.no_grad():
        for network, probe in zip(networks, rough.probes, strict=True):
            away = STEP * probe.directions
            up, mid, down = (network(probe.places + s * away) for s in (1, 0, -1))
            expected.append((up - 2 * mid + down) / STEP**2)
    joined = torch.cat(expected).numpy()
    np.testing.assert_allclose(rough.residuals(), joined / np.sqrt(len(joined)), atol=1e-10)
    slope, numerical = slopes(functional, rough.jacobian(), rough.residuals, 1e-6)
    np.testing.assert_allclose(slope, numerical, atol=1e-6 * np.abs(numerical).max())


def test_half_of_the_places_fill_the_box_of_the_others(data):  # noqa: F811
    functional = build(NEURAL["architecture"], NEURAL["settings"])
    paths = sorted((data / "densities" / "results").iterdir())[:2]
    seen = network_inputs(functional, list(map(open_density, paths)))
    for probe in Roughness(functional, seen, (0,)).probes:
        occurring, even = probe.places.chunk(2)
        low, high = even.amin(0), even.amax(0)
        spread = high - low > 0  # closed shells have one polarisation
        assert (even[:, spread].std(0) / (high - low)[spread]).numpy() == pytest.approx(
            12**-0.5, rel=0.1
        )
        margin = 0.02 * (high - low) + 1e-12
        assert bool(((occurring > low - margin) & (occurring < high + margin)).all(1).float().mean()
                    > 0.9)  # fmt: skip


def test_the_penalty_makes_the_networks_smoother(data, tmp_path):  # noqa: F811
    def roughness(weight):
        trainer = Trainer(config(data, tmp_path / str(weight), **NEURAL, smoothness=weight))
        trainer.run()
        seen = network_inputs(trainer.functional, trainer.table.densities)
        values = Roughness(trainer.functional, seen, (1,)).residuals()
        return float(values @ values), trainer.history[-1].training_mae

    (free, _), (held, error) = roughness(0.0), roughness(1.0)
    assert 0 < held < 0.5 * free
    assert error < 1.0


def test_the_spread_gas_is_what_it_says():
    gas = spread_gas(2000)
    density, sigma, tau = gas.density, gas.sigma, gas.tau
    total = density.sum(0)
    radius = (3 / (4 * np.pi * total)) ** (1 / 3)
    inside, tails = np.split(radius, 2)
    assert 0.5 <= inside.min() < 0.55
    assert 7.5 < inside.max() <= 8 and 6 <= tails.min() < 6.5  # noqa: PT018
    assert 50 < tails.max() <= 60
    np.testing.assert_allclose(sigma[1] ** 2, sigma[0] * sigma[2], rtol=1e-12)
    s = np.sqrt(sigma.sum(0) + sigma[1]) / (2 * (3 * np.pi**2) ** (1 / 3) * total ** (4 / 3))
    assert s[:1000].min() < 0.01
    assert s[:1000].max() == pytest.approx(2, abs=0.01)
    assert (s / radius)[1000:].min() == pytest.approx(0.17, abs=0.01)
    # the scaled excess of tau is the same in the total density and in each channel
    uniform = 0.3 * (6 * np.pi**2) ** (2 / 3) * density ** (5 / 3)
    alpha = (tau - sigma[::2] / (8 * density)) / uniform
    np.testing.assert_allclose(alpha[0], alpha[1], rtol=1e-6)
    assert alpha.min() >= 0
    assert alpha.min() < 0.01
    assert alpha.max() > 4
    zeta = (density[0] - density[1]) / total
    assert (zeta[::2] == 0).all()
    assert abs(zeta[1::2]).max() == pytest.approx(0.9, abs=0.01)


def test_the_kinetic_potential_is_a_derivative_by_tau():
    settings = {**NEURAL["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(NEURAL["architecture"], settings)
    penalty = KineticPotential(functional, places=60)
    step = 1e-5 * penalty.gas.density[0] ** (5 / 3)
    expected = []
    base = build(NEURAL["architecture"], {**settings, "head_scale": 0.0})
    for contender in (functional, base):
        shifted = []
        for sign in (1, -1):
            tau = penalty.gas.tau.clone()
            tau[0] += sign * step
            invariants = DensityInvariants(penalty.gas.density, penalty.gas.sigma, tau)
            with torch.no_grad():
                shifted.append(contender.local_energy_density(invariants))
        expected.append((shifted[0] - shifted[1]) / (2 * step))
    difference = (expected[0] - expected[1]).numpy() / 60**0.5
    np.testing.assert_allclose(penalty.residuals(), difference, rtol=1e-4, atol=1e-7)
    assert np.abs(difference).max() > 1e-3
    slope, numerical = slopes(functional, penalty.jacobian(), penalty.residuals, 1e-5)
    np.testing.assert_allclose(slope, numerical, atol=1e-6 * np.abs(numerical).max())


def test_the_distance_to_the_base_is_that_of_exchange_and_of_correlation():
    settings = {**NEURAL["settings"], "base": "r2scan", "head_scale": 0.5, "dtype": "float64"}
    functional = build(NEURAL["architecture"], settings)
    penalty = BaseDistance(functional, places=60)
    base = build(NEURAL["architecture"], {**settings, "head_scale": 0.0})
    with torch.no_grad():
        ours = torch.stack(functional.exchange_and_correlation(penalty.gas))
        theirs = torch.stack(base.exchange_and_correlation(penalty.gas))
        total = R2SCAN().local_energy_density(penalty.gas)
    np.testing.assert_allclose(theirs.sum(0).numpy(), total.numpy(), rtol=1e-9)
    uniform = 0.738558766382022 * penalty.gas.density.sum(0) ** (4 / 3)
    difference = ((ours - theirs) / uniform).T.flatten().numpy() / 60**0.5
    np.testing.assert_allclose(penalty.residuals(), difference, rtol=1e-6, atol=1e-12)
    assert np.abs(difference).max() > 1e-3
    slope, numerical = slopes(functional, penalty.jacobian(), penalty.residuals, 1e-5)
    np.testing.assert_allclose(slope, numerical, atol=1e-6 * np.abs(numerical).max())


@pytest.mark.parametrize("penalty", [KineticPotential, BaseDistance])
def test_the_penalty_holds_the_functional_at_its_base(data, tmp_path, penalty):  # noqa: F811
    def away(weight):
        settings = {**NEURAL, penalty.name: weight}
        trainer = Trainer(config(data, tmp_path / str(weight), **settings))
        trainer.run()
        values = penalty(trainer.functional, seed=(1,)).residuals()
        return float(values @ values), trainer.history[-1].training_mae

    (free, _), (held, error) = away(0.0), away(100.0)
    assert 0 < held < 0.1 * free
    assert error < 2.0


@pytest.mark.parametrize("penalty", [KineticPotential, BaseDistance])
def test_nonlocal_functionals_have_no_base_to_be_held_at(penalty):
    functional = build(MOMENTS["architecture"], MOMENTS["settings"])
    with pytest.raises(InvalidInputError, match=f"{penalty.name}: expected a semi-local"):
        penalty(functional)


@pytest.fixture(scope="module")
def finer(tmp_path_factory):
    """Densities of two species on two finer grids."""
    folders = {level: tmp_path_factory.mktemp(f"level{level}") for level in (3, 5)}
    for level, folder in folders.items():
        prepare(folder, [F, HF], dataclasses.replace(SETTINGS, grid_level=level))
    return folders


def test_the_penalty_makes_energies_depend_less_on_the_grid(data, finer, tmp_path):  # noqa: F811
    def noise(weight):
        out = tmp_path / str(weight)
        coarse = {str(data / "densities"): weight}
        kind = {**NEURAL, "fine_densities": str(finer[5])}
        trainer = Trainer(config(data, out, **kind, grid_noise=coarse))
        trainer.run()
        measured = GridNoise.load(trainer.functional, dict.fromkeys(coarse, 1.0), str(finer[5]))
        return float(np.abs(measured.residuals()).max()), trainer.history[-1].training_mae

    (free, _), (held, error) = noise(0.0), noise(1e4)
    assert 0 < held < 0.2 * free
    assert error < 1.0


def test_grid_noise_is_the_difference_of_two_energies(data, finer):  # noqa: F811
    settings = {**NEURAL["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(NEURAL["architecture"], settings)
    coarse = {str(data / "densities"): 2.0, str(finer[3]): 0.5}
    noise = GridNoise.load(functional, coarse, str(finer[5]))
    expected = []
    for folder, factor in coarse.items():
        for species in (F, HF):
            pair = [open_density(density_path(place, species)) for place in (folder, finer[5])]
            with torch.no_grad():
                energies = xc_energies(functional, pair)
            difference = float(energies[0] - energies[1]) / units.KCALMOL_HARTREE
            expected.append((factor / 2) ** 0.5 * difference)
    np.testing.assert_allclose(sorted(noise.residuals()), sorted(expected), rtol=1e-9)
    slope, numerical = slopes(functional, noise.jacobian(), noise.residuals, 1e-4)
    np.testing.assert_allclose(slope, numerical, rtol=1e-4)


def test_folders_that_are_not_finer_are_refused(data, finer, tmp_path):  # noqa: F811
    functional = build(NEURAL["architecture"], NEURAL["settings"])
    coarse = str(data / "densities")
    with pytest.raises(InvalidInputError, match=r"fine_densities: expected '.*' with more than"):
        GridNoise.load(functional, {str(finer[5]): 1.0}, str(finer[3]))
    with pytest.raises(InvalidInputError, match="fine_densities: expected densities in"):
        GridNoise.load(functional, {coarse: 1.0}, str(tmp_path))
