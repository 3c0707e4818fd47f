"""Architectures that a checkpoint may name, and how to rebuild one from its settings.

An architecture is an `nn.Module` class with a frozen dataclass of settings: the class is called
with the settings, and the instance keeps them in `settings`. Settings plus weights define it.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from ase_neuralxc.errors import InvalidInputError, unknown_name

#: Where the architectures of this package are defined; imported when a checkpoint names them.
_BUILT_IN = {
    "coefficient": "ase_neuralxc.functional.coefficient",
    "moments": "ase_neuralxc.functional.moments",
    "neural-semilocal": "ase_neuralxc.functional.neural",
}
_REGISTRY: dict[str, tuple[type[nn.Module], type]] = {}

Module = TypeVar("Module", bound=nn.Module)
Settings = TypeVar("Settings")


def register_architecture(name: str, settings: type) -> Callable[[type[Module]], type[Module]]:
    """Class decorator that lets checkpoints name an architecture.

    Args:
        name: the name written into files; it must never change.
        settings: frozen dataclass of JSON values, the only argument of the class.

    Returns:
        The decorator.

    Raises:
        InvalidInputError: the name belongs to another class, or the settings are not a dataclass.
    """
    if not dataclasses.is_dataclass(settings):
        raise InvalidInputError(f"settings: expected a dataclass, got {settings!r}")

    def decorate(cls: type[Module]) -> type[Module]:
        taken = _REGISTRY.get(name)
        if taken is not None and taken[0].__qualname__ != cls.__qualname__:
            raise InvalidInputError(f"name: {name!r} is already the architecture {taken[0]!r}")
        _REGISTRY[name] = (cls, settings)
        return cls

    return decorate


def architecture_name(functional: nn.Module) -> str:
    """The registered name of a functional's class.

    Args:
        functional: an instance of a registered class.

    Returns:
        The name.

    Raises:
        InvalidInputError: the class is not registered.
    """
    for name, (cls, _) in _REGISTRY.items():
        if type(functional) is cls:
            return name
    raise InvalidInputError(
        f"functional: expected an architecture registered with register_architecture, got "
        f"{type(functional).__name__}"
    )


def build(name: str, settings: Mapping[str, Any]) -> nn.Module:
    """Build an architecture with freshly initialised weights.

    Args:
        name: its registered name.
        settings: values for its settings dataclass.

    Returns:
        The module.

    Raises:
        InvalidInputError: unknown architecture, unknown setting, or a value it does not accept.
    """
    if name not in _REGISTRY and name in _BUILT_IN:
        importlib.import_module(_BUILT_IN[name])
    if name not in _REGISTRY:
        raise unknown_name("architecture", name, {*_REGISTRY, *_BUILT_IN})
    cls, settings_class = _REGISTRY[name]
    return cls(make_settings(settings_class, settings))


def make_settings(settings_class: type[Settings], values: Mapping[str, Any]) -> Settings:
    """Build a settings dataclass from plain values; lists, as JSON has them, become tuples.

    Args:
        settings_class: a dataclass.
        values: field values by name.

    Returns:
        The settings.

    Raises:
        InvalidInputError: for a name that is not a field.
    """
    known = {f.name for f in dataclasses.fields(settings_class)}  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            raise unknown_name("setting", str(key), known)
    return settings_class(
        **{key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
    )
