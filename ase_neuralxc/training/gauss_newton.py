"""Damped Gauss-Newton steps: the energies of all reactions are fitted at once.

A training set has a few thousand reactions and a functional some ten thousand weights, so that the
whole Jacobian of the reaction energies fits in memory and costs no more than one pass over the
densities. The step solves the linearised problem exactly (Levenberg, Quart. Appl. Math. 2, 164
(1944); Marquardt, J. SIAM 11, 431 (1963)) in the space of weights or of reactions, whichever is
smaller. In that of reactions it is

    d = -S^T (S S^T + c)^-1 (y - S a / c) - a / c,    c = damping + prior,  a = prior (w - w_start)

with S and y the Jacobian and the errors, scaled and weighted. Huber's loss enters through the
weights of its tangent parabola (Huber, Ann. Math. Stat. 35, 73 (1964)), penalties (`smoothness`,
`kinetic_potential`, `base_distance`, `grid_noise`) as further rows. One such epoch lowers the error
more than ten epochs of stochastic steps do, for the same work.

Penalties look at other places in every epoch, and each step suits its own: the weights that are
kept are the mean of those after the last `average` epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.training.base_penalties import BaseDistance, KineticPotential
from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.grid_noise import GridNoise
from ase_neuralxc.training.losses import ReactionLoss
from ase_neuralxc.training.smoothness import Roughness, network_inputs
from ase_neuralxc.training.steps import EpochResult
from ase_neuralxc.training.stored_energies import energy_jacobian

#: Steps that are tried with more and more damping before the weights count as a minimum.
_TRIALS = 8
#: Change of the damping when a step did better, or worse, than the linear model said.
_EASE, _BRAKE = 1.0 / 3.0, 4.0
#: Actual over predicted decrease above which the damping eases, and below which it grows.
_GOOD, _POOR = 0.7, 0.3


@dataclass(frozen=True)
class Linearisation:
    """Scaled, weighted errors of the training reactions as linear functions of the weights.

    Attributes:
        residual: [m] y, errors in units of the scale of their set, times the root of their weight,
            and penalties.
        jacobian: [m, p] S, derivatives of the same.
        pull: [p] a, gradient of the prior.
        prior: its curvature.
    """

    residual: NDArray
    jacobian: NDArray
    pull: NDArray
    prior: float

    def step(self, damping: float) -> NDArray:
        """Minimise the model with a damping: change of the weights [p]."""
        total = damping + self.prior
        if self._gram.shape[0] == self.jacobian.shape[1]:
            gradient = self.jacobian.T @ self.residual + self.pull
            step: NDArray = -_solve(self._gram, total, gradient)
            return step
        right = self.residual - self.jacobian @ self.pull / total
        return -self.jacobian.T @ _solve(self._gram, total, right) - self.pull / total

    @cached_property
    def _gram(self) -> NDArray:
        """S^T S or S S^T, whichever is smaller."""
        rows, weights = self.jacobian.shape
        wide = self.jacobian if rows < weights else self.jacobian.T
        gram: NDArray = wide @ wide.T
        return gram

    def decrease(self, step: NDArray) -> float:
        """What the undamped model promises for a step."""
        change = self.jacobian @ step
        linear = self.residual @ change + self.pull @ step
        return -float(linear + 0.5 * change @ change + 0.5 * self.prior * step @ step)


class Penalty(Protocol):
    """Residuals beside those of reactions, functions of the weights of a functional."""

    def residuals(self) -> NDArray:
        """Values [k], whose squares are added up."""

    def jacobian(self) -> NDArray:
        """Their derivatives by all weights that are trained, [k, p]."""


class GaussNewtonSteps:
    """One accepted step per epoch, from the Jacobian of all training reactions.

    Args:
        config: settings of the run.
        functional: is trained in place.
        table: all reactions.
        training: indices of the training reactions.
        loss: of reaction energies.

    Attributes:
        averaged: mean of the weights after the last epochs; the functional itself if that is one.
    """

    def __init__(
        self,
        config: TrainingConfig,
        functional: Any,
        table: ReactionTable,
        training: Sequence[int],
        loss: ReactionLoss,
    ) -> None:
        self.functional = functional
        self.averaged = functional if config.average == 1 else copy.deepcopy(functional)
        self.table, self.training, self.loss = table, list(training), loss
        self.fitted = table.subset(self.training)
        self.prior, self.damping = config.prior, config.damping
        self.start = _flat(functional)
        self.config = config
        self.penalties: list[tuple[float, Penalty]] = []
        self.inputs: list[Tensor] = []
        if config.smoothness > 0.0:
            self.inputs = network_inputs(functional, self.fitted.densities, config.seed)
        self.noise: GridNoise | None = None
        if config.grid_noise:
            self.noise = GridNoise.load(functional, config.grid_noise, str(config.fine_densities))

    def epoch(self, number: int) -> EpochResult:
        """Linearise, and step with the damping that lowers the loss.

        Args:
            number: of the epoch, from 0; where penalties look follows from it and from the seed.

        Returns:
            Its loss, damping and energies; finished if no step lowered the loss.

        Raises:
            InvalidInputError: the energies at the present weights are not finite.
        """
        self.penalties = self._look(number)
        weights = _flat(self.functional)
        model, before = self._linearise(weights)
        if not np.isfinite(before):
            raise InvalidInputError(f"start: expected finite reaction energies, got loss {before}")
        for _ in range(_TRIALS):
            step = model.step(self.damping)
            _assign(self.functional, weights + step)
            energies = self._energies()
            after = self._total_loss(energies[self.training], weights + step)
            gain = (before - after) / max(model.decrease(step), np.finfo(float).tiny)
            if gain > _GOOD:
                self.damping *= _EASE
            elif not gain > _POOR:
                self.damping *= _BRAKE
            if after < before:
                return EpochResult(after, self.damping, self._average(number, energies))
        _assign(self.functional, weights)
        energies = self._average(number, self._energies())
        return EpochResult(before, self.damping, energies, finished=True)

    def state_dict(self) -> dict[str, Any]:
        """Both sets of weights and the damping (see `Steps`)."""
        return {
            "functional": self.functional.state_dict(),
            "averaged": self.averaged.state_dict(),
            "damping": self.damping,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a state (see `Steps`)."""
        self.functional.load_state_dict(state["functional"])
        self.averaged.load_state_dict(state["averaged"])
        self.damping = state["damping"]

    def _look(self, number: int) -> list[tuple[float, Penalty]]:
        """Penalties with places of this epoch: weights learn places at which all epochs look."""
        config, seed = self.config, (self.config.seed, number)
        penalties: list[tuple[float, Penalty]] = []
        if config.smoothness > 0.0:
            penalties.append((config.smoothness, Roughness(self.functional, self.inputs, seed)))
        if config.kinetic_potential > 0.0:
            kinetic = KineticPotential(self.functional, seed=seed)
            penalties.append((config.kinetic_potential, kinetic))
        if config.base_distance > 0.0:
            penalties.append((config.base_distance, BaseDistance(self.functional, seed=seed)))
        if self.noise is not None:
            penalties.append((1.0, self.noise))
        return penalties

    def _average(self, number: int, energies: NDArray) -> NDArray:
        """Take the weights after an epoch into the mean; energies of the table with the mean."""
        if self.averaged is self.functional:
            return energies
        count = max(number - (self.config.epochs - self.config.average) + 1, 1)
        mean = _flat(self.averaged)
        _assign(self.averaged, mean + (_flat(self.functional) - mean) / count)
        return energies if count == 1 else self._energies(self.averaged)

    def _linearise(self, weights: NDArray) -> tuple[Linearisation, float]:
        species, derivatives = energy_jacobian(self.functional, self.fitted.densities)
        fixed = self.fitted.fixed_energies(float(self.functional.exchange_fraction))
        errors = (self.fitted.combine(fixed + species) - self.fitted.references).numpy()
        scales, importance = self.loss.scales_and_weights(self.fitted.sets)
        scaled = errors / scales.numpy()
        tangent = np.minimum(1.0, self.loss.huber / np.maximum(np.abs(scaled), 1e-12))
        root = np.sqrt(importance.numpy() * tangent / len(scaled))
        rows = self.fitted.combine(derivatives).numpy() * (root / scales.numpy())[:, None]
        residual = root * scaled
        for factor, penalty in self.penalties:
            share = factor**0.5
            rows = np.concatenate([rows, share * penalty.jacobian()])
            residual = np.concatenate([residual, share * penalty.residuals()])
        pull = self.prior * (weights - self.start)
        before = self._total_loss(self.fitted.combine(fixed + species).numpy(), weights)
        return Linearisation(residual, rows, pull, self.prior), before

    def _energies(self, functional: Any = None) -> NDArray:
        chosen = self.functional if functional is None else functional
        with torch.no_grad():
            return self.table.reaction_energies(chosen).numpy()

    def _total_loss(self, energies: NDArray, weights: NDArray) -> float:
        """Loss and penalties, from the energies of the training reactions."""
        away = weights - self.start
        value = float(
            self.loss(torch.from_numpy(energies), self.fitted.references, self.fitted.sets)
        )
        for factor, penalty in self.penalties:
            value += 0.5 * factor * float(np.sum(penalty.residuals() ** 2))
        return value + 0.5 * self.prior * float(away @ away)


def _solve(gram: NDArray, total: float, right: NDArray) -> NDArray:
    """Solve (gram + total) x = right."""
    solution: NDArray = cho_solve(cho_factor(gram + total * np.eye(len(gram))), right)
    return solution


def _flat(module: Any) -> NDArray:
    """All weights that are trained, [p] in float64."""
    parts = [p.detach().reshape(-1).double() for p in module.parameters() if p.requires_grad]
    return torch.cat(parts).cpu().numpy()


def _assign(module: Any, weights: NDArray) -> None:
    start = 0
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                part = weights[start : start + parameter.numel()]
                parameter.copy_(torch.from_numpy(part).reshape(parameter.shape))
                start += parameter.numel()
