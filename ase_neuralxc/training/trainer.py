"""The training loop on stored densities: resumable at any moment, to the same bits.

Reaction energies come from the energies of the species on their densities; what an epoch does with
them is the affair of `steps` (AdamW on batches) or `gauss_newton`. All randomness follows from the
seed and the number of the epoch, and the state at the end of each epoch is on disk: a run that was
killed repeats the epoch it was in, and goes on as if nothing had happened.
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import functional_hash, load_checkpoint, load_functional
from ase_neuralxc.functional.architectures import build
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.training.compression import joined_densities
from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.folds import split
from ase_neuralxc.training.gauss_newton import GaussNewtonSteps
from ase_neuralxc.training.losses import ReactionLoss, error_scales
from ase_neuralxc.training.reactions import find_reactions, select_reactions
from ase_neuralxc.training.steps import EpochResult, Steps, StochasticSteps

STATE = "state.pt"


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history.

    Attributes:
        epoch: number, from 1.
        loss: mean loss of the steps.
        training_mae: of the averaged weights over all training reactions, kcal/mol.
        validation_mae: over the held-out reactions, kcal/mol; NaN if nothing is held out.
        rate: learning rate at the end, or the damping of Gauss-Newton steps.
    """

    epoch: int
    loss: float
    training_mae: float
    validation_mae: float
    rate: float


class Trainer:
    """Training of one functional.

    Args:
        config: all settings.

    Attributes:
        functional: the functional that is trained.
        steps: how it is trained; `steps.averaged` is what is evaluated and kept.
        table: all reactions whose densities are there.
        training: indices of the training reactions in the table.
        validation: indices of the held-out reactions.
        history: one record per epoch.
        best: weights of the best epoch.
    """

    def __init__(self, config: TrainingConfig) -> None:
        torch.set_num_threads(config.threads)
        self.config = config
        self.out = Path(config.out)
        self.functional = _start(config)
        self.table, self.training, self.validation = _data(config)
        names = [self.table.sets[i] for i in self.training]
        references = self.table.references.numpy()[self.training]
        self.loss = ReactionLoss(
            error_scales(names, references, config.loss_floor, config.loss_root),
            Counter(names),
            config.huber,
            config.set_weights,
        )
        self.steps = self._make_steps()
        self.history: list[EpochRecord] = []
        self.best: dict[str, Any] = _weights(self.steps.averaged)
        self.best_error = math.inf
        if (self.out / STATE).exists():
            self._restore()

    def run(self, report: Callable[[EpochRecord], None] = lambda record: None) -> XCFunctional:
        """Train to the end, or from where an earlier run stopped.

        Args:
            report: called after each epoch.

        Returns:
            The functional with the averaged weights of its best epoch.
        """
        self.out.mkdir(parents=True, exist_ok=True)
        while len(self.history) < self.config.epochs and not self._exhausted():
            result = self.steps.epoch(len(self.history))
            record = self._record(result)
            self.history.append(record)
            error = record.validation_mae
            if math.isnan(error) or error < self.best_error:
                self.best_error = error
                self.best = _weights(self.steps.averaged)
            self._save()
            report(record)
            if result.finished:
                break
        averaged: XCFunctional = self.steps.averaged
        self.steps.averaged.load_state_dict(self.best)
        return averaged

    def penalty(self, batch: ReactionTable, epoch: int, step: int) -> Tensor | float:
        """What a kind of training adds to the loss of a batch of AdamW; nothing here.

        Args:
            batch: the reactions of the step.
            epoch: number, from 0.
            step: number within the epoch; randomness must follow from the three numbers of seed,
                epoch and step alone.

        Returns:
            A scalar.
        """
        return 0.0

    def energies(self, functional: XCFunctional, indices: Sequence[int]) -> NDArray:
        """Reaction energies of some reactions of the table, [m] in kcal/mol."""
        if not len(indices):
            return np.zeros(0)
        with torch.no_grad():
            return self.table.subset(indices).reaction_energies(functional).numpy()

    def _make_steps(self) -> Steps:
        shared = self.config, self.functional, self.table, self.training, self.loss
        if self.config.optimizer == "adamw":
            return StochasticSteps(*shared, self.penalty)
        return GaussNewtonSteps(*shared)

    def _record(self, result: EpochResult) -> EpochRecord:
        errors = np.abs(result.energies - self.table.references.numpy())
        held = errors[self.validation]
        return EpochRecord(
            epoch=len(self.history) + 1,
            loss=result.loss,
            training_mae=float(errors[self.training].mean()),
            validation_mae=float(held.mean()) if held.size else math.nan,
            rate=result.rate,
        )

    def _exhausted(self) -> bool:
        errors = [r.validation_mae for r in self.history]
        if not errors or math.isnan(errors[-1]):
            return False
        return len(errors) - 1 - int(np.argmin(errors)) >= self.config.patience

    def _save(self) -> None:
        state = {
            "config": self.config.to_json(),
            "steps": self.steps.state_dict(),
            "best": self.best,
            "best_error": self.best_error,
            "history": [asdict(r) for r in self.history],
        }
        partial = self.out / f"{STATE}.{os.getpid()}.tmp"
        torch.save(state, partial)
        os.replace(partial, self.out / STATE)
        with (self.out / "history.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, asdict(self.history[0]))
            writer.writeheader()
            writer.writerows(asdict(r) for r in self.history)

    def _restore(self) -> None:
        state = torch.load(self.out / STATE, weights_only=True)
        if state["config"] != self.config.to_json():
            found, wanted = json.loads(state["config"]), json.loads(self.config.to_json())
            differing = sorted(k for k in wanted if found.get(k) != wanted[k])
            raise InvalidInputError(
                f"out: expected a run with the same settings in {str(self.out)!r}, got other "
                f"{', '.join(differing)}; use another folder"
            )
        self.steps.load_state_dict(state["steps"])
        self.best, self.best_error = state["best"], state["best_error"]
        self.history = [EpochRecord(**record) for record in state["history"]]


def _start(config: TrainingConfig) -> Any:
    functional: Any
    if config.start is not None:
        functional = load_checkpoint(config.start)
    else:
        functional = build(config.architecture, config.settings)
    if config.compress and not isinstance(functional, SemilocalFunctional):
        raise InvalidInputError(
            f"compress: expected false for {config.architecture!r}, which is nonlocal and needs "
            f"the points themselves, got true"
        )
    functional.name = config.name
    return functional


def _weights(module: nn.Module) -> dict[str, Any]:
    return {key: value.clone() for key, value in module.state_dict().items()}


def _data(config: TrainingConfig) -> tuple[ReactionTable, list[int], list[int]]:
    """Table of all usable reactions, and which of them are for training and validation."""
    sets = find_reactions(config.data)
    for name in config.leave_out:
        if name not in {one.name for one in sets}:
            known = ", ".join(sorted(one.name for one in sets))
            raise InvalidInputError(f"leave_out: expected names of sets ({known}), got {name!r}")
    sets = [one for one in sets if one.name not in config.leave_out]
    parts = split(sets, config.validation_set, config.folds, config.fold, config.seed)
    table = ReactionTable.load(
        select_reactions(sets, _basis(config)), config.densities, config.dispersion
    )
    if config.compress:
        starting = _starting_functional(table, config)
        table = table.with_densities(joined_densities(config.densities, table.densities, starting))
    entries = list(zip(table.sets, (r.name for r in table.reactions), strict=True))
    training_names, validation_names = set(parts.training), set(parts.validation)
    largest = math.inf if config.largest_reference is None else config.largest_reference
    small = (table.references.abs() <= largest).tolist()
    training = [i for i, e in enumerate(entries) if e in training_names and small[i]]
    validation = [i for i, e in enumerate(entries) if e in validation_names]
    if not training:
        raise InvalidInputError("data: expected reactions to train on, got none")
    return table, training, validation


def _basis(config: TrainingConfig) -> str:
    """Basis of the prepared densities, from the first of a molecule."""
    from ase_neuralxc.training.stored import SUFFIX, open_density

    for path in sorted((Path(config.densities) / "results").glob(f"*{SUFFIX}")):
        density = open_density(path)
        if density.species.cell is None:
            return str(density.fidelity.basis)
    raise InvalidInputError(
        f"densities: expected prepared densities in {config.densities!r}, got none"
    )


def _starting_functional(table: ReactionTable, config: TrainingConfig) -> SemilocalFunctional:
    """Torch form of the functional that made the densities: a known one, or the run's own start."""
    made_by = table.densities[0].fidelity
    name = made_by.functional.removeprefix("libxc:")
    functional: Any
    if config.start is not None:
        functional = load_checkpoint(config.start)
        if functional_hash(functional) == made_by.functional_hash:
            return functional
    functional = load_functional(name)
    if not isinstance(functional, SemilocalFunctional):
        raise InvalidInputError(f"densities: expected a semi-local start, got {name!r}")
    return functional
