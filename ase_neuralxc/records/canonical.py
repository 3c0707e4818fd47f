"""Plain, hashable, canonical values: what tags and records are compared and hashed by."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from ase_neuralxc.errors import InvalidInputError, unknown_name


def freeze(name: str, value: Any) -> Any:
    """Turn a value into nested tuples of plain Python scalars.

    A mapping becomes the sorted tuple of its (key, value) pairs, sequences and arrays become
    tuples, NumPy scalars Python scalars, and minus zero zero: equal values hash equally.

    Args:
        name: the argument that the value came in, for the error.
        value: None, a scalar, or a sequence, array or mapping (keys are strings) of such values.

    Returns:
        A hashable value that equals another one exactly when the two mean the same.

    Raises:
        InvalidInputError: the value is of another type or a number is not finite.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InvalidInputError(f"{name}: expected finite numbers, got {value}")
        return value + 0.0
    if isinstance(value, Mapping):
        pairs = sorted((str(key), item) for key, item in value.items())
        return tuple((key, freeze(name, item)) for key, item in pairs)
    if isinstance(value, list | tuple):
        return tuple(freeze(name, item) for item in value)
    raise InvalidInputError(
        f"{name}: expected numbers, strings, sequences or mappings of them, got "
        f"{type(value).__name__}"
    )


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; floats are written so that they read back exactly."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def digest(value: Any) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def build(cls: type, data: Mapping[str, Any], kind: str) -> Any:
    """Construct a dataclass from a mapping, refusing keys that it does not have.

    Args:
        cls: the dataclass.
        data: field names and values.
        kind: what a key stands for, for the error ("FidelityTag field").

    Returns:
        An instance of `cls`.

    Raises:
        InvalidInputError: `data` is not a mapping, has an unknown key or lacks a required one.
    """
    if not isinstance(data, Mapping):
        raise InvalidInputError(f"{cls.__name__}: expected a mapping, got {type(data).__name__}")
    names = {field.name for field in fields(cls) if field.init}
    for key in data:
        if key not in names:
            raise unknown_name(kind, str(key), names)
    missing = [
        field.name
        for field in fields(cls)
        if field.init
        and field.default is MISSING
        and field.default_factory is MISSING
        and field.name not in data
    ]
    if missing:
        raise InvalidInputError(f"{cls.__name__}: expected the fields {missing}, got none of them")
    return cls(**data)


def plain(name: str, value: Any) -> Any:
    """Deep copy of a value as dictionaries, lists and scalars, exactly what JSON reads back.

    Args:
        name: the argument that the value came in, for the error.
        value: mappings, sequences and arrays of numbers, strings, booleans and None.

    Returns:
        The copy; tuples and arrays have become lists, keys strings.

    Raises:
        InvalidInputError: the value is of another type or a number is not finite.
    """
    try:
        return json.loads(json.dumps(value, default=_jsonable, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"{name}: expected finite, JSON-like values: {error}") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"got {type(value).__name__}")
