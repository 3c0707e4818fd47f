"""The training loop on a few tiny species: it learns, holds out, and resumes to the same bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from training.helpers import prepare, reaction_set

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_checkpoint, load_functional
from ase_neuralxc.functional.checkpoint import read_card
from ase_neuralxc.settings import build_settings
from ase_neuralxc.training.batches import batches
from ase_neuralxc.training.compression import compress, joined_densities
from ase_neuralxc.training.config import TrainingConfig, load_config
from ase_neuralxc.training.folds import kind_of, split
from ase_neuralxc.training.losses import ReactionLoss, error_scales
from ase_neuralxc.training.reactions import Reaction, ReactionSet
from ase_neuralxc.training.run_report import error_table, write_report
from ase_neuralxc.training.stored import open_density
from ase_neuralxc.training.trainer import Trainer

SMALL = {"width": 8, "depth": 1, "head_scale": 0.0, "terms": ["r2scan_x", "r2scan_c"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A file of reactions and a folder of densities."""
    folder = tmp_path_factory.mktemp("xc")
    prepare(folder / "densities")
    one = reaction_set()
    lines = [{"type": "meta", "set": "tiny"}]
    lines += [
        {"type": "species", "name": s.name, "charge": s.charge, "multiplicity": s.multiplicity,
         "symbols": list(s.symbols), "positions": [list(p) for p in s.positions]}
        for s in one.species.values()
    ]  # fmt: skip
    lines += [
        {"type": "reaction", "id": r.name, "species": list(r.species),
         "coeffs": list(r.coefficients), "ref": r.reference}
        for r in one.reactions
    ]  # fmt: skip
    (folder / "tiny.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def config(data, out, **changes):
    values = {
        "data": [str(data / "tiny.jsonl")], "densities": str(data / "densities"), "out": str(out),
        "architecture": "coefficient", "settings": SMALL, "dispersion": "d4(r2scan)",
        "fold": None, "optimizer": "adamw", "epochs": 6, "batch": 2, "learning_rate": 5e-3,
        "warmup": 0.5,
    }  # fmt: skip
    return build_settings(TrainingConfig, {**values, **changes})


def test_training_lowers_the_error_below_the_start(data, tmp_path):
    trainer = Trainer(config(data, tmp_path / "run", epochs=30))
    start = (trainer.table.starting_energies() - trainer.table.references).abs().mean()
    functional = trainer.run()
    assert trainer.history[-1].training_mae < 0.5 * float(start)
    assert trainer.history[0].loss > 3 * trainer.history[-1].loss
    path = write_report(trainer, functional)
    loaded = load_checkpoint(path)
    np.testing.assert_allclose(
        trainer.energies(loaded, trainer.training), trainer.energies(functional, trainer.training)
    )
    card = read_card(path)
    assert card.dispersion == "d4:r2scan"
    assert card.basis == "6-31g"
    assert card.extra["errors_on_stored_densities_kcal_mol"]["training"]["tiny"]["n"] == 4
    assert str(tmp_path) not in json.dumps(card.extra)
    assert "tiny" in error_table(trainer, functional)
    for name in ("learning.png", "parity.png", "errors.txt", "history.csv"):
        assert (trainer.out / name).stat().st_size > 100


def test_a_killed_run_goes_on_to_the_same_bits(data, tmp_path):
    whole = Trainer(config(data, tmp_path / "whole"))
    whole.run()

    class Killed(Exception):
        pass

    def kill(record):
        if record.epoch == 3:
            raise Killed

    part = Trainer(config(data, tmp_path / "part"))
    with pytest.raises(Killed):
        part.run(kill)
    again = Trainer(config(data, tmp_path / "part"))
    assert len(again.history) == 3
    again.run()
    for a, b in zip(
        whole.functional.state_dict().values(), again.functional.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b)
    assert [r.loss for r in whole.history] == [r.loss for r in again.history]
    with pytest.raises(InvalidInputError, match=r"got other learning_rate; use another folder"):
        Trainer(config(data, tmp_path / "part", learning_rate=1e-3))


def test_held_out_reactions_stop_the_training(data, tmp_path):
    trainer = Trainer(
        config(data, tmp_path / "run", validation_set="tiny", folds=3, fold=0, epochs=40,
               patience=3, learning_rate=0.05)
    )  # fmt: skip
    assert trainer.validation
    assert not set(trainer.validation) & set(trainer.training)
    trainer.run()
    errors = [r.validation_mae for r in trainer.history]
    assert len(errors) < 40
    assert int(np.argmin(errors)) == len(errors) - 4
    held = trainer.energies(trainer.steps.averaged, trainer.validation)
    references = trainer.table.references.numpy()[trainer.validation]
    assert np.abs(held - references).mean() == pytest.approx(min(errors), rel=1e-12)


def test_joined_densities_are_shared_through_files(data):
    starting = load_functional("r2scan")
    folder = data / "densities"
    densities = [open_density(path) for path in sorted((folder / "results").iterdir())]
    first = joined_densities(folder, densities, starting)
    (joined,) = folder.glob("joined-*")
    files = {path: path.stat().st_mtime_ns for path in joined.iterdir()}
    assert len(files) == len(densities)
    second = joined_densities(folder, densities, starting)
    assert {path: path.stat().st_mtime_ns for path in joined.iterdir()} == files
    for density, one, two in zip(densities, first, second, strict=True):
        assert one.species == two.species == density.species
        assert one.energies == two.energies
        np.testing.assert_array_equal(one.tau, two.tau)
        np.testing.assert_array_equal(one.tau, compress(density, starting).tau)


def test_points_of_negative_weight_do_not_cancel_others(data):
    density = open_density(sorted((data / "densities" / "results").iterdir())[0])
    doubled = {
        name: np.repeat(getattr(density, name), 2, axis=-1)
        for name in ("density", "gradient", "tau")
    }
    signs = np.tile([2.0, -1.0], density.n_points)
    weights = np.repeat(density.weights, 2) * signs  # each point twice, the same integral
    split = dataclasses.replace(density, weights=weights, **doubled)
    starting = load_functional("r2scan")
    joined, expected = compress(split, starting), compress(density, starting)
    assert (joined.weights < 0).any()
    assert joined.energies["compression"] == pytest.approx(
        expected.energies["compression"], abs=1e-6
    )


def test_joined_points_keep_differences_between_functionals(data):
    starting = load_functional("r2scan")
    for path in sorted((data / "densities" / "results").iterdir()):
        density = open_density(path)
        small = compress(density, starting)
        assert small.n_points < 0.5 * density.n_points
        for name in ("pbe", "lda"):
            functional = load_functional(name)
            energies = []
            for d in (density, small):
                with torch.no_grad():
                    energies.append(sum(float(b.energies(functional, 1)[0]) for b in batches([d])))
            change = density.energies["xc"] - energies[0]
            assert abs(change) > 5e-4
            assert energies[1] + small.energies["compression"] == pytest.approx(
                energies[0], abs=1e-4
            )
        assert abs(small.energies["compression"]) > 1e-9
        assert small.total_energy == pytest.approx(density.total_energy, abs=1e-12)


def test_a_fold_takes_with_it_all_that_tells_about_it():
    one = reaction_set()
    other = ReactionSet(
        "other",
        one.species,
        (Reaction("swap", ("HH", "F", "HF", "H"), (-1.0, -1.0, 1.0, 1.0), -32.0),),
    )
    parts = [split([one, other], "tiny", 3, fold, 0) for fold in range(3)]
    held = [name for part in parts for _, name in part.validation]
    assert {"H2", "HF", "OH"} <= set(held)
    for part in parts:
        molecules = {
            kind_of(one.species[s])
            for _, name in part.validation
            for r in one.reactions
            if r.name == name
            for s in r.species
            if len(one.species[s].symbols) > 1
        }
        swapped = {kind_of(one.species["HH"]), kind_of(one.species["HF"])}
        assert (("other", "swap") in part.dropped) == bool(
            {k for k in swapped if k in molecules} and ("tiny", "exchange") in part.validation
        )
        assert not set(part.training) & {*part.validation, *part.dropped}
    assert split([one, other], "tiny", 3, None, 0).validation == ()
    with pytest.raises(InvalidInputError, match="validation_set: expected one of"):
        split([one], "W4-17", 5, 0, 0)


def test_loss_is_huber_of_scaled_errors_with_sets_in_balance():
    sets = ["a"] * 4 + ["b"]
    scales = error_scales(sets, np.array([4.0, 4, 4, 4, 625]), 1.0, 0.2)
    assert scales == {"a": 1.0, "b": 5.0}
    loss = ReactionLoss(scales, {"a": 4, "b": 1}, 2.0, {})
    zero = torch.zeros(5, dtype=torch.float64)
    errors = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    large = torch.tensor([0.0, 0, 0, 0, 50.0], dtype=torch.float64)
    weight_a, weight_b = loss.weights["a"], loss.weights["b"]
    assert weight_b == pytest.approx(2 * weight_a)
    assert float(loss(errors, zero, sets)) == pytest.approx(weight_a * 0.5 / 5)
    assert float(loss(large, zero, sets)) == pytest.approx(weight_b * 2.0 * (10 - 1) / 5)


def test_the_example_names_every_setting():
    example = Path(__file__).parents[2] / "examples" / "train_xc.yaml"
    assert load_config(example).optimizer == "gauss-newton"
    named = yaml.safe_load(example.read_text())
    assert set(named) == {field.name for field in dataclasses.fields(TrainingConfig)}


def test_configuration_is_checked(tmp_path):
    path = tmp_path / "c.yaml"
    base = {"data": ["d"], "densities": "x", "out": "y"}
    path.write_text(yaml.safe_dump({**base, "learning_rate": "1e-3"}))
    loaded = load_config(path, ["epochs=3", "settings.width=4", "fold=null"])
    assert (loaded.learning_rate, loaded.epochs, loaded.fold) == (1e-3, 3, None)
    assert loaded.settings == {"width": 4}
    for change, message in [
        ({"epoch": 3}, "unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"epochs": "many"}, "epochs: expected an integer, got 'many'"),
        ({"fold": 7}, "fold: expected None or a number below 5, got 7"),
        ({"ema": 1.0}, "ema: expected a number from 0 to below 1"),
        ({"data": 3}, "data: expected"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'. Did you mean 'adamw'"),
        ({"damping": 0.0}, "damping: expected a positive number, got 0.0"),
        ({"grid_noise": {"d": -1.0}}, "grid_noise of 'd': expected a number that is not negative"),
        ({"grid_noise": {"d": 1.0}}, "fine_densities: expected the folder"),
        ({"optimizer": "adamw", "prior": 1.0}, "optimizer: expected 'gauss-newton' with"),
        ({"prior": -1.0}, "prior: expected a number that is not negative"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            build_settings(TrainingConfig, {**base, **change})
    with pytest.raises(InvalidInputError, match=r"missing \['out'\]"):
        build_settings(TrainingConfig, {"data": ["d"], "densities": "x"})
    with pytest.raises(InvalidInputError, match="override: expected key=value"):
        load_config(path, ["epochs"])


def test_a_nonlocal_functional_is_trained(data, tmp_path):
    changes = {
        "architecture": "moments", "compress": False, "epochs": 8,
        "settings": {"channels": 2, "width": 6, "exchange_width": 6, "depth": 1, "lmax": 1,
                     "head_scale": 0.0},
    }  # fmt: skip
    trainer = Trainer(config(data, tmp_path / "run", **changes))
    start = float((trainer.table.starting_energies() - trainer.table.references).abs().mean())
    functional = trainer.run()
    assert trainer.history[-1].training_mae < 0.8 * start
    path = write_report(trainer, functional)
    card = read_card(path)
    assert card.extra["constraints"] == {}
    assert "moments" in json.dumps(card.extra["config"])
    np.testing.assert_allclose(
        trainer.energies(load_checkpoint(path), trainer.training),
        trainer.energies(functional, trainer.training),
    )
    with pytest.raises(InvalidInputError, match="compress: expected false for 'moments'"):
        Trainer(config(data, tmp_path / "other", **{**changes, "compress": True}))
