"""Checkpoints: what is written comes back, and nothing else is believed or run."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.architectures import register_architecture
from ase_neuralxc.functional.checkpoint import (
    FunctionalCard,
    functional_hash,
    load_checkpoint,
    read_card,
    save_checkpoint,
)
from ase_neuralxc.functional.lda import LDA, SlaterExchange
from ase_neuralxc.functional.neural import NeuralSemilocal, NeuralSemilocalSettings
from ase_neuralxc.functional.registry import load_functional

CARD = FunctionalCard(
    method="CCSD(T)", training_data_hash="ab12", dispersion="d4:r2scan", basis="def2-tzvp",
    grid_level=4, extra={"reactions": [1, 2]},
)  # fmt: skip


@pytest.fixture
def functional() -> NeuralSemilocal:
    return NeuralSemilocal(width=8, depth=2, seed=4, exchange_bound="tight", head_scale=5.0)


@pytest.fixture
def path(tmp_path: Path, functional: NeuralSemilocal) -> Path:
    target = tmp_path / "small.safetensors"
    save_checkpoint(target, functional, CARD)
    return target


def rewrite(path: Path, tensors: dict | None = None, **header: str | None) -> None:
    """Write the file again with some header entries or tensors changed, hashes untouched."""
    with safe_open(path, framework="pt") as file:
        old = dict(file.metadata())
        weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    old.update(header)
    new = {key: value for key, value in old.items() if value is not None}
    path.write_bytes(safetensors.torch.save({**weights, **(tensors or {})}, new))


def test_round_trip_gives_the_same_functional(path: Path, functional: NeuralSemilocal) -> None:
    loaded = load_functional(path)
    assert isinstance(loaded, NeuralSemilocal)
    assert loaded.settings == functional.settings
    ones = torch.ones(1, dtype=torch.float64)
    y = DensityInvariants.from_total(ones, 0.7 * ones, 2.0 * ones)
    expected = functional.local_energy_density(y)
    assert torch.equal(loaded.local_energy_density(y), expected)
    assert not torch.allclose(expected, LDA().local_energy_density(y), rtol=1e-3)
    assert functional_hash(loaded) == functional_hash(functional)
    assert read_card(path) == CARD
    assert load_checkpoint(path, expected_hash=functional_hash(functional)) is not None


def test_card_may_be_a_mapping_and_its_fields_are_closed(
    tmp_path: Path, functional: NeuralSemilocal
) -> None:
    target = tmp_path / "a.safetensors"
    save_checkpoint(target, functional, {"basis": "def2-svp"})
    assert read_card(target) == FunctionalCard(basis="def2-svp")
    with pytest.raises(InvalidInputError, match=r"'bassis'. Did you mean 'basis'"):
        save_checkpoint(target, functional, {"bassis": "def2-svp"})
    with pytest.raises(InvalidInputError, match="card: expected JSON values"):
        save_checkpoint(target, functional, {"extra": {"x": object()}})
    assert read_card(target) == FunctionalCard(basis="def2-svp")


def test_hash_sees_weights_settings_and_class(functional: NeuralSemilocal) -> None:
    before = functional_hash(functional)
    other = NeuralSemilocal(width=8, depth=2, seed=4, exchange_bound="lieb-oxford")
    assert functional_hash(other) != before
    with torch.no_grad():
        functional.exchange_net.weights[0][0, 0] += 1e-6
    assert functional_hash(functional) != before
    assert functional_hash(LDA()) == functional_hash(LDA()) != functional_hash(SlaterExchange())


@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.3, 0.9, 0.999])
def test_truncated_file_is_refused(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(CheckpointError, match=r"small.safetensors: truncated"):
        load_checkpoint(path)


def test_every_flipped_bit_of_the_weights_is_noticed(path: Path) -> None:
    data = path.read_bytes()
    for position in range(len(data) - 400, len(data), 37):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(CheckpointError, match="altered"):
            load_checkpoint(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "pt"}, "expected a checkpoint of format"),
        ({"format_version": "2"}, "expected format version 1, got '2'; update"),
        ({"format_version": None}, "expected format version 1, got None"),
        ({"settings": json.dumps({"width": 8})}, "altered: its weights and settings"),
        ({"architecture": "neural"}, "altered: its weights and settings"),
        ({"hash": None}, "altered: the header lacks hash"),
        ({"card": "{}"}, "altered: the card"),
    ],
)
def test_altered_header_is_refused(path: Path, change: dict, message: str) -> None:
    rewrite(path, **change)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(path)


def test_altered_tensor_is_refused(path: Path) -> None:
    rewrite(path, tensors={"exchange_net.biases.0": torch.ones(8)})
    with pytest.raises(CheckpointError, match="altered"):
        load_checkpoint(path)


def test_expected_hash_is_enforced(path: Path) -> None:
    with pytest.raises(CheckpointError, match="expected hash 00ff, got"):
        load_checkpoint(path, expected_hash="00ff")


def test_unknown_architecture_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ase_neuralxc.functional import architectures

    monkeypatch.setattr(architectures, "_REGISTRY", dict(architectures._REGISTRY))

    @register_architecture("someone-elses", NeuralSemilocalSettings)
    class Foreign(NeuralSemilocal):
        pass

    target = tmp_path / "foreign.safetensors"
    save_checkpoint(target, Foreign(width=4, depth=1))
    assert type(load_checkpoint(target)) is Foreign
    del architectures._REGISTRY["someone-elses"]
    with pytest.raises(CheckpointError, match="unknown architecture 'someone-elses'"):
        load_checkpoint(target)


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("writer", ["pickle-0", "pickle-5", "torch"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, writer: str) -> None:
    witness, target = tmp_path / "ran", tmp_path / "evil.safetensors"
    if writer == "torch":
        torch.save({"weights": Bomb(witness)}, target)
    else:
        target.write_bytes(pickle.dumps(Bomb(witness), protocol=int(writer[-1])))
    for read in (load_checkpoint, read_card):
        with pytest.raises(CheckpointError):
            read(target)
    assert not witness.exists()
    if writer != "torch":  # the file is what it claims to be: unpickled, it does act
        pickle.loads(target.read_bytes())
        assert witness.exists()


def test_a_length_that_looks_like_a_pickle_is_none(tmp_path: Path) -> None:
    """One in thirty-two headers has a length whose first byte is that of a pickle."""
    functional, target = NeuralSemilocal(width=4, depth=1), tmp_path / "a.safetensors"
    for length in range(300):
        save_checkpoint(target, functional, {"description": "x" * length})
        if target.read_bytes()[:1] == b"\x80":
            break
    assert target.read_bytes()[:1] == b"\x80"
    assert functional_hash(load_checkpoint(target)) == functional_hash(functional)


def test_failed_write_leaves_the_old_file(
    path: Path, functional: NeuralSemilocal, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = path.read_bytes()

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(path, functional)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_what_must_not_be_saved(tmp_path: Path, functional: NeuralSemilocal) -> None:
    with pytest.raises(InvalidInputError, match=r"expected a name that ends in .safetensors"):
        save_checkpoint(tmp_path / "a.pt", functional)
    with pytest.raises(InvalidInputError, match="registered with register_architecture, got LDA"):
        save_checkpoint(tmp_path / "a.safetensors", LDA())
    with torch.no_grad():
        functional.exchange_net.biases[0][0] = float("nan")
    with pytest.raises(CheckpointError, match=r"exchange_net.biases.0.*not finite"):
        save_checkpoint(tmp_path / "a.safetensors", functional)
    assert list(tmp_path.iterdir()) == []


def test_missing_file_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.safetensors")
