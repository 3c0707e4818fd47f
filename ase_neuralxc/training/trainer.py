"""The training loop on stored densities: resumable at any moment, to the same bits.

A step takes the reaction energies of a batch with the energies of its species on their densities.
All randomness follows from the seed and the number of the epoch, and the state at the end of each
epoch is on disk: a run that was killed repeats the epoch it was in, and goes on as if nothing had
happened.
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
from tqdm import tqdm

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import functional_hash, load_checkpoint, load_functional
from ase_neuralxc.functional.architectures import build
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.training.compression import joined_densities
from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.folds import split
from ase_neuralxc.training.losses import ReactionLoss, error_scales
from ase_neuralxc.training.reactions import find_reactions, select_reactions

STATE = "state.pt"


@dataclass(frozen=True)
class EpochRecord:
    """One line of the history.

    Attributes:
        epoch: number, from 1.
        loss: mean loss of the steps.
        training_mae: of the averaged weights over all training reactions, kcal/mol.
        validation_mae: over the held-out reactions, kcal/mol; NaN if nothing is held out.
        learning_rate: at the end.
    """

    epoch: int
    loss: float
    training_mae: float
    validation_mae: float
    learning_rate: float


class Trainer:
    """Training of one functional.

    Args:
        config: all settings.

    Attributes:
        functional: the functional that is trained.
        averaged: its moving average, which is what is evaluated and kept.
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
        self.averaged = _start(config)
        self.table, self.training, self.validation = _data(config)
        names = [self.table.sets[i] for i in self.training]
        references = self.table.references.numpy()[self.training]
        self.loss = ReactionLoss(
            error_scales(names, references, config.loss_floor, config.loss_relative),
            Counter(names),
            config.huber,
            config.set_weights,
        )
        self.optimizer = torch.optim.AdamW(
            self.functional.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.history: list[EpochRecord] = []
        self.best: dict[str, Any] = _weights(self.averaged)
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
            record = self._epoch(len(self.history))
            self.history.append(record)
            error = record.validation_mae
            if math.isnan(error) or error < self.best_error:
                self.best_error = error
                self.best = _weights(self.averaged)
            self._save()
            report(record)
        self.averaged.load_state_dict(self.best)
        return self.averaged

    def penalty(self, batch: ReactionTable, epoch: int, step: int) -> Tensor | float:
        """What a kind of training adds to the loss of a batch; nothing here.

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

    def _epoch(self, number: int) -> EpochRecord:
        config = self.config
        order = np.random.default_rng((config.seed, number)).permutation(self.training)
        steps = math.ceil(len(order) / config.batch)
        losses = []
        with tqdm(total=steps, desc=f"epoch {number + 1}/{config.epochs}", leave=False) as bar:
            for step in range(steps):
                self._set_rate(number + step / steps)
                batch = self.table.subset(
                    order[step * config.batch : (step + 1) * config.batch].tolist()
                )
                self.optimizer.zero_grad()
                value = self.loss(
                    batch.reaction_energies(self.functional), batch.references, batch.sets
                )
                value = value + self.penalty(batch, number, step)
                value.backward()
                torch.nn.utils.clip_grad_norm_(self.functional.parameters(), config.clip)
                self.optimizer.step()
                self._average(number * steps + step)
                losses.append(float(value.detach()))
                bar.update()
                bar.set_postfix(loss=f"{np.mean(losses[-20:]):.3f}")
        return EpochRecord(
            epoch=number + 1,
            loss=float(np.mean(losses)),
            training_mae=self._mae(self.training),
            validation_mae=self._mae(self.validation),
            learning_rate=self.optimizer.param_groups[0]["lr"],
        )

    def _mae(self, indices: Sequence[int]) -> float:
        if not len(indices):
            return math.nan
        errors = self.energies(self.averaged, indices) - self.table.references.numpy()[indices]
        return float(np.abs(errors).mean())

    def _set_rate(self, epoch: float) -> None:
        config = self.config
        if epoch < config.warmup:
            factor = (epoch + 0.1) / (config.warmup + 0.1)
        else:
            done = (epoch - config.warmup) / max(config.epochs - config.warmup, 1e-9)
            factor = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        for group in self.optimizer.param_groups:
            group["lr"] = factor * config.learning_rate

    def _average(self, step: int) -> None:
        # early on the average must not remember where the run began
        decay = min(self.config.ema, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = zip(self.averaged.parameters(), self.functional.parameters(), strict=True)
            for mean, value in pairs:
                mean.lerp_(value, 1.0 - decay)

    def _exhausted(self) -> bool:
        errors = [r.validation_mae for r in self.history]
        if not errors or math.isnan(errors[-1]):
            return False
        return len(errors) - 1 - int(np.argmin(errors)) >= self.config.patience

    def _save(self) -> None:
        state = {
            "config": self.config.to_json(),
            "functional": self.functional.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
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
        self.functional.load_state_dict(state["functional"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
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
    """Basis of the prepared densities, from the first of them."""
    from ase_neuralxc.training.stored import SUFFIX, open_density

    for path in sorted((Path(config.densities) / "results").glob(f"*{SUFFIX}")):
        return str(open_density(path).fidelity.basis)
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
