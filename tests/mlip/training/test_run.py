"""Runs that learn, that stop and go on to the same bits, and what they leave behind."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.io import read, write
from small_potential import MODEL, clusters, write_clusters

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from mlip.calculator import MLIP
from mlip.data.files import read_structures
from mlip.data.store import write_store
from mlip.training.checkpoint import load_potential
from mlip.training.config import build_config
from mlip.training.prepare import prepare
from mlip.training.run import evaluate, resume, train

SAID = []


class Killed(Exception):
    pass


def configure(tmp_path, name="run", **changes):
    data = tmp_path / "data.xyz"
    if not data.exists():
        write_clusters(data, 12)
    values = {
        "out": str(tmp_path / name),
        "epochs": 4,
        "validate_every": 2,
        "data": {"train": str(data), "valid_size": 4, "energy_reference": "EMT"},
        "model": MODEL,
        "batch": {"structures": 3},
        "schedule": {"kind": "cosine"},
    }
    for key, value in changes.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return build_config(values)


def run(config, **options):
    return train(config, say=SAID.append, **options)


def weights(path):
    potential, _ = load_potential(path)
    return potential.state_dict()


def predictions(path, data):
    """Energies and forces of all structures in a file, in one row."""
    rows = []
    for atoms in read(data, ":"):
        atoms.calc = MLIP(path)
        rows.append(np.append(atoms.get_forces().ravel(), atoms.get_potential_energy()))
    return np.concatenate(rows)


def kill_after(steps):
    def progress(epoch, epochs, message):
        progress.count += 1
        if progress.count == steps:
            raise Killed

    progress.count = 0
    return progress


def test_training_lowers_the_errors_and_leaves_everything(tmp_path):
    config = configure(
        tmp_path,
        epochs=40,
        validate_every=10,
        data={"test": str(tmp_path / "t.xyz")},
        optimizer={"lr": 0.01},  # fixed here: the default is tuned on larger data
    )
    write_clusters(tmp_path / "t.xyz", 4, seed=5)
    path = run(config)
    with (path.parent / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [10, 20, 30, 40]
    assert float(rows[-1]["forces_mae"]) < 0.7 * float(rows[0]["forces_mae"])
    assert float(rows[-1]["train_loss"]) < 0.3 * float(rows[0]["train_loss"])
    card = json.loads((path.parent / "model_card.json").read_text())
    assert card["energy_reference"] == "EMT"
    assert set(card["metrics"]) == {"valid", "test"}
    assert card["shortest"]["Cu-Au"] > 1.0
    assert set(card["uncertainty_scale"]) == {"energy", "forces"}
    assert card["data"]["training labels"]["energy"] == 8
    page = (path.parent / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "forces by element" in page
    assert (path.parent / "report.png").stat().st_size > 10000
    assert "rank 2 of 2" in "\n".join(SAID)

    made, _ = evaluate(path.parent, str(tmp_path / "t.xyz"))
    for name in ("energy", "forces"):
        expected = card["metrics"]["test"][name]["mae"]
        assert np.abs(made.errors(name)).mean() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("steps", "changes"),
    [
        (1, {}),
        (7, {}),
        (7, {"schedule": {"kind": "plateau", "patience": 0}, "keep": "last"}),
        (10, {"second_stage": {"start": 0.5, "loss": {"energy": 10.0}}}),
    ],
)
def test_a_killed_run_ends_with_the_same_bits(tmp_path, steps, changes):
    whole = run(configure(tmp_path, "whole", checkpoint_minutes=0.0, **changes))
    config = configure(tmp_path, "parts", checkpoint_minutes=0.0, **changes)
    with pytest.raises(Killed):
        run(config, progress=kill_after(steps))
    with pytest.raises(InvalidInputError, match="holds a run; continue it with"):
        run(config)
    with pytest.raises(Killed):
        resume(config.out, SAID.append, kill_after(2))
    parts = resume(config.out, SAID.append)
    expected = weights(whole)
    assert expected.keys() == weights(parts).keys()
    for name, value in weights(parts).items():
        assert torch.equal(value, expected[name]), name

    def log(path):
        with (path.parent / "log.csv").open() as file:
            return [{k: v for k, v in r.items() if k != "seconds"} for r in csv.DictReader(file)]

    assert log(whole) == log(parts)


def test_a_run_does_not_go_on_with_other_data(tmp_path):
    config = configure(tmp_path)
    with pytest.raises(Killed):
        run(config, progress=kill_after(3))
    write_clusters(tmp_path / "data.xyz", 12, seed=9)
    with pytest.raises(CheckpointError, match="the data are not those"):
        resume(config.out)
    write_clusters(tmp_path / "data.xyz", 12)
    state = tmp_path / "run" / "state.pt"
    whole = torch.load(state, weights_only=True)
    torch.save({**whole, "model": dict(list(whole["model"].items())[1:])}, state)
    with pytest.raises(CheckpointError, match="weights are of another version"):
        resume(config.out)
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="cannot read the state"):
        resume(config.out)
    with pytest.raises(InvalidInputError, match=r"expected a folder with a config.yaml"):
        resume(tmp_path)


def test_mapped_data_train_to_the_same_bits(tmp_path):
    config = configure(tmp_path, "memory")
    memory = run(config)
    store = tmp_path / "data.graphs"
    write_store(store, read_structures(tmp_path / "data.xyz"), MODEL["r_max"])
    mapped = run(configure(tmp_path, "mapped", data={"train": str(store)}))
    for name, value in weights(mapped).items():
        assert torch.equal(value, weights(memory)[name]), name


def test_early_stopping_and_the_best_weights(tmp_path):
    # at a rate of 1, validation soon stops improving
    config = configure(
        tmp_path,
        epochs=60,
        validate_every=1,
        early_stopping=2,
        optimizer={"lr": 0.5, "ema": 0.0},
        schedule={"kind": "constant"},
    )
    run(config)
    with (tmp_path / "run" / "log.csv").open() as file:
        losses = [float(row["valid_loss"]) for row in csv.DictReader(file)]
    assert 3 <= len(losses) < 60
    assert np.argmin(losses) == len(losses) - 4
    made, _ = evaluate(tmp_path / "run", str(tmp_path / "data.xyz"))
    assert np.isfinite(made.errors("energy")).all()


def test_unlabelled_and_partly_labelled_structures(tmp_path):
    frames = clusters(12)
    for atoms in frames[::2]:
        del atoms.calc.results["forces"]
    for atoms in frames[1::4]:
        del atoms.calc.results["energy"]
    write(tmp_path / "part.xyz", frames, format="extxyz")
    config = configure(tmp_path, data={"train": str(tmp_path / "part.xyz")})
    path = run(config)
    with (path.parent / "log.csv").open() as file:
        assert all(float(row["valid_loss"]) > 0 for row in csv.DictReader(file))


def test_stress_of_crystals_beside_clusters(tmp_path, rng):
    frames = clusters(6)
    for strain in rng.normal(scale=0.03, size=(6, 3, 3)):
        atoms = bulk("Cu", cubic=True)
        atoms.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
        frames.append(atoms)
    write(tmp_path / "mixed.xyz", frames, format="extxyz")
    config = configure(
        tmp_path,
        epochs=40,
        validate_every=20,
        data={"train": str(tmp_path / "mixed.xyz")},
        loss={"stress": 100.0},
    )
    path = run(config)
    with (path.parent / "log.csv").open() as file:
        assert all(float(row["stress_mae"]) > 0 for row in csv.DictReader(file))
    made, _ = evaluate(path, str(tmp_path / "mixed.xyz"))
    errors = made.errors("stress")
    labels = np.array([atoms.get_stress() for atoms in frames[6:]])
    assert len(errors) == 6
    assert np.sqrt(np.mean(errors**2)) < 0.2 * np.sqrt(np.mean(labels**2))


def test_levels_of_theory_are_not_mixed_silently(tmp_path):
    frames = clusters(12)
    for k, atoms in enumerate(frames):
        atoms.info["fidelity"] = "low" if k % 2 else "high"
        atoms.calc.results["energy"] += 3.0 * len(atoms) * (k % 2)
    write(tmp_path / "two.xyz", frames, format="extxyz")
    changes = {"train": str(tmp_path / "two.xyz")}
    with pytest.raises(InvalidInputError, match="expected one level of theory, got 2"):
        prepare(configure(tmp_path, data=changes))
    prepared = prepare(configure(tmp_path, data={**changes, "fidelity": "conditioned"}))
    assert prepared.settings.fidelities == ("high", "low")
    difference = prepared.reference_energies[1] - prepared.reference_energies[0]
    assert (difference > 1.5).all()  # 3 eV per atom, and what six clusters leave open
    del frames[0].info["fidelity"]
    write(tmp_path / "two.xyz", frames, format="extxyz")
    with pytest.raises(InvalidInputError, match="do not say their level of theory"):
        prepare(configure(tmp_path, data={**changes, "fidelity": "conditioned"}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"loss": {"stress": 1.0}}, "loss.stress: weight 1, but the training data have no stress"),
        ({"data": {"train": []}}, "data.train: expected at least one file"),
        ({"data": {"train_size": 10}}, "expected 10 training and 4 validation structures, got 12"),
        ({"model": {"elements": [29]}}, r"model.elements: the data also have \[79\]"),
        ({"optimizer": {"lr": 1e18}}, "loss: not finite at epoch"),
    ],
)
def test_runs_that_cannot_work_say_why(tmp_path, changes, text):
    with pytest.raises(InvalidInputError, match=text):
        run(configure(tmp_path, **changes))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::mlip.calculator.CloseContactWarning")
def test_two_processes_follow_the_path_of_one(tmp_path):
    single = run(configure(tmp_path, "single", dtype="float64"))
    config = configure(tmp_path, "double", dtype="float64")
    path = tmp_path / "double.yaml"
    path.write_text(yaml.safe_dump(config.as_dict()))
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    code = "scripts/train_mlip.py"
    subprocess.run([sys.executable, *command, code, str(path), "--quiet"], check=True)
    # what they predict, not their weights: where the loss is flat, gradients are rounding, and the
    # optimizer divides them by themselves (2e-16 of the loss moves such weights by 5e-9)
    predicted = [
        predictions(path, tmp_path / "data.xyz") for path in (single, f"{config.out}/model.pt")
    ]
    assert np.ptp(predicted[0]) > 1.0
    np.testing.assert_allclose(*predicted, rtol=0, atol=1e-9)
    assert len(read(tmp_path / "data.xyz", ":")) == 12
