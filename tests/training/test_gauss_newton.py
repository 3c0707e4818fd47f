"""Gauss-Newton steps: the Jacobian is the derivative, the step solves its problem, loss falls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from training.helpers import MOMENTS, NEURAL, slopes
from training.test_trainer import config, data  # noqa: F401

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.architectures import build
from ase_neuralxc.training.gauss_newton import Linearisation
from ase_neuralxc.training.stored import open_density
from ase_neuralxc.training.stored_energies import energy_jacobian, xc_energies
from ase_neuralxc.training.trainer import Trainer


@pytest.mark.parametrize("kind", [NEURAL, MOMENTS], ids=["semi-local", "moments"])
def test_the_jacobian_is_that_of_finite_differences(data, kind):  # noqa: F811
    settings = {**kind["settings"], "head_scale": 0.5, "dtype": "float64"}
    functional = build(kind["architecture"], settings)
    paths = sorted((data / "densities" / "results").iterdir())[:3]
    densities = [open_density(path) for path in paths]
    energies, jacobian = energy_jacobian(functional, densities)
    with torch.no_grad():
        np.testing.assert_allclose(energies, xc_energies(functional, densities), rtol=1e-13)
    slope, numerical = slopes(
        functional, jacobian, lambda: xc_energies(functional, densities), 1e-4
    )
    assert np.abs(numerical).min() > 1e-3
    np.testing.assert_allclose(slope, numerical, rtol=1e-6)


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


def test_what_is_kept_is_the_mean_of_the_last_weights(data, tmp_path):  # noqa: F811
    settings = config(data, tmp_path / "whole", **NEURAL, smoothness=0.1, epochs=5, average=3)
    whole = Trainer(settings)
    seen = []

    def watch(record):
        seen.append(torch.cat([p.detach().reshape(-1) for p in whole.functional.parameters()]))

    kept = torch.cat([p.detach().reshape(-1) for p in whole.run(watch).parameters()])
    assert len(seen) == 5
    assert (seen[-1] - seen[-2]).abs().max() > 1e-4
    torch.testing.assert_close(kept, torch.stack(seen[-3:]).mean(0), atol=1e-6, rtol=0)
    errors = whole.energies(whole.steps.averaged, whole.training) - whole.table.references.numpy()
    assert whole.history[-1].training_mae == pytest.approx(np.abs(errors).mean(), rel=1e-9)

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 4:
            raise Killed

    part = replace(settings, out=str(tmp_path / "part"))
    with pytest.raises(Killed):
        Trainer(part).run(kill)
    again = torch.cat([p.detach().reshape(-1) for p in Trainer(part).run().parameters()])
    assert torch.equal(again, kept)


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
