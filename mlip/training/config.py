"""The configuration of a training run, read from one YAML file.

`examples/mlip_config.yaml` is the same with comments for people.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from ase_neuralxc.errors import unknown_name
from ase_neuralxc.settings import build_settings, read_settings
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
    old, new = build_config(read_settings(path)), build_config(read_settings(path, overrides))
    keys = [text.partition("=")[0] for text in overrides]
    changes = [f"{k}: {_lookup(old.as_dict(), k)} -> {_lookup(new.as_dict(), k)}" for k in keys]
    return new, changes


def build_config(values: Mapping[str, Any]) -> TrainConfig:
    """Configuration from nested mappings.

    Args:
        values: as in the file.

    Returns:
        The configuration.

    Raises:
        InvalidInputError: an unknown key or a value of the wrong type.
    """
    config = build_settings(TrainConfig, values)
    _check_model(config.model)
    return config


def _check_model(model: Mapping[str, Any]) -> None:
    from mlip.model.settings import ModelSettings

    known = [item.name for item in fields(ModelSettings)]
    for key in model:
        if key not in known:
            raise unknown_name("setting", f"model.{key}", [f"model.{name}" for name in known])


def _lookup(values: Mapping[str, Any], key: str) -> Any:
    found: Any = values
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None  # left to `build_config`, which knows what is valid there
        found = found[part]
    return found
