"""Runs that start from a trained model."""

from dataclasses import replace

import numpy as np
import pytest
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from small_potential import MODEL, clusters

from ase_neuralxc.errors import InvalidInputError
from mlip.calculator import MLIP
from mlip.training.checkpoint import ModelCard, save_potential
from mlip.training.config import build_config
from mlip.training.prepare import build_potential, prepare
from mlip.training.run import train

pytestmark = pytest.mark.filterwarnings("ignore::mlip.calculator.CloseContactWarning")


def write_level(path, n, level, shift=0.0, seed=0, element=None):
    """Clusters at a level of theory whose atoms lie `shift` higher."""
    frames = clusters(n, seed)
    for atoms in frames:
        if element is not None:
            atoms.numbers[:] = element
        results = dict(atoms.calc.results)
        results["energy"] += shift * len(atoms)
        atoms.calc = SinglePointCalculator(atoms, **results)
        if level:
            atoms.info["fidelity"] = level
    write(path, frames, format="extxyz")
    return str(path)


def configure(folder, files, **changes):
    data = {"train": files, "valid_fraction": 0.25, **changes.pop("data", {})}
    values = {"out": str(folder), "epochs": 2, "validate_every": 1, "data": data, **changes}
    return build_config({"model": MODEL, **values})


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    files = [write_level(folder / "a.xyz", 12, "A")]
    return train(configure(folder / "run", files), say=lambda line: None)


def untrained(config, tmp_path):
    """The model that a run would start with."""
    path = tmp_path / "start.pt"
    save_potential(path, build_potential(prepare(config), config).eval(), ModelCard())
    return path


def test_direct_tuning_starts_with_the_weights_and_new_references(old, tmp_path):
    files = [write_level(tmp_path / "b.xyz", 12, "B", shift=5.0)]
    path = untrained(configure(tmp_path / "run", files, start=str(old), model={}), tmp_path)
    frames = clusters(3, seed=4)
    before, after = MLIP(old).evaluate(frames), MLIP(path).evaluate(frames)
    assert MLIP(path)._fidelities == ("B",)
    for first, second, atoms in zip(before, after, frames, strict=True):
        np.testing.assert_allclose(second["forces"], first["forces"], atol=1e-5)
        assert second["energy"] - first["energy"] == pytest.approx(5.0 * len(atoms), abs=0.05)


@pytest.mark.parametrize("fidelity", ["conditioned", "references"])
def test_a_second_level_starts_as_if_it_were_not_there(old, tmp_path, fidelity):
    files = [
        write_level(tmp_path / "a.xyz", 12, "A"),
        write_level(tmp_path / "b.xyz", 12, "B", shift=5.0),
    ]
    config = configure(
        tmp_path / "run", files, start=str(old), model={}, data={"fidelity": fidelity}
    )
    path = untrained(config, tmp_path)
    frames = clusters(3, seed=4)
    first = MLIP(old).evaluate(frames)
    levels = {level: MLIP(path, fidelity=level).evaluate(frames) for level in ("A", "B")}
    for k, atoms in enumerate(frames):
        for results in levels.values():
            np.testing.assert_allclose(results[k]["forces"], first[k]["forces"], atol=1e-5)
        shift = levels["B"][k]["energy"] - levels["A"][k]["energy"]
        assert shift == pytest.approx(5.0 * len(atoms), rel=0.05)
    names = [name for name, _ in build_potential(prepare(config), config).named_parameters()]
    assert any("film" in name for name in names) == (fidelity == "conditioned")
    # and it trains on, from the file that is written into the folder of the run
    train(config, say=lambda line: None)
    again = configure(tmp_path / "more", files[1:], start=str(tmp_path / "run"), model={}, data={})
    path = train(again, say=lambda line: None)
    assert MLIP(path, fidelity="A")._fidelities == ("A", "B")


def test_elements_that_the_data_lack_are_kept(old, tmp_path):
    files = [write_level(tmp_path / "b.xyz", 12, "B", shift=5.0, element=29)]
    path = untrained(configure(tmp_path / "run", files, start=str(old), model={}), tmp_path)
    assert MLIP(path).committee.elements == (29, 79)


def test_starts_that_do_not_fit_are_refused(old, tmp_path):
    files = [write_level(tmp_path / "b.xyz", 12, "B")]
    config = configure(tmp_path / "run", files, start=str(old), model={"channels": 5})
    with pytest.raises(InvalidInputError, match=r"model\.channels: expected 4 as in the start"):
        prepare(config)
    silver = [write_level(tmp_path / "c.xyz", 12, "B", element=47)]
    with pytest.raises(InvalidInputError, match=r"the data also have \['Ag'\]"):
        prepare(configure(tmp_path / "run", silver, start=str(old), model={}))
    both = [*files, write_level(tmp_path / "a.xyz", 12, "A")]
    joint = configure(
        tmp_path / "joint", both, start=str(old), model={}, data={"fidelity": "conditioned"}
    )
    path = train(replace(joint, epochs=1), say=lambda line: None)
    third = [write_level(tmp_path / "d.xyz", 12, "D")]
    with pytest.raises(InvalidInputError, match=r"expected data at the levels of theory .*'D'"):
        prepare(configure(tmp_path / "run", third, start=str(path), model={}))
