"""Settings of a training run, read from one YAML file with overrides from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.settings import build_settings, read_settings

OPTIMIZERS = ("adamw", "gauss-newton")
#: Weights of what only Gauss-Newton adds to the loss.
_PENALTIES = ("prior", "smoothness", "kinetic_potential", "base_distance")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that a run depends on besides the densities themselves.

    Attributes:
        data: files and folders of reactions (JSON lines).
        densities: folder of prepared densities (`scripts/prepare_xc.py`).
        out: folder of the run.
        name: of the functional.
        architecture: "neural-semilocal", "coefficient" or (nonlocal) "moments".
        settings: of the architecture, by name.
        start: checkpoint whose weights are the start, or None.
        dispersion: stored dispersion energy that is part of the model, or None.
        leave_out: sets that are not trained on.
        largest_reference: reactions with a larger reference in kcal/mol are left out, or None.
        validation_set: set whose species are held out by folds.
        folds: number of folds of that set's species.
        fold: the fold that is held out, or None to train on everything and hold out nothing.
        optimizer: "gauss-newton" (`training.gauss_newton`) or "adamw".
        epochs: of the training; one of Gauss-Newton is one step.
        average: of Gauss-Newton: the weights that are kept are the mean of those after so many
            last epochs.
        damping: of the first step of Gauss-Newton, which then follows its success.
        prior: of Gauss-Newton: half of it times the squared distance to the first weights is added
            to the loss.
        smoothness: of Gauss-Newton: half of it times the mean square of the second differences of
            the networks (`training.smoothness`) is added to the loss.
        kinetic_potential: of Gauss-Newton: half of it times the mean square difference of
            d e_xc / d tau to that of the base (`training.base_penalties`) is added to the loss.
        base_distance: of Gauss-Newton: half of it times the mean square differences of exchange and
            of correlation to those of the base (`training.base_penalties`) is added to the loss.
        grid_noise: of Gauss-Newton: folders of densities of the species of `fine_densities` on
            coarser grids, with weights: half of the weight times the mean square difference of
            their energies in kcal/mol is added to the loss (`training.grid_noise`).
        fine_densities: folder of densities of some species on a fine grid, or None.
        batch: reactions per step of AdamW, which the five after this belong to as well.
        learning_rate: at its highest.
        warmup: epochs of linear growth of the learning rate, before its cosine decay.
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        ema: decay of the averaged weights per step.
        patience: epochs without a better validation error after which to stop.
        loss_floor: kcal/mol; an error of a set counts relative to the larger of this and
            `loss_root` times the root of the mean size of its references in kcal/mol.
        loss_root: see above.
        huber: in units of that scale: errors beyond it count linearly.
        set_weights: factor of the loss of single sets, by name.
        seed: of batches and folds.
        compress: train on joined points (`training.compression`) instead of all; must be false
            for a nonlocal architecture.
        threads: of torch.
    """

    data: tuple[str, ...]
    densities: str
    out: str
    name: str = "neural"
    architecture: str = "neural-semilocal"
    settings: Mapping[str, Any] = field(default_factory=dict)
    start: str | None = None
    dispersion: str | None = "d4(r2scan)"
    leave_out: tuple[str, ...] = ()
    largest_reference: float | None = None
    validation_set: str = "W4-17"
    folds: int = 5
    fold: int | None = 0
    optimizer: str = "gauss-newton"
    epochs: int = 60
    average: int = 1
    damping: float = 0.3
    prior: float = 0.0
    smoothness: float = 0.0
    kinetic_potential: float = 0.0
    base_distance: float = 0.0
    grid_noise: Mapping[str, float] = field(default_factory=dict)
    fine_densities: str | None = None
    batch: int = 16
    learning_rate: float = 2e-3
    warmup: float = 2.0
    weight_decay: float = 1e-5
    clip: float = 1.0
    ema: float = 0.99
    patience: int = 20
    loss_floor: float = 0.1
    loss_root: float = 0.12
    huber: float = 2.0
    set_weights: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    compress: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        for name in ("folds", "epochs", "average", "batch", "patience", "threads"):
            _require(name, getattr(self, name) >= 1, "at least 1", getattr(self, name))
        for name in ("damping", "learning_rate", "clip", "loss_floor", "huber"):
            _require(name, getattr(self, name) > 0, "a positive number", getattr(self, name))
        _require("ema", 0 <= self.ema < 1, "a number from 0 to below 1", self.ema)
        for name in _PENALTIES:
            value = getattr(self, name)
            _require(name, value >= 0, "a number that is not negative", value)
        for folder, weight in self.grid_noise.items():
            right = isinstance(weight, int | float) and weight >= 0
            _require(f"grid_noise of {folder!r}", right, "a number that is not negative", weight)
        if self.grid_noise and self.fine_densities is None:
            raise InvalidInputError(
                "fine_densities: expected the folder that grid_noise is compared with, got None"
            )
        if self.optimizer not in OPTIMIZERS:
            raise unknown_name("optimizer", self.optimizer, OPTIMIZERS)
        penalties = [name for name in (*_PENALTIES, "grid_noise") if getattr(self, name)]
        if self.optimizer == "adamw" and penalties:
            raise InvalidInputError(
                f"optimizer: expected 'gauss-newton' with {', '.join(penalties)}, got 'adamw'"
            )
        held = self.fold is None or 0 <= self.fold < self.folds
        _require("fold", held, f"None or a number below {self.folds}", self.fold)
        _require("data", len(self.data) > 0, "at least one path", self.data)

    def to_json(self) -> str:
        """All settings as sorted JSON: the same text for the same run."""
        return json.dumps(asdict(self), sort_keys=True)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read the configuration of a training run.

    Args:
        path: YAML file.
        overrides: "key=value" pairs, values in YAML; "settings.width=32" goes down.

    Returns:
        The settings.

    Raises:
        InvalidInputError: the file cannot be read, a key is unknown (with the nearest one) or of
            the wrong type.
    """
    return build_settings(TrainingConfig, read_settings(path, overrides))


def _require(name: str, holds: bool, expected: str, value: Any) -> None:
    if not holds:
        raise InvalidInputError(f"{name}: expected {expected}, got {value!r}")
