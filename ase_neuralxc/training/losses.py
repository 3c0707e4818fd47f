"""Losses of reaction energies: errors relative to what is usual for their set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def error_scales(
    sets: Sequence[str], references: NDArray, floor: float, root: float
) -> dict[str, float]:
    """Error that counts as one, for each set.

    Atomisation energies are hundreds of kcal/mol and weak complexes have one: neither the same
    error nor the same relative error would be fair, the root of the size lies between.

    Args:
        sets: name of the set of each reaction.
        references: [m] reference energies in kcal/mol.
        floor: smallest scale in kcal/mol.
        root: scale of references of 1 kcal/mol; it grows with the root of their mean size.

    Returns:
        Set name -> kcal/mol.
    """
    names = np.asarray(sets)
    sizes = np.abs(np.asarray(references, dtype=float))
    return {
        str(name): max(floor, root * float(sizes[names == name].mean()) ** 0.5)
        for name in np.unique(names)
    }


class ReactionLoss:
    """Mean Huber loss of scaled reaction errors.

    Sets of thousands of reactions would drown the others: each reaction counts with the inverse
    square root of the size of its set, times a weight of the set.

    Args:
        scales: of each set in kcal/mol, from `error_scales`.
        counts: number of training reactions of each set.
        huber: scaled error beyond which the loss is linear.
        set_weights: further factors by set.
    """

    def __init__(
        self,
        scales: Mapping[str, float],
        counts: Mapping[str, int],
        huber: float,
        set_weights: Mapping[str, float],
    ) -> None:
        self.scales, self.huber = dict(scales), huber
        raw = {s: set_weights.get(s, 1.0) / np.sqrt(counts[s]) for s in counts}
        mean = sum(raw[s] * counts[s] for s in counts) / sum(counts.values())
        self.weights = {s: w / mean for s, w in raw.items()}

    def __call__(self, energies: Tensor, references: Tensor, sets: Sequence[str]) -> Tensor:
        """Loss of some reactions.

        Args:
            energies: [m] in kcal/mol.
            references: [m] in kcal/mol.
            sets: name of the set of each.

        Returns:
            A scalar.
        """
        scales, weights = self.scales_and_weights(sets)
        scaled = (energies - references) / scales
        each = torch.nn.functional.huber_loss(
            scaled, torch.zeros_like(scaled), reduction="none", delta=self.huber
        )
        return (weights * each).mean()

    def scales_and_weights(self, sets: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Error that counts as one, in kcal/mol, and weight of the loss of each reaction.

        Args:
            sets: name of the set of each of m reactions.

        Returns:
            [m] scales and [m] weights, float64.
        """
        scales = torch.tensor([self.scales[s] for s in sets], dtype=torch.float64)
        weights = torch.tensor([self.weights[s] for s in sets], dtype=torch.float64)
        return scales, weights


def errors_by_set(
    energies: NDArray, references: NDArray, sets: Sequence[str]
) -> dict[str, tuple[int, float, float]]:
    """Number, mean absolute and mean signed error of each set.

    Args:
        energies: [m] in kcal/mol.
        references: [m] in kcal/mol.
        sets: name of the set of each.

    Returns:
        Set name -> (number, mean absolute error, mean signed error), errors in kcal/mol.
    """
    names, errors = np.asarray(sets), np.asarray(energies) - np.asarray(references)
    out = {}
    for name in np.unique(names):
        own = errors[names == name]
        out[str(name)] = (len(own), float(np.abs(own).mean()), float(own.mean()))
    return out
