"""The settings of a training run: frozen records with their defaults and bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ase_neuralxc.errors import InvalidInputError, unknown_name
from mlip.data.batching import BatchSettings
from mlip.data.structure import DataKeys


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


#: Decay of the averages of gradients and of their squares.
BETAS = {"soap": (0.95, 0.95), "adamw": (0.9, 0.999)}


@dataclass(frozen=True)
class OptimizerSettings:
    """The optimiser and what goes with it.

    Attributes:
        kind: "soap" (`mlip.training.soap`) or "adamw", which wants a smaller rate (0.01).
        lr: largest learning rate.
        weight_decay: of weight matrices (not of biases).
        betas: decay of the moving averages of gradients and of their squares; None for (0.95, 0.95)
            of SOAP and (0.9, 0.999) of AdamW.
        amsgrad: keep the largest second moment, of AdamW.
        clip: largest norm of the gradient, None for no limit.
        ema: decay of the moving average of the weights, per step; it is what is evaluated and
            kept. 0 for none.
    """

    kind: Literal["soap", "adamw"] = "soap"
    lr: float = 0.015
    weight_decay: float = 0.0
    betas: tuple[float, float] | None = None
    amsgrad: bool = False
    clip: float | None = 10.0
    ema: float = 0.99

    def __post_init__(self) -> None:
        _require_in("optimizer.kind", self.kind, tuple(BETAS))
        betas = BETAS[self.kind] if self.betas is None else tuple(self.betas)
        valid = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
        _require(valid, "optimizer.betas", "two numbers in [0, 1)", betas)
        object.__setattr__(self, "betas", betas)
        _require(self.weight_decay >= 0, "optimizer.weight_decay", ">= 0", self.weight_decay)
        if self.amsgrad and self.kind != "adamw":
            raise InvalidInputError(f"optimizer.amsgrad: of adamw, got kind {self.kind!r}")
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
