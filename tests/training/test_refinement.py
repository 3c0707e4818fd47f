"""Refinement at the functional's own densities, on a few tiny species; resumes after a kill."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from training.helpers import HF
from training.test_trainer import config, data  # noqa: F401 - data is a fixture

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_checkpoint
from ase_neuralxc.records import units
from ase_neuralxc.training.refinement import (
    RefinementConfig,
    RegularisedTrainer,
    load_refinement,
    refine,
)
from ase_neuralxc.training.run_report import write_report
from ase_neuralxc.training.stored import density_path, open_density
from ase_neuralxc.training.trainer import Trainer
from ase_neuralxc.validation.single_point import SinglePointSettings, SinglePointTask

EXAMPLE = Path(__file__).parents[2] / "examples" / "refine_xc.yaml"


@pytest.fixture(scope="module")
def start(data, tmp_path_factory):  # noqa: F811
    """A functional that was trained on the densities of r2SCAN."""
    trainer = Trainer(config(data, tmp_path_factory.mktemp("first") / "run", epochs=20))
    return write_report(trainer, trainer.run())


def settings(data, start, out, **changes):  # noqa: F811
    training = {
        "data": [str(data / "tiny.jsonl")], "fold": None, "optimizer": "adamw", "epochs": 4,
        "batch": 2, "learning_rate": 2e-3, "warmup": 0.5, "name": "refined",
    }  # fmt: skip
    values = {"start": str(start), "out": str(out), "training": training, "rounds": 1,
              "densities": {"basis": "6-31g", "grid_level": 2}}  # fmt: skip
    return RefinementConfig(**{**values, **changes})


def test_a_functional_is_refined_at_its_own_densities(data, start, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    wanted = settings(data, start, out)

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        refine(wanted, kill, progress=False)
    rounds, epochs = [], []
    path = refine(wanted, epochs.append, rounds.append, progress=False)
    assert [e.epoch for e in epochs] == [3, 4]  # the first two were there
    assert [r.round for r in rounds] == [0, 1]
    assert rounds[0].checkpoint == str(start)
    assert (rounds[0].n_species, rounds[0].n_failed) == (6, 0)
    assert rounds[1].training_mae != rounds[0].training_mae
    assert json.loads((out / "rounds.json").read_text())[1]["round"] == 1
    best = min(rounds, key=lambda r: r.error)
    kept, expected = load_checkpoint(path), load_checkpoint(best.checkpoint)
    for a, b in zip(kept.parameters(), expected.parameters(), strict=True):
        assert torch.equal(a, b)
    # the densities are those of the functional itself, and the errors those of its energies
    own = open_density(density_path(out / "round-1" / "densities", HF))
    task = SinglePointTask(
        str(start), SinglePointSettings(basis="6-31g", scf_grid_level=2, grid_level=2)
    )
    assert own.total_energy == pytest.approx(task(HF)["energy"], abs=1e-6)
    trainer = Trainer(wanted.round_config(str(start), out / "round-1"))
    with torch.no_grad():
        energies = trainer.table.reaction_energies(load_checkpoint(start))
    np.testing.assert_allclose(trainer.table.starting_energies(), energies, atol=1e-3)
    errors = (energies - trainer.table.references).abs()
    assert rounds[0].training_mae == pytest.approx(float(errors.mean()), abs=1e-3)


def test_the_regulariser_adds_the_gain_of_one_species(data, tmp_path):  # noqa: F811
    plain = RegularisedTrainer(config(data, tmp_path / "a"), 0.0)
    trainer = RegularisedTrainer(config(data, tmp_path / "b"), 0.5)
    batch = trainer.table.subset([1])
    assert plain.penalty(batch, 0, 0) == 0.0
    value = trainer.penalty(batch, 0, 3)
    assert float(value.detach()) == float(trainer.penalty(batch, 0, 3).detach())
    fixed = [
        trainer._load(str(density_path(data / "densities", d.species))) for d in batch.densities
    ]
    gains = [float(f.evaluate(trainer.functional, one_step=False).scf_gain.detach()) for f in fixed]
    candidates = [0.5 * (g / units.KCALMOL_HARTREE) ** 2 for g in gains]
    assert min(candidates) > 0
    assert float(value.detach()) == pytest.approx(
        min(candidates, key=lambda c: abs(c - float(value.detach()))), rel=1e-9
    )
    value.backward()
    assert max(float(p.grad.abs().max()) for p in trainer.functional.parameters()) > 0
    # training with it keeps the functional closer to self-consistency at the stored densities
    plain.run()
    trainer.run()

    def gain(functional):
        return sum(float(f.evaluate(functional, one_step=False).scf_gain.detach()) for f in fixed)

    assert 0 < -gain(trainer.steps.averaged) < -gain(plain.steps.averaged)
    with pytest.raises(InvalidInputError, match="scf_weight: expected 0 with the optimizer"):
        RegularisedTrainer(config(data, tmp_path / "c", optimizer="gauss-newton"), 0.5)


def test_configuration_is_checked(tmp_path):
    path = tmp_path / "c.yaml"
    training = {"data": ["d"]}
    base = {"start": "s", "out": "o", "training": training}
    path.write_text(yaml.safe_dump(base))
    loaded = load_refinement(path, ("rounds=3", "training.epochs=2"))
    assert (loaded.rounds, loaded.training["epochs"]) == (3, 2)
    for changes, message in [
        ({"rounds": 0}, "rounds: expected at least 1, got 0"),
        ({"scf_weight": -1.0}, "scf_weight: expected a number that is not negative"),
        ({"training": {**training, "out": "x"}}, "training: expected settings without 'out'"),
        ({"training": {**training, "epoch": 1}}, "unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"densities": {"xc": "pbe"}}, "densities: expected settings without 'xc'"),
        ({"densities": {"base": "x"}}, "unknown setting 'base'. Did you mean 'basis'"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            RefinementConfig(**{**base, **changes})
    annotated = load_refinement(EXAMPLE)
    assert (annotated.rounds, annotated.scf_weight) == (2, 0.0)
    assert annotated.prepare_settings("pbe").basis == "def2-tzvpp"
    grids = [
        RefinementConfig(**base, densities=given).prepare_settings("pbe").scf_grid_level
        for given in ({}, {"grid_level": 4}, {"grid_level": 4, "scf_grid_level": 2})
    ]
    assert grids == [3, 4, 2]
    path.write_text(yaml.safe_dump({"start": "s", "out": "o"}))
    with pytest.raises(InvalidInputError, match=r"missing \['training'\]"):
        load_refinement(path)
