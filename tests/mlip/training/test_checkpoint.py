"""A model's file gives back the same model, and nothing else is taken for one."""

import json

import pytest
import safetensors.torch
import torch
from small_potential import MODEL, clusters

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from mlip.data.labelled import collate_labelled, to_graph
from mlip.data.structure import from_atoms
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import ModelCard, load_potential, save_potential


@pytest.fixture
def potential():
    torch.manual_seed(3)
    settings = ModelSettings(elements=(29, 79), fidelities=("a", "b"), **MODEL)
    reference = [[-12345.678901234, 2.0], [1.0 / 3.0, -1.0]]
    return Potential(SphereModel(settings), reference).eval()


@pytest.fixture
def path(tmp_path, potential):
    save_potential(tmp_path / "model.pt", potential, ModelCard(energy_reference="EMT"))
    return tmp_path / "model.pt"


def rewrite(path, **changes):
    """The file with another header."""
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = {**file.metadata(), **changes}
    path.write_bytes(safetensors.torch.save(weights, header))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_same_model_comes_back(tmp_path, potential, dtype):
    card = ModelCard(energy_reference="EMT", shortest={"Au-Cu": 2.0}, uncertainty_scale={})
    potential = potential.to(dtype)
    save_potential(tmp_path / "a.model", potential, card)
    loaded, loaded_card = load_potential(tmp_path / "a.model")
    assert loaded_card == card
    assert loaded.model.settings == potential.model.settings
    batch = collate_labelled([to_graph(from_atoms(a), 4.0) for a in clusters(3)]).graph
    for name, value in potential(batch).items():
        assert torch.equal(loaded(batch)[name], value)
    assert torch.equal(loaded.reference_energies, potential.reference_energies)


def test_the_precision_can_be_chosen(path, potential):
    loaded, _ = load_potential(path, dtype="float64")
    assert next(loaded.parameters()).dtype == torch.float64
    assert torch.equal(loaded.reference_energies, potential.reference_energies)
    with pytest.raises(CheckpointError, match="dtype: expected one of"):
        load_potential(path, dtype="float16")


def test_damaged_files_are_refused(path):
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], whole[:20], b"", b"text"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"truncated or no checkpoint"):
            load_potential(path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_potential(path.with_name("none"))


def test_newer_and_foreign_files_are_refused(path, tmp_path):
    rewrite(path, format_version="4")
    with pytest.raises(CheckpointError, match="of version '4', this program reads up to 3"):
        load_potential(path)
    rewrite(path, format_version="1", architecture="cube")
    with pytest.raises(CheckpointError, match="expected an architecture of"):
        load_potential(path)
    rewrite(path, format="other")
    with pytest.raises(CheckpointError, match="expected a file of format"):
        load_potential(path)


def test_files_of_the_first_version_keep_their_radial_functions(path, potential):
    settings = potential.model.settings.as_dict()
    del settings["radial_decay"]
    rewrite(path, format_version="1", settings=json.dumps(settings))
    loaded, _ = load_potential(path)
    assert loaded.model.settings.radial_decay == 0.0
    sizes = loaded.model.bessel.sizes
    torch.testing.assert_close(sizes, torch.full_like(sizes, 2.0**0.5))


def test_files_of_the_second_version_condition_features_alone(path, potential):
    weights = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, framework="pt") as file:
        header = {**file.metadata(), "format_version": "2"}
    for name in ("film_density", "film_message"):
        getattr(potential.model, name).weight.data.zero_()
        del weights[f"model.{name}.weight"]
    path.write_bytes(safetensors.torch.save(weights, header))
    loaded, _ = load_potential(path)
    batch = collate_labelled([to_graph(from_atoms(a), 4.0) for a in clusters(3)]).graph
    assert torch.equal(loaded(batch)["energy"], potential(batch)["energy"])
    path.write_bytes(safetensors.torch.save(weights, {**header, "format_version": "3"}))
    with pytest.raises(CheckpointError, match="Missing key"):
        load_potential(path)


def test_settings_that_do_not_fit_the_weights_are_refused(path, potential):
    settings = {**potential.model.settings.as_dict(), "channels": 5}
    rewrite(path, settings=json.dumps(settings))
    with pytest.raises(CheckpointError, match="cannot build the potential"):
        load_potential(path)
    rewrite(path, settings=json.dumps({**settings, "colour": 1}))
    with pytest.raises(CheckpointError, match="unknown model setting 'colour'"):
        load_potential(path)


def test_pickles_are_refused_unread(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    for name, options in (("zip", {}), ("old", {"_use_new_zipfile_serialization": False})):
        torch.save(Harmful(), tmp_path / name, **options)
        with pytest.raises(CheckpointError, match="a pickle or zip file"):
            load_potential(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_weights_that_are_not_finite_are_not_written(tmp_path, potential):
    with torch.no_grad():
        next(potential.parameters()).view(-1)[0] = torch.nan
    with pytest.raises(CheckpointError, match="not finite"):
        save_potential(tmp_path / "a.pt", potential, ModelCard())
    assert not (tmp_path / "a.pt").exists()


def test_other_modules_are_not_written(tmp_path, potential):
    potential.model = torch.nn.Linear(1, 1)
    with pytest.raises(InvalidInputError, match="expected one of"):
        save_potential(tmp_path / "a.pt", potential, ModelCard())
