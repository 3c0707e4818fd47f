"""The training loop, and its state: a run that is killed continues to the same weights."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.records.files import atomic_write
from mlip.data.batching import order, pack
from mlip.model.potential import Potential
from mlip.training.distributed import Workers
from mlip.training.loss import Loss, wanted
from mlip.training.prepare import Prepared, build_potential
from mlip.training.schedule import MovingAverage, make_optimizer, rate
from mlip.training.settings import LossSettings, TrainConfig
from mlip.training.validation import load_for, validate

STATE_FILE = "state.pt"
STATE_VERSION = 3
#: Called as (epoch, epochs, message) after every step.
Progress = Callable[[int, int, str], None]


class Trainer:
    """One run, from its first step or from a stored state.

    Args:
        config: of the run.
        prepared: data and settings of the model.
        workers: processes that share the batches.

    Attributes:
        potential: with the weights of the last step.
        history: one row per validation.
        best: smallest validation loss and its epoch.
    """

    def __init__(self, config: TrainConfig, prepared: Prepared, workers: Workers) -> None:
        self.config, self.prepared, self.workers = config, prepared, workers
        self.folder = Path(config.out)
        if config.deterministic:
            torch.use_deterministic_algorithms(True)
        self.potential = build_potential(prepared, config).to(workers.device)
        self._trained: list[Tensor] = [p for p in self.potential.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(self.potential, config.optimizer)
        self.average = MovingAverage(self._trained, config.optimizer.ema)
        self.history: list[dict[str, float]] = []
        self.best: dict[str, float] = {"loss": float("inf"), "epoch": -1.0}
        self._best_weights = [p.clone() for p in self.average.average]
        self._epoch, self._step, self._seconds = 0, 0, 0.0
        self._plateau = {"scale": 1.0, "bad": 0.0, "loss": float("inf")}
        self._running = torch.zeros(2, dtype=torch.float64)  # sum of losses, steps
        self._saved = time.monotonic()

    @property
    def epoch(self) -> int:
        """Epochs that are complete."""
        return self._epoch

    @property
    def done(self) -> bool:
        """Whether the run has nothing left to do."""
        patience = self.config.early_stopping
        if patience is not None and self.history:
            since = (self._epoch - self.best["epoch"]) / self.config.validate_every
            # a stage that has not begun yet may still improve
            if since > patience and self._stage(self._epoch) == self._last_stage:
                return True
        return self._epoch >= self.config.epochs

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end.

        Args:
            progress: called after every step.

        Raises:
            InvalidInputError: the loss is no longer finite.
        """
        started = time.monotonic() - self._seconds
        while not self.done:
            settings = self._loss_settings(self._epoch)
            indices = order(len(self.prepared.train), self.config.seed, self._epoch)
            batches = pack(indices, self.prepared.train, self.config.batch)
            while self._step < len(batches):
                place = (self._epoch + self._step / len(batches)) / self.config.epochs
                loss = self._train_step(batches[self._step], settings, place)
                self._step += 1
                self._seconds = time.monotonic() - started
                if progress is not None and self.workers.leads:
                    progress(self._epoch, self.config.epochs, self._message(loss))
                if time.monotonic() - self._saved > 60.0 * self.config.checkpoint_minutes:
                    self.save()
            self._epoch, self._step = self._epoch + 1, 0
            if self._epoch % self.config.validate_every == 0 or self._epoch == self.config.epochs:
                self._validate(settings)
                self.save()

    def final_potential(self) -> Potential:
        """The potential with the weights that are kept, in evaluation mode."""
        last = self.config.keep == "last" or not np.isfinite(self.best["loss"])
        weights = self.average.average if last else self._best_weights
        with torch.no_grad():
            torch._foreach_copy_(self._trained, weights)
        return self.potential.eval()

    def _train_step(self, indices: Any, settings: LossSettings, place: float) -> float:
        factor = rate(self.config.schedule, place) * self._plateau["scale"]
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.optimizer.lr * factor
        self.optimizer.zero_grad(set_to_none=True)
        loss_function = Loss(settings)
        share = self.workers.share(indices)
        terms: dict[str, tuple[Tensor, Tensor]] = {}
        if len(share):
            item = load_for(self.prepared.train, share, settings, self.workers)
            self.potential.train()
            terms = loss_function.sums(self.potential(item.graph, wanted(settings)), item)
        loss = self._backward(loss_function, terms)
        if not np.isfinite(loss):
            raise InvalidInputError(
                f"loss: not finite at epoch {self._epoch}, step {self._step}; lower optimizer.lr "
                f"({self.config.optimizer.lr:g}) or look for outliers with `mlip check`"
            )
        self.workers.sum_gradients(self._trained)
        if self.config.optimizer.clip is not None:
            torch.nn.utils.clip_grad_norm_(self._trained, self.config.optimizer.clip)
        self.optimizer.step()
        self.average.update()
        self._running += torch.tensor([loss, 1.0], dtype=torch.float64)
        return loss

    def _backward(self, function: Loss, terms: dict[str, tuple[Tensor, Tensor]]) -> float:
        """Gradients of this process's share of the loss; returns the loss of the whole batch."""
        names = [name for name, weight in function.settings.weights.items() if weight]
        names += ["uncertainty"] * bool(function.settings.uncertainty)
        zero = torch.zeros((), dtype=torch.float64, device=self.workers.device)
        pairs = {name: terms.get(name, (zero, zero)) for name in names}
        counts = self.workers.sum(torch.stack([count for _, count in pairs.values()]))
        shared = {
            name: (value, count)
            for (name, (value, _)), count in zip(pairs.items(), counts, strict=True)
        }
        total = function.total(shared)
        if total.requires_grad:
            total.backward()
        return float(self.workers.sum(total.detach().clone()))

    @property
    def _last_stage(self) -> int:
        return int(self.config.second_stage is not None)

    def _stage(self, epoch: int) -> int:
        second = self.config.second_stage
        return int(second is not None and epoch >= round(second.start * self.config.epochs))

    def _loss_settings(self, epoch: int) -> LossSettings:
        second = self.config.second_stage
        if second is not None and self._stage(epoch):
            if not self._stage(epoch - 1) and self._step == 0:
                # losses of stages do not compare
                self.best = {"loss": float("inf"), "epoch": float(epoch)}
            return second.loss
        return self.config.loss

    def _validate(self, settings: LossSettings) -> None:
        row = {"epoch": float(self._epoch), "seconds": self._seconds}
        row["lr"] = self.optimizer.param_groups[0]["lr"]
        row["train_loss"] = float(self._running[0] / self._running[1].clamp(min=1.0))
        self._running.zero_()
        with self.average.applied():
            row.update(
                validate(self.potential, self.prepared.valid, settings, self.config, self.workers)
            )
        self.history.append(row)
        if row["valid_loss"] < self.best["loss"]:
            self.best = {"loss": row["valid_loss"], "epoch": float(self._epoch)}
            self._best_weights = [p.clone() for p in self.average.average]
        self._step_plateau(row["valid_loss"])

    def _step_plateau(self, loss: float) -> None:
        schedule, plateau = self.config.schedule, self._plateau
        if schedule.kind != "plateau":
            return
        if loss < plateau["loss"] * (1.0 - 1e-4):
            plateau.update(loss=loss, bad=0.0)
            return
        plateau["bad"] += 1
        if plateau["bad"] > schedule.patience:
            plateau.update(scale=max(plateau["scale"] * schedule.factor, schedule.final), bad=0.0)

    def _message(self, loss: float) -> str:
        message = f"loss {loss:.3g}"
        if self.history:
            last = self.history[-1]
            for name in ("energy", "forces"):
                if f"{name}_mae" in last:
                    message += f", {name[0].upper()} {1000 * last[f'{name}_mae']:.1f}"
            message += " meV"
        return message

    def save(self) -> None:
        """Write the state of the run, at once or not at all."""
        self._saved = time.monotonic()
        if not self.workers.leads:
            return
        state = {
            "version": STATE_VERSION,
            "fingerprint": self.prepared.fingerprint,
            "epoch": self._epoch,
            "step": self._step,
            "seconds": self._seconds,
            "model": self.potential.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.average,
            "average_steps": self.average.steps,
            "best": self.best,
            "best_weights": self._best_weights,
            "history": self.history,
            "plateau": self._plateau,
            "running": self._running,
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        atomic_write(self.folder / STATE_FILE, buffer.getvalue())

    def restore(self) -> None:
        """Continue from the state in the folder of the run.

        Raises:
            CheckpointError: no state, a damaged one, one of another version, or of other data.
        """
        path = self.folder / STATE_FILE
        try:
            state = torch.load(path, map_location=self.workers.device, weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path}: cannot read the state of a run: {error}") from error
        if state["version"] != STATE_VERSION:
            raise CheckpointError(
                f"{path}: expected the state of version {STATE_VERSION} of the program, got "
                f"version {state['version']}; finish the run with that program or start it anew"
            )
        if state["fingerprint"] != self.prepared.fingerprint:
            raise CheckpointError(f"{path}: the data are not those the run was started with")
        try:
            self.potential.load_state_dict(state["model"])
        except RuntimeError as error:
            raise CheckpointError(
                f"{path}: the weights are of another version of the program; finish the run with "
                f"that one or start it anew: {error}"
            ) from error
        self.optimizer.load_state_dict(state["optimizer"])
        self.average.average = list(state["average"])
        self.average.steps = state["average_steps"]
        self.best, self._best_weights = state["best"], list(state["best_weights"])
        self.history, self._plateau = state["history"], state["plateau"]
        self._running = state["running"].cpu()
        self._epoch, self._step = state["epoch"], state["step"]
        self._seconds = state["seconds"]
        torch.set_rng_state(state["torch_rng"].cpu())
        if state["cuda_rng"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all([value.cpu() for value in state["cuda_rng"]])
