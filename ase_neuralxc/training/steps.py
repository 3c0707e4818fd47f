"""Stochastic steps of AdamW over batches of reactions, with averaged weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.losses import ReactionLoss

#: What a kind of training adds to the loss of a batch: (batch, epoch, step within it) -> scalar.
Penalty = Callable[[ReactionTable, int, int], Tensor | float]


@dataclass(frozen=True)
class EpochResult:
    """What an epoch leaves.

    Attributes:
        loss: of the training reactions, mean over the epoch's steps.
        rate: learning rate at its end, or the damping of Gauss-Newton steps.
        energies: [m] reaction energies of the whole table in kcal/mol, with the averaged weights.
        finished: no further epoch would change anything.
    """

    loss: float
    rate: float
    energies: NDArray
    finished: bool = False


class Steps(Protocol):
    """A way to train: what `Trainer` calls once per epoch.

    Attributes:
        averaged: the functional with the weights that are evaluated and kept.
    """

    averaged: Any

    def epoch(self, number: int) -> EpochResult:
        """Do the epoch of a number, from 0."""

    def state_dict(self) -> dict[str, Any]:
        """All that the next epoch depends on besides the settings."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to such a state."""


class StochasticSteps:
    """AdamW on batches in random order; the order follows from the seed and the epoch's number.

    Args:
        config: settings of the run.
        functional: is trained in place.
        table: all reactions.
        training: indices of the training reactions.
        loss: of reaction energies.
        penalty: is added to it.

    Attributes:
        averaged: exponential moving average of the weights.
    """

    def __init__(
        self,
        config: TrainingConfig,
        functional: Any,
        table: ReactionTable,
        training: Sequence[int],
        loss: ReactionLoss,
        penalty: Penalty,
    ) -> None:
        self.config, self.functional, self.table = config, functional, table
        self.training, self.loss, self.penalty = training, loss, penalty
        self.averaged = copy.deepcopy(functional)
        self.optimizer = torch.optim.AdamW(
            functional.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def epoch(self, number: int) -> EpochResult:
        """Go once over all training reactions (see `Steps`)."""
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
        with torch.no_grad():
            energies = self.table.reaction_energies(self.averaged).numpy()
        rate = self.optimizer.param_groups[0]["lr"]
        return EpochResult(float(np.mean(losses)), rate, energies)

    def state_dict(self) -> dict[str, Any]:
        """Both sets of weights and the optimiser (see `Steps`)."""
        return {
            "functional": self.functional.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state (see `Steps`)."""
        self.functional.load_state_dict(state["functional"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])

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
