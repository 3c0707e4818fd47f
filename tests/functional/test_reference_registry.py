"""Finding a functional by name, by file or by object."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import ase_neuralxc.functional as functional_package
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import XCFunctional, available, load_functional, registry
from ase_neuralxc.functional.lda import LDA

NAMES = ["lda", "lda_x", "pbe", "pbe0", "r2scan", "r2scan0"]


def test_the_references_are_available():
    assert set(NAMES) <= set(available())
    assert available() == sorted(available())


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_any_case_gives_a_new_functional_of_that_name(name):
    functional = load_functional(f" {name.upper()}")
    assert functional.name == name
    assert isinstance(functional, XCFunctional)
    assert isinstance(functional, torch.nn.Module)
    assert load_functional(name) is not functional


@pytest.mark.parametrize("name", ["lda", "pbe", "r2scan"])
def test_references_have_no_exact_exchange_and_no_parameters(name):
    functional = load_functional(name)
    assert functional.exchange_fraction == 0.0
    assert not functional.state_dict()


def test_an_object_is_returned_as_it_is():
    functional = LDA()
    assert load_functional(functional) is functional


def test_an_unknown_name_tells_the_nearest_one_and_how_to_give_a_file():
    with pytest.raises(InvalidInputError, match=r"'r2scam'\. Did you mean 'r2scan'.*\.fun"):
        load_functional("r2scam")


@pytest.mark.parametrize("path", ["none/such.safetensors", "none/such.FUN", "~/none.fun"])
def test_a_missing_file_is_named(path):
    with pytest.raises(InvalidInputError, match=r"xc: expected the path of an existing file.*non"):
        load_functional(path)


@pytest.mark.parametrize(
    "value",
    [
        3,
        None,
        torch.nn.Linear(1, 1),
        # All attributes, but not a torch module: it could not be moved to a device.
        SimpleNamespace(name="x", features=set(), exchange_fraction=0.0, energy_density=len),
    ],
)
def test_an_object_that_is_no_functional_is_refused(value):
    with pytest.raises(InvalidInputError, match=r"xc: expected a name, a path"):
        load_functional(value)


def test_shipped_checkpoints_are_found_by_stem(tmp_path, monkeypatch):
    path = tmp_path / "Tiny-1.safetensors"
    path.write_bytes(b"")
    asked = []
    monkeypatch.setattr(registry, "_shipped", lambda: {path.stem: path})
    monkeypatch.setattr(registry, "_from_file", lambda *given: asked.append(given))
    assert "Tiny-1" in available()
    load_functional("tiny-1")
    assert asked == [(path, ".safetensors")]


def test_exports_are_those_announced():
    assert {"load_functional", "available", "SemilocalFunctional"} <= set(dir(functional_package))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        functional_package.nonsense  # noqa: B018
