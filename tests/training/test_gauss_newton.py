"""Gauss-Newton steps: the Jacobian is the derivative, the step solves its problem, loss falls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from training.helpers import HF, SETTINGS, F, prepare
from training.test_trainer import config, data  # noqa: F401

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.architectures import build
from ase_neuralxc.functional.network import AnchoredNetwork
from ase_neuralxc.records import units
from ase_neuralxc.training.gauss_newton import Linearisation
from ase_neuralxc.training.grid_noise import GridNoise
from ase_neuralxc.training.smoothness import STEP, Roughness
from ase_neuralxc.training.stored import density_path, open_density
from ase_neuralxc.training.stored_energies import energy_jacobian, xc_energies
from ase_neuralxc.training.trainer import Trainer

NEURAL = {
    "architecture": "neural-semilocal",
    "settings": {"base": "r2scan", "width": 8, "depth": 1, "head_scale": 0.0},
    "optimizer": "gauss-newton",
}
MOMENTS = {
    "architecture": "moments",
    "compress": False,
    "settings": {"channels": 2, "width": 6, "exchange_width": 6, "depth": 1, "lmax": 1},
    "optimizer": "gauss-newton",
}


@pytest.mark.parametrize("kind", [NEURAL, MOMENTS], ids=["semi-local", "moments"])
def test_the_jacobian_is_that_of_finite_differences(data, kind):  # noqa: F811
    settings = {**kind["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(kind["architecture"], settings)
    paths = sorted((data / "densities" / "results").iterdir())[:3]
    densities = [open_density(path) for path in paths]
    energies, jacobian = energy_jacobian(functional, densities)
    with torch.no_grad():
        np.testing.assert_allclose(energies, xc_energies(functional, densities), rtol=1e-13)
    generator = torch.Generator().manual_seed(0)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in functional.parameters()
    ]
    step, shifted = 1e-4, []
    with torch.no_grad():
        for sign in (1, -2):
            for parameter, change in zip(functional.parameters(), direction, strict=True):
                parameter += sign * step * change
            shifted.append(xc_energies(functional, densities))
    flat = torch.cat([d.reshape(-1) for d in direction])
    numerical = (shifted[0] - shifted[1]) / (2 * step)
    assert float(numerical.abs().min()) > 1e-3
    np.testing.assert_allclose(jacobian @ flat, numerical, rtol=1e-6)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (9, 9)])
def test_the_step_solves_the_damped_problem(shape):
    generator = np.random.default_rng(0)
    rows, residual = generator.normal(size=shape), generator.normal(size=shape[0])
    pull = 0.3 * generator.normal(size=shape[1])
    model = Linearisation(residual, rows, pull, prior=0.3)
    step = model.step(damping=0.5)
    gradient = rows.T @ (residual + rows @ step) + pull + 0.3 * step + 0.5 * step
    np.testing.assert_allclose(gradient, 0.0, atol=1e-12)

    def value(change):
        away = pull / 0.3 + change
        return 0.5 * np.sum((residual + rows @ change) ** 2) + 0.15 * away @ away

    assert model.decrease(step) == pytest.approx(value(0 * step) - value(step), rel=1e-12)
    assert model.decrease(step) > 0


@pytest.mark.parametrize("kind", [NEURAL, MOMENTS], ids=["semi-local", "moments"])
def test_the_loss_falls_in_every_epoch(data, tmp_path, kind):  # noqa: F811
    trainer = Trainer(config(data, tmp_path / "run", **kind, epochs=6))
    start = (trainer.table.starting_energies() - trainer.table.references).abs().mean()
    functional = trainer.run()
    losses = [r.loss for r in trainer.history]
    assert losses == sorted(losses, reverse=True)
    assert losses[1] < 1e-2 * losses[0]  # four reactions, many weights
    assert len(losses) == 6 or losses[-1] == losses[-2]  # no step lowered it: the run is over
    assert trainer.history[-1].training_mae < 1e-3 * float(start)
    errors = trainer.energies(functional, trainer.training) - trainer.table.references.numpy()
    assert trainer.history[-1].training_mae == pytest.approx(np.abs(errors).mean(), rel=1e-9)


def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path):  # noqa: F811
    whole = Trainer(config(data, tmp_path / "whole", **NEURAL, prior=1e-3))
    whole.run()

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        Trainer(config(data, tmp_path / "part", **NEURAL, prior=1e-3)).run(kill)
    again = Trainer(config(data, tmp_path / "part", **NEURAL, prior=1e-3))
    assert len(again.history) == 2
    again.run()
    assert [(r.loss, r.rate) for r in whole.history] == [(r.loss, r.rate) for r in again.history]
    for a, b in zip(
        whole.functional.state_dict().values(), again.functional.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)


def test_the_prior_keeps_the_weights_near_their_start(data, tmp_path):  # noqa: F811
    def distance(prior):
        trainer = Trainer(config(data, tmp_path / str(prior), **NEURAL, prior=prior, epochs=8))
        start = [p.detach().clone() for p in trainer.functional.parameters()]
        trainer.run()
        pairs = zip(trainer.functional.parameters(), start, strict=True)
        return sum(float(((a - b).detach() ** 2).sum()) for a, b in pairs) ** 0.5

    free, held = distance(0.0), distance(1e3)
    assert 0 < held < 0.5 * free


def test_weights_that_are_not_finite_are_refused(data, tmp_path):  # noqa: F811
    trainer = Trainer(config(data, tmp_path / "run", **NEURAL))
    with torch.no_grad():
        next(trainer.functional.parameters()).fill_(float("nan"))
    with pytest.raises(InvalidInputError, match="start: expected finite reaction energies"):
        trainer.run()


@pytest.mark.parametrize("kind", [NEURAL, MOMENTS], ids=["semi-local", "moments"])
def test_roughness_is_the_second_difference_of_every_network(data, kind):  # noqa: F811
    settings = {**kind["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(kind["architecture"], settings)
    paths = sorted((data / "densities" / "results").iterdir())[:2]
    rough = Roughness(functional, [open_density(path) for path in paths], 0)
    networks = [m for m in functional.modules() if isinstance(m, AnchoredNetwork)]
    assert len(rough.probes) == len(networks) == 2
    expected = []
    with torch.no_grad():
        for network, probe in zip(networks, rough.probes, strict=True):
            away = STEP * probe.directions
            up, mid, down = (network(probe.places + s * away) for s in (1, 0, -1))
            expected.append((up - 2 * mid + down) / STEP**2)
    values = rough.residuals()
    joined = torch.cat(expected).numpy()
    np.testing.assert_allclose(values, joined / np.sqrt(len(joined)), atol=1e-10)
    jacobian, step = rough.jacobian(), 1e-6
    generator = torch.Generator().manual_seed(1)
    flat, shifted = [], []
    directions = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in functional.parameters()
    ]
    flat = torch.cat([d.reshape(-1) for d in directions]).numpy()
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, change in zip(functional.parameters(), directions, strict=True):
                parameter += sign * step * change
        shifted.append(rough.residuals())
    numerical = (shifted[0] - shifted[1]) / (2 * step)
    np.testing.assert_allclose(jacobian @ flat, numerical, atol=1e-6 * np.abs(numerical).max())


def test_the_penalty_makes_the_networks_smoother(data, tmp_path):  # noqa: F811
    def roughness(weight):
        trainer = Trainer(config(data, tmp_path / str(weight), **NEURAL, smoothness=weight))
        trainer.run()
        values = Roughness(trainer.functional, trainer.table.densities, 1).residuals()
        return float(values @ values), trainer.history[-1].training_mae

    (free, _), (held, error) = roughness(0.0), roughness(1.0)
    assert 0 < held < 0.5 * free
    assert error < 1.0


@pytest.fixture(scope="module")
def fine(tmp_path_factory):
    """Densities of two species on a finer grid."""
    folder = tmp_path_factory.mktemp("fine")
    prepare(folder, [F, HF], dataclasses.replace(SETTINGS, grid_level=5))
    return folder


def test_the_penalty_makes_energies_depend_less_on_the_grid(data, fine, tmp_path):  # noqa: F811
    def noise(weight):
        out = tmp_path / str(weight)
        coarse = str(data / "densities")
        kind = {**NEURAL, "smoothness": 0.0, "fine_densities": str(fine)}
        trainer = Trainer(config(data, out, **kind, grid_noise={coarse: weight}))
        trainer.run()
        measured = GridNoise.load(trainer.functional, coarse, str(fine))
        return float(np.abs(measured.residuals()).max()), trainer.history[-1].training_mae

    (free, _), (held, error) = noise(0.0), noise(1e4)
    assert 0 < held < 0.2 * free
    assert error < 0.1


def test_grid_noise_is_the_difference_of_two_quadratures(data, fine):  # noqa: F811
    settings = {**NEURAL["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build("neural-semilocal", settings)
    noise = GridNoise.load(functional, str(data / "densities"), str(fine))
    pairs = [
        [open_density(density_path(folder, species)) for folder in (data / "densities", fine)]
        for species in (F, HF)
    ]
    with torch.no_grad():
        expected = [xc_energies(functional, pair) for pair in pairs]
    differences = sorted(float(e[0] - e[1]) / units.KCALMOL_HARTREE / 2**0.5 for e in expected)
    np.testing.assert_allclose(sorted(noise.residuals()), differences, rtol=1e-9)
    generator = torch.Generator().manual_seed(0)
    change = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in functional.parameters()
    ]
    flat, step, shifted = torch.cat([c.reshape(-1) for c in change]).numpy(), 1e-4, []
    slope = noise.jacobian() @ flat
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, part in zip(functional.parameters(), change, strict=True):
                parameter += sign * step * part
        shifted.append(noise.residuals())
    np.testing.assert_allclose(slope, (shifted[0] - shifted[1]) / (2 * step), rtol=1e-4)


def test_folders_that_are_not_finer_are_refused(data, fine, tmp_path):  # noqa: F811
    functional = build("neural-semilocal", NEURAL["settings"])
    coarse = str(data / "densities")
    with pytest.raises(InvalidInputError, match=r"fine_densities: expected '.*' with more than"):
        GridNoise.load(functional, coarse, coarse)
    with pytest.raises(InvalidInputError, match="fine_densities: expected densities in"):
        GridNoise.load(functional, coarse, str(tmp_path))
