"""The learning rate as a function of progress, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mlip.training.settings import OptimizerSettings, ScheduleSettings
from mlip.training.soap import SOAP


def rate(settings: ScheduleSettings, progress: float) -> float:
    """Learning rate by its largest value, before any plateau.

    Args:
        settings: the schedule.
        progress: fraction of the run that is done, in [0, 1].

    Returns:
        A factor in (0, 1].
    """
    if progress < settings.warmup:
        return max(progress / settings.warmup, 1e-3)
    done = (progress - settings.warmup) / (1.0 - settings.warmup)
    if settings.kind == "cosine":
        return settings.final + (1.0 - settings.final) * 0.5 * (1.0 + math.cos(math.pi * done))
    if settings.kind == "exponential":
        return float(settings.final**done)
    return 1.0


def make_optimizer(module: nn.Module, settings: OptimizerSettings) -> torch.optim.Optimizer:
    """SOAP or AdamW, which spare vectors from weight decay.

    Args:
        module: whose parameters are trained.
        settings: of the optimiser.

    Returns:
        The optimiser.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    assert settings.betas is not None
    if settings.kind == "soap":
        return SOAP(groups, lr=settings.lr, betas=settings.betas)
    return torch.optim.AdamW(
        groups, lr=settings.lr, betas=settings.betas, amsgrad=settings.amsgrad, fused=True
    )


class MovingAverage:
    """Exponential moving average of parameters.

    The decay rises from small values in the first steps, so that the average does not remember
    the random weights of the start.

    Args:
        parameters: to follow.
        decay: per step; 0 follows exactly.
    """

    def __init__(self, parameters: Iterable[Tensor], decay: float) -> None:
        self._parameters = list(parameters)
        self._decay = decay
        self.steps = 0
        self.average = [p.detach().clone() for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take the parameters as they are now into the average."""
        self.steps += 1
        decay = min(self._decay, (1.0 + self.steps) / (10.0 + self.steps))
        torch._foreach_lerp_(self.average, self._parameters, 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The parameters are the average within the block.

        Yields:
            Nothing.
        """
        kept = [p.detach().clone() for p in self._parameters]
        with torch.no_grad():
            torch._foreach_copy_(self._parameters, self.average)
        try:
            yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self._parameters, kept)
