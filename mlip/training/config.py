"""The configuration of a training run: frozen records, read from one YAML file.

`examples/mlip_config.yaml` is the same with comments for people. A key that does not exist is an
error with the nearest name; nothing is ignored silently.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from ase_neuralxc.errors import InvalidInputError, unknown_name
from mlip.data.batching import BatchSettings
from mlip.data.structure import DataKeys

#: Fields of `ModelSettings` that follow from the data unless they are given.
FROM_DATA = ("elements", "average_neighbours", "energy_scale", "fidelities")


@dataclass(frozen=True)
class DataSettings:
    """Which data.

    Attributes:
        train: files: extended XYZ, ASE databases, campaign folders, or one .graphs file.
        valid: files of the validation part; none takes `valid_fraction` of `train`.
        test: files that are only evaluated at the end.
        train_size: train on so many structures of `train`, drawn with the seed; None for all that
            are not held back.
        valid_size: structures of `train` that are held back where `valid` is empty; None for
            `valid_fraction` of them.
        valid_fraction: see `valid_size`.
        keys: names of the labels in the files.
        reference_energies: "fit", "isolated", "none", or symbols with energies in eV.
        fidelity: "single" refuses a mixture of levels of theory, "conditioned" makes the level an
            input of the model, "references" gives each level reference energies of its own and
            nothing else.
        energy_reference: what the energies mean, in words, for the model's card and `repr`.
    """

    train: tuple[str, ...] = ()
    valid: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    train_size: int | None = None
    valid_size: int | None = None
    valid_fraction: float = 0.1
    keys: DataKeys = field(default_factory=DataKeys)
    reference_energies: str | Mapping[str, float] = "fit"
    fidelity: Literal["single", "conditioned", "references"] = "single"
    energy_reference: str = ""

    def __post_init__(self) -> None:
        for name in ("train", "valid", "test"):
            value = getattr(self, name)
            paths = (value,) if isinstance(value, str) else tuple(value)
            object.__setattr__(self, name, paths)
        if not 0.0 < self.valid_fraction < 1.0:
            raise InvalidInputError(
                f"data.valid_fraction: expected between 0 and 1, got {self.valid_fraction!r}"
            )


@dataclass(frozen=True)
class LossSettings:
    """What is minimised: weights times mean losses over what is labelled.

    Attributes:
        kind: "mse"; "huber" (quadratic below `huber_delta`, linear above); "mae"; "norm" (mean
            length of the error of a vector; "mae" for numbers).
        huber_delta: in eV per atom, eV/Angstrom, ...
        energy: weight of the energy per atom (eV).
        forces: weight of the forces (eV/Angstrom).
        stress: weight of the stress (eV/Angstrom^3).
        magmoms: weight of the moments (mu_B).
        magnetic_forces: weight of -dE/dm (eV/mu_B).
        uncertainty: weight of the likelihood of the energies under the spread of the readouts,
            which makes the spread an error estimate.
    """

    kind: Literal["mse", "huber", "mae", "norm"] = "huber"
    huber_delta: float = 0.01
    energy: float = 1.0
    forces: float = 10.0
    stress: float = 0.0
    magmoms: float = 0.0
    magnetic_forces: float = 0.0
    uncertainty: float = 0.0

    def __post_init__(self) -> None:
        _require_in("loss.kind", self.kind, ("mse", "huber", "mae", "norm"))
        _require(self.huber_delta > 0, "loss.huber_delta", "> 0", self.huber_delta)
        for name in WEIGHTS:
            _require(getattr(self, name) >= 0, f"loss.{name}", ">= 0", getattr(self, name))
        if not any(getattr(self, name) for name in WEIGHTS[:-1]):
            raise InvalidInputError("loss: expected a weight above 0, got none")

    @property
    def weights(self) -> dict[str, float]:
        """Weights by label."""
        return {name: getattr(self, name) for name in WEIGHTS[:-1]}


WEIGHTS = ("energy", "forces", "stress", "magmoms", "magnetic_forces", "uncertainty")


@dataclass(frozen=True)
class SecondStage:
    """A last part of the training with other weights.

    Attributes:
        start: the fraction of the epochs after which it begins.
        loss: weights and kind of loss from then on.
    """

    start: float = 0.75
    loss: LossSettings = field(default_factory=lambda: LossSettings(energy=10.0, forces=10.0))

    def __post_init__(self) -> None:
        _require(0 < self.start < 1, "second_stage.start", "between 0 and 1", self.start)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW and what goes with it.

    Attributes:
        lr: largest learning rate.
        weight_decay: of weight matrices (not of biases).
        betas: of the moving averages of Adam.
        amsgrad: keep the largest second moment.
        clip: largest norm of the gradient, None for no limit.
        ema: decay of the moving average of the weights, per step; it is what is evaluated and
            kept. 0 for none.
    """

    lr: float = 0.01
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    amsgrad: bool = False
    clip: float | None = 10.0
    ema: float = 0.99

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        _require(self.lr > 0, "optimizer.lr", "> 0", self.lr)
        _require(0 <= self.ema < 1, "optimizer.ema", "in [0, 1)", self.ema)
        _require(self.clip is None or self.clip > 0, "optimizer.clip", "> 0 or none", self.clip)


@dataclass(frozen=True)
class ScheduleSettings:
    """Learning rate over the run.

    Attributes:
        kind: "cosine" or "exponential" (from lr to `final` lr), "plateau" (times `factor` after
            `patience` validations without improvement), "constant".
        warmup: fraction of the steps in which the rate rises linearly to lr.
        final: last rate by lr.
        factor: of "plateau".
        patience: validations, of "plateau".
    """

    kind: Literal["cosine", "exponential", "plateau", "constant"] = "cosine"
    warmup: float = 0.02
    final: float = 1e-3
    factor: float = 0.5
    patience: int = 10

    def __post_init__(self) -> None:
        kinds = ("cosine", "exponential", "plateau", "constant")
        _require_in("schedule.kind", self.kind, kinds)
        _require(0 <= self.warmup < 1, "schedule.warmup", "in [0, 1)", self.warmup)
        _require(0 < self.final <= 1, "schedule.final", "in (0, 1]", self.final)
        _require(0 < self.factor < 1, "schedule.factor", "between 0 and 1", self.factor)


@dataclass(frozen=True)
class TrainConfig:
    """A training run.

    Attributes:
        out: folder of the run.
        seed: of weights, splits and batches.
        epochs: passes over the training data.
        validate_every: epochs between validations.
        checkpoint_minutes: longest time between two states that `mlip resume` can continue from;
            one is also written at every validation.
        early_stopping: stop after so many validations without improvement, None for never.
        keep: the model that is kept: of the "best" validation or of the "last" epoch.
        start: file of a trained model whose settings and weights the run starts from; None for
            random weights.
        device: torch device.
        dtype: "float32" or "float64", of weights and features; energies are summed in float64.
        deterministic: refuse operations whose result depends on the order of threads.
        data: which data.
        model: fields of `ModelSettings`; those that follow from the data may be left out.
        batch: size of a batch.
        loss: what is minimised.
        second_stage: a last part with other weights, None for none.
        optimizer: how.
        schedule: learning rate over the run.
    """

    out: str = "run"
    seed: int = 0
    epochs: int = 500
    validate_every: int = 5
    checkpoint_minutes: float = 5.0
    early_stopping: int | None = None
    keep: Literal["best", "last"] = "best"
    start: str | None = None
    device: str = "cpu"
    dtype: Literal["float32", "float64"] = "float32"
    deterministic: bool = False
    data: DataSettings = field(default_factory=DataSettings)
    model: Mapping[str, Any] = field(default_factory=dict)
    batch: BatchSettings = field(default_factory=BatchSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    second_stage: SecondStage | None = None
    optimizer: OptimizerSettings = field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)

    def __post_init__(self) -> None:
        _require_in("keep", self.keep, ("best", "last"))
        _require_in("dtype", self.dtype, ("float32", "float64"))
        _require(self.epochs >= 1, "epochs", ">= 1", self.epochs)
        _require(self.validate_every >= 1, "validate_every", ">= 1", self.validate_every)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        plain: dict[str, Any] = _plain(dataclasses.asdict(self))
        return plain


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


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _require(condition: bool, name: str, expected: str, value: Any) -> None:
    if not condition:
        raise InvalidInputError(f"{name}: expected {expected}, got {value!r}")


def _require_in(name: str, value: str, valid: Sequence[str]) -> None:
    if value not in valid:
        raise unknown_name(name, str(value), valid)
