"""Settings in files and on command lines: YAML to frozen records, with nothing ignored silently.

A key that does not exist is an error with the nearest name, a value of the wrong type one that
names its field.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from ase_neuralxc.errors import InvalidInputError, unknown_name

T = TypeVar("T")


def read_settings(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read names and values from a YAML file.

    Args:
        path: the file.
        overrides: "key=value" pairs with values as in YAML; "key.of.setting=value" goes down.

    Returns:
        Names and values, nested as in the file.

    Raises:
        InvalidInputError: an unreadable file, one that holds no settings, or an override that is
            not "key=value".
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInputError(f"config: cannot read {str(path)!r}: {error}") from error
    if not isinstance(values, dict):
        raise InvalidInputError(f"config: expected settings in {str(path)!r}, got {values!r}")
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidInputError(f"override: expected key=value, got {text!r}")
        _assign(values, key.split("."), yaml.safe_load(value))
    return values


def build_settings(cls: type[T], values: Any, prefix: str = "") -> T:
    """A settings record from nested mappings, as YAML gives them.

    Args:
        cls: a dataclass whose fields are numbers, text, lists, or such records themselves.
        values: names and values.
        prefix: of the names in messages, with its dot.

    Returns:
        The record.

    Raises:
        InvalidInputError: an unknown or missing name, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise InvalidInputError(f"{prefix.rstrip('.')}: expected settings, got {values!r}")
    hints = get_type_hints(cls)
    known: Any = fields(typing.cast("Any", cls))
    names = [item.name for item in known]
    arguments = {}
    for key, value in values.items():
        if key not in names:
            raise unknown_name("setting", f"{prefix}{key}", [f"{prefix}{name}" for name in names])
        arguments[key] = _convert(hints[key], value, f"{prefix}{key}")
    needed = [f.name for f in known if f.default is f.default_factory is MISSING]
    missing = [f"{prefix}{name}" for name in needed if name not in arguments]
    if missing:
        raise InvalidInputError(f"settings: expected {', '.join(needed)}; missing {missing}")
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
    if origin is tuple:
        return (value,) if isinstance(value, str) else _elements(hint, value, name)
    return float(value) if hint is float else value


def _elements(hint: Any, values: Sequence[Any], name: str) -> tuple[Any, ...]:
    if get_args(hint) == (str, ...) and not all(isinstance(value, str) for value in values):
        raise InvalidInputError(f"{name}: expected a list of text, got {values!r}")
    return tuple(values)


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


def _assign(values: dict[str, Any], parts: list[str], new: Any) -> None:
    for part in parts[:-1]:
        if not isinstance(values.get(part), dict):
            values[part] = {}
        values = values[part]
    values[parts[-1]] = new
