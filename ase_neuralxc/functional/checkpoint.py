"""Functionals as single files that are checked before they are believed.

A checkpoint is one .safetensors file: tensors plus a text header, no code. The header holds the
format version, the architecture's name and settings, the functional's hash (over architecture,
settings and weights) and a card, with its own hash, that says where the functional comes from and
how it is meant to be used. Loading verifies all of it. Pickle and zip files (which `torch.save`
writes, and which can run code when read) are recognised by their first bytes and refused unread.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.functional.architectures import architecture_name, build, make_settings
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.records.files import may_run_code

FORMAT = "ase-neuralxc functional"
FORMAT_VERSION = 1

_FIELDS = ("format_version", "architecture", "settings", "hash", "card", "card_hash")


@dataclass(frozen=True)
class FunctionalCard:
    """What a user should know about a functional; unknown entries are None.

    Attributes:
        name: of the functional; None leaves that of its architecture.
        method: how the reference energies were computed, for example "CCSD(T)/CBS".
        training_data_hash: hash of the training set.
        dispersion: dispersion correction to add, for example "d3bj:r2scan"; None if none belongs.
        basis: recommended basis.
        grid_level: recommended PySCF grid level.
        density_fit: whether its molecules are meant to be calculated with density fitting.
        description: a sentence.
        extra: anything else, JSON values.
    """

    name: str | None = None
    method: str | None = None
    training_data_hash: str | None = None
    dispersion: str | None = None
    basis: str | None = None
    grid_level: int | None = None
    density_fit: bool | None = None
    description: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


def functional_hash(functional: nn.Module) -> str:
    """Identify a functional by what it computes: architecture, settings and weights.

    Args:
        functional: any functional that is a torch module. One without a registered architecture
            (a reference functional) counts its class and its name and exchange fraction.

    Returns:
        SHA-256, 64 hexadecimal digits; the same on every device.
    """
    try:
        name, settings = _describe(functional)
    except InvalidInputError:
        name = f"{type(functional).__module__}.{type(functional).__qualname__}"
        settings = {
            key: getattr(functional, key, None)
            for key in ("name", "exchange_fraction", "file_hash")
        }
    return _hash(name, _canonical(settings), functional.state_dict())


def save_checkpoint(
    path: str | PathLike[str],
    functional: nn.Module,
    card: FunctionalCard | Mapping[str, Any] | None = None,
) -> str:
    """Write a functional to one file, at once or not at all.

    Args:
        path: file to write, ending in .safetensors; an existing file is replaced when the new one
            is complete.
        functional: an instance of a registered architecture.
        card: the card, or a mapping of its fields.

    Returns:
        The functional's hash.

    Raises:
        InvalidInputError: another suffix, a class that is not registered, an unknown field of the
            card or a value in it that JSON cannot hold.
        CheckpointError: weights that are not finite.
        OSError: the folder cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InvalidInputError(f"path: expected a name that ends in .safetensors, got {path.name}")
    if not isinstance(card, FunctionalCard):
        card = make_settings(FunctionalCard, card or {})
    name, settings = _describe(functional)
    weights = {k: v.detach().cpu().contiguous() for k, v in functional.state_dict().items()}
    for key, value in weights.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: weights {key!r} hold values that are not finite")
    settings_text, card_text = _canonical(settings), _canonical(dataclasses.asdict(card))
    digest = _hash(name, settings_text, weights)
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "architecture": name,
        "settings": settings_text,
        "hash": digest,
        "card": card_text,
        "card_hash": hashlib.sha256(card_text.encode()).hexdigest(),
    }
    _write_atomically(path, safetensors.torch.save(weights, header))
    return digest


def load_checkpoint(path: str | PathLike[str], expected_hash: str | None = None) -> XCFunctional:
    """Read a functional and verify it.

    Args:
        path: a file written by `save_checkpoint`.
        expected_hash: the hash that the functional must have, if the caller knows it.

    Returns:
        The functional, on the CPU, in evaluation mode, with its name and its `card`.

    Raises:
        CheckpointError: no checkpoint of this package, truncated, altered, of another version, of
            an unknown architecture, or with another hash than expected.
        OSError: the file cannot be read.
    """
    path = Path(path)
    header, weights = _read(path)
    digest = _hash(header["architecture"], header["settings"], weights)
    if digest != header["hash"]:
        raise CheckpointError(
            f"{path}: altered: its weights and settings have hash {digest}, the file says "
            f"{header['hash']}"
        )
    if expected_hash is not None and digest != expected_hash:
        raise CheckpointError(f"{path}: expected hash {expected_hash}, got {digest}")
    try:
        functional = build(header["architecture"], json.loads(header["settings"]))
        functional.load_state_dict(weights, strict=True)
    except (InvalidInputError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot build the functional: {error}") from error
    functional.eval()
    if not isinstance(functional, XCFunctional):
        raise CheckpointError(f"{path}: {header['architecture']!r} is no functional")
    card = _card(path, header)
    if card.name is not None:
        functional.name = card.name
    functional.card = card  # type: ignore[assignment]
    return functional


def read_card(path: str | PathLike[str]) -> FunctionalCard:
    """Read the card of a checkpoint.

    Args:
        path: a file written by `save_checkpoint`.

    Returns:
        The card.

    Raises:
        CheckpointError: as for `load_checkpoint`.
    """
    path = Path(path)
    header, _ = _read(path)
    return _card(path, header)


def _card(path: Path, header: Mapping[str, str]) -> FunctionalCard:
    try:
        return make_settings(FunctionalCard, json.loads(header["card"]))
    except (InvalidInputError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot read the card: {error}") from error


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Header and tensors of a file, with every check that needs no architecture."""
    with path.open("rb") as file:
        start = file.read(9)
    if may_run_code(start):
        raise CheckpointError(
            f"{path}: a pickle or zip file, as torch.save writes it: reading it could run code. "
            "Expected a .safetensors file written by save_checkpoint"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or no safetensors file: {error}") from error
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a checkpoint of format {FORMAT!r}, got {header.get('format')!r}"
        )
    if header.get("format_version") != str(FORMAT_VERSION):
        raise CheckpointError(
            f"{path}: expected format version {FORMAT_VERSION}, got "
            f"{header.get('format_version')!r}; update ase-neuralxc if the file is newer"
        )
    missing = [key for key in _FIELDS if key not in header]
    if missing:
        raise CheckpointError(f"{path}: altered: the header lacks {', '.join(missing)}")
    if hashlib.sha256(header["card"].encode()).hexdigest() != header["card_hash"]:
        raise CheckpointError(f"{path}: altered: the card does not have the hash the file says")
    return header, weights


def _describe(functional: nn.Module) -> tuple[str, dict[str, Any]]:
    name = architecture_name(functional)
    settings: Any = functional.settings
    return name, dataclasses.asdict(settings)


def _canonical(value: Any) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"card: expected JSON values: {error}") from error


def _hash(name: str, settings: str, weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for part in _parts(name, settings, weights):
        # Lengths keep neighbouring parts apart.
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(name: str, settings: str, weights: Mapping[str, Tensor]) -> Iterable[bytes]:
    yield name.encode()
    yield settings.encode()
    for key in sorted(weights):
        value = weights[key].detach().cpu().contiguous()
        yield f"{key} {value.dtype} {tuple(value.shape)}".encode()
        yield value.numpy().tobytes()


def _write_atomically(path: Path, data: bytes) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
