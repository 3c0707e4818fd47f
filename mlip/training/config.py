"""The configuration of a training run, read from one YAML file.

`examples/mlip_config.yaml` is the same with comments for people. A key that does not exist is an
error with the nearest name; nothing is ignored silently.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ase_neuralxc.errors import InvalidInputError, unknown_name
from mlip.training.settings import TrainConfig


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> tuple[TrainConfig, list[str]]:
    """Read a configuration.

    Args:
        path: YAML file.
        overrides: "key.of.setting=value", values as in YAML.

    Returns:
        The configuration, and a line "key: old -> new" for each override.

    Raises:
        InvalidInputError: an unreadable file, an unknown key, a value of the wrong type.
    """
    values = read_yaml(path)
    base = build_config(values)
    changed = []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"override: expected KEY=VALUE, got {text!r}")
        old = _lookup(base.as_dict(), key)
        new = yaml.safe_load(value)
        _assign(values, key.split("."), new)
        changed.append(f"{key}: {old} -> {new}")
    return build_config(values), changed


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Args:
        path: the file.

    Returns:
        Names and values.

    Raises:
        InvalidInputError: an unreadable file, or one that holds no settings.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"config: cannot read {str(path)!r}: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"config: expected settings in {str(path)!r}, got {values!r}")
    return values


def build_config(values: Mapping[str, Any]) -> TrainConfig:
    """Configuration from nested mappings.

    Args:
        values: as in the file.

    Returns:
        The configuration.

    Raises:
        InvalidInputError: an unknown key or a value of the wrong type.
    """
    config: TrainConfig = build_settings(TrainConfig, values, "")
    _check_model(config.model)
    return config


def _check_model(model: Mapping[str, Any]) -> None:
    from mlip.model.settings import ModelSettings

    known = [item.name for item in fields(ModelSettings)]
    for key in model:
        if key not in known:
            raise unknown_name("setting", f"model.{key}", [f"model.{name}" for name in known])


def build_settings(cls: type, values: Any, prefix: str = "") -> Any:
    """A settings record from nested mappings, as YAML gives them.

    Args:
        cls: a dataclass whose fields are numbers, text, lists, or such records themselves.
        values: names and values.
        prefix: of the names in messages, with its dot.

    Returns:
        The record.

    Raises:
        InvalidInputError: an unknown name or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"{prefix.rstrip('.')}: expected settings, got {values!r}")
    hints = get_type_hints(cls)
    names = [item.name for item in fields(cls)]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise unknown_name("setting", f"{prefix}{key}", [f"{prefix}{name}" for name in names])
        arguments[key] = _convert(hints[key], value, f"{prefix}{key}")
    return cls(**arguments)


def _convert(hint: Any, value: Any, name: str) -> Any:
    """The value in the type of its field, or an error that names the field."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        options = get_args(hint)
        if value is None and type(None) in options:
            return None
        for option in options:
            if is_dataclass(option):
                return build_settings(typing.cast("type", option), value, f"{name}.")
        for option in (o for o in options if o is not type(None)):
            try:
                return _convert(option, value, name)
            except InvalidInputError as error:
                problem = error
        raise problem
    if is_dataclass(hint):
        return build_settings(typing.cast("type", hint), value, f"{name}.")
    origin = get_origin(hint) or hint
    if origin is Literal or origin is Any:
        return value
    if hint is float and isinstance(value, str):
        value = _float(value, name)  # YAML reads 1e-3 as text
    numeric = {float: (int, float), int: (int,)}
    accepted = numeric.get(origin, (origin,))
    if origin is tuple:
        accepted = (list, tuple, str)
    if not isinstance(value, accepted) or (isinstance(value, bool) and origin is not bool):
        raise InvalidInputError(f"{name}: expected {_describe(hint)}, got {value!r}")
    if origin is tuple and not isinstance(value, str):
        return tuple(value)
    return float(value) if hint is float else value


def _float(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InvalidInputError(f"{name}: expected a number, got {text!r}") from None


def _describe(hint: Any) -> str:
    if get_origin(hint) is tuple:
        return "a list"
    words = {float: "a number", int: "an integer", str: "text", bool: "true or false"}
    return words.get(hint, "settings" if get_origin(hint) else str(hint))


def _lookup(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None  # left to `build_config`, which knows what is valid there
        found = found[part]
    return found


def _assign(values: dict[str, Any], parts: list[str], new: Any) -> None:
    for part in parts[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[parts[-1]] = new
