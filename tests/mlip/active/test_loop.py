"""Loops with a fake labeller: they learn, they stop at any moment and go on to the same ledger."""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import yaml
from ase.build import bulk
from ase.cluster import Octahedron
from ase.io import read, write
from small_potential import MODEL

from ase_neuralxc.campaign import EMTLabeller
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records import FidelityTag, SpinState, read_records, write_records
from ase_neuralxc.settings import build_settings
from mlip.active.ledger import read_ledger
from mlip.active.loop import run_loop
from mlip.active.loop_config import LoopConfig, read_loop_config
from mlip.cli import main

SAID = []


class Killed(BaseException):
    """As SIGKILL, nothing catches it."""


def starts():
    cluster = Octahedron("Cu", 2)
    cluster.rattle(0.05, seed=1)
    other = cluster.copy()
    other.numbers[0] = 79
    return [cluster, other]


def values(folder, **changes):
    return {
        "starts": str(folder / "starts.xyz"),
        "out": str(folder / "loop"),
        "rounds": 2,
        "labeller": {"kind": "emt"},
        "initial": {"rattle": {"count": 2, "amplitudes": [0.05, 0.15]}},
        "explore": {
            "md": {"temperatures": [500], "steps": 60, "interval": 15, "timestep": 2.0},
            "modes": {"count": 2, "temperatures": [800]},
        },
        "selection": {"budget": 3, "uncertain_above": 0.0},
        "training": {
            "epochs": 4,
            "validate_every": 2,
            "model": MODEL,
            "data": {"energy_reference": "EMT", "valid_fraction": 0.2},
        },
        **changes,
    }


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "starts.xyz", starts(), format="extxyz")
    return tmp_path


def config(folder, **changes):
    return build_settings(LoopConfig, values(folder, **changes))


def run(config, **options):
    SAID.clear()
    return run_loop(config, SAID.append, **options)


def test_a_loop_leaves_files_for_every_arrow_and_a_report(folder):
    result = run(config(folder, refine={"budget": 2, "fmax": 0.5}))
    rows = result.rows
    assert [row.round for row in rows] == [0, 1, 2]
    assert rows[0].labels == 8
    assert [row.labels - before.labels for before, row in pairwise(rows)] == [
        row.selected for row in rows[1:]
    ]
    assert len({row.model_hash for row in rows}) == 3
    assert len({row.data_hash for row in rows}) == 3
    assert all(row.new_errors["forces"] > 0 for row in rows[1:])
    assert rows == tuple(read_ledger(folder / "loop"))
    assert sum(row.dft_calls for row in rows) == rows[-1].labels
    stages = json.loads((folder / "loop" / "round-001" / "stages.json").read_text())
    assert set(stages) == {"explore", "select", "label", "train"}
    (label, *_) = read_records(folder / "loop" / "round-001" / "labels.extxyz")
    assert label.provenance["sample"]["sampler"] in ("md", "modes")
    assert result.refined is not None
    assert result.refined.n_dft <= 2
    page = (folder / "loop" / "report.html").read_text()
    assert "data:image/png" in page
    assert "needs re-relaxation" in page or "stands" in page


def test_a_loop_that_is_killed_at_every_stage_ends_with_the_same_ledger(folder):
    whole = run(config(folder, rounds=1))
    killed = config(folder, rounds=1, out=str(folder / "killed"))
    said, steps = set(), 0

    def say(line):
        """Killed at every line that is new: before and after every stage, and within."""
        if line not in said:
            said.add(line)
            raise Killed

    def progress(done, total, message):
        nonlocal steps
        steps += 1
        if steps in (3, 9):  # and in the middle of the training
            raise Killed

    kills = 0
    while True:
        try:
            again = run_loop(killed, say, progress)
            break
        except Killed:
            kills += 1
    assert kills > 16
    assert {f"round 1: {stage} done" for stage in ("explore", "select", "label", "train")} <= said
    assert [row.without_times() for row in again.rows] == [
        row.without_times() for row in whole.rows
    ]


def test_walkers_stop_to_ask_and_go_on(folder):
    otf = {"threshold": 1e-4, "temperatures": [400], "steps": 30, "interval": 10, "timestep": 2.0}
    result = run(config(folder, rounds=3, on_the_fly=otf))
    first, second = (read(folder / "loop" / f"round-00{k}" / "walkers.extxyz", ":") for k in (1, 2))
    assert [w.info["walker"]["step"] for w in first] == [10, 10]
    assert [w.info["walker"]["step"] for w in second] == [20, 20]
    assert np.abs(second[0].get_momenta()).max() > 0
    assert [row.selected for row in result.rows[1:]] == [2, 2, 2]
    # nothing to ask: a threshold that is never reached
    calm = config(folder, rounds=3, out=str(folder / "calm"), on_the_fly={**otf, "threshold": 1e3})
    result = run(calm)
    assert result.converged
    assert len(result.rows) == 2
    assert result.rows[-1].selected == 0
    walkers = read(folder / "calm" / "round-001" / "walkers.extxyz", ":")
    assert [w.info["walker"]["step"] for w in walkers] == [30, 30]


class Fragile(EMTLabeller):
    identity = "fragile"

    def label(self, atoms, state):
        if self.fails(atoms):
            raise RuntimeError("no luck today")
        return super().label(atoms, state)

    def fails(self, atoms):
        return int(abs(atoms.positions[0, 0]) * 1e6) % 2


class Changing(EMTLabeller):
    """Another level of theory for every structure with gold."""

    identity = "changing"

    def label(self, atoms, state):
        record = super().label(atoms, state)
        if atoms.numbers[0] == 79:
            return replace(record, fidelity=FidelityTag(functional="other"))
        return record


def test_failures_are_recorded_and_the_loop_goes_on(folder):
    result = run(config(folder, rounds=1), dft=Fragile())
    first = result.rows[0]
    assert 0 < first.failed < 8
    assert first.labels == 8 - first.failed
    assert first.dft_calls == 8
    failures = json.loads((folder / "loop" / "round-000" / "failures.json").read_text())
    assert {f["reason"] for f in failures.values()} == {"RuntimeError: no luck today"}


def test_bad_loops_are_refused(folder, monkeypatch):
    with pytest.raises(InvalidInputError, match="expected one level of theory, got 2"):
        run(config(folder), dft=Changing())
    monkeypatch.setattr(Fragile, "fails", lambda self, atoms: True)
    with pytest.raises(NeuralXCError, match="all 8 labels failed: RuntimeError: no luck today"):
        run(config(folder, out=str(folder / "b")), dft=Fragile())
    run(config(folder, out=str(folder / "c"), rounds=1))
    with pytest.raises(InvalidInputError, match="other settings of seed"):
        run(config(folder, out=str(folder / "c"), rounds=1, seed=3))
    with pytest.raises(InvalidInputError, match="for a model with uncertainties, got 1"):
        config(folder, training={"model": {**MODEL, "ensemble": 1}})
    with pytest.raises(InvalidInputError, match="Did you mean 'rattle'"):
        config(folder, initial={"ratle": {}})
    with pytest.raises(InvalidInputError, match=r"Did you mean 'explore\.md\.steps'"):
        config(folder, explore={"md": {"stepps": 3}})
    with pytest.raises(InvalidInputError, match="needs no potential"):
        run(config(folder, out=str(folder / "d"), initial={"modes": {}}))
    with pytest.raises(InvalidInputError, match="strain: expected periodic structures"):
        run(config(folder, out=str(folder / "e"), initial={"strain": {}}))
    with pytest.raises(InvalidInputError, match=r"training\.seed: expected no such setting"):
        config(folder, training={"seed": 3})
    with pytest.raises(InvalidInputError, match="'emt' has no settings, got"):
        config(folder, labeller={"kind": "emt", "xc": "pbe"})


def test_the_command_runs_a_file_and_runs_on_labels_that_are_there(folder, capsys):
    crystal = bulk("Cu", cubic=True)
    write(folder / "starts.xyz", [crystal], format="extxyz")
    labeller = EMTLabeller()
    given = []
    for seed in range(6):
        atoms = crystal.copy()
        atoms.rattle(0.1, seed=seed)
        given.append(labeller.label(atoms, SpinState()))
    write_records(folder / "given.extxyz", given)
    settings = values(
        folder,
        rounds=1,
        labels=[str(folder / "given.extxyz")],
        initial={"strain": {"count": 4}},
        explore={"rattle": {"count": 2}},
    )
    (folder / "loop.yaml").write_text(yaml.safe_dump(settings))
    assert read_loop_config(folder / "loop.yaml").rounds == 1
    assert main(["loop", str(folder / "loop.yaml"), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "round 1: train done" in printed
    assert "DFT calculations; new data" in printed
    assert read_ledger(folder / "loop")[0].labels == 10
    # done already: nothing is computed again, and the same is said
    assert main(["loop", str(folder / "loop.yaml"), "--quiet"]) == 0
    assert "round 1: train" not in capsys.readouterr().out
    settings["selectoin"] = {}
    (folder / "loop.yaml").write_text(yaml.safe_dump(settings))
    assert main(["loop", str(folder / "loop.yaml"), "--quiet"]) == 2
    assert "Did you mean 'selection'" in capsys.readouterr().err
