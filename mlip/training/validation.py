"""Errors on the validation part during training, as sums that several processes share."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from mlip.data.batching import load, pack
from mlip.data.dataset import Dataset
from mlip.data.labelled import LabelledGraph
from mlip.model.potential import Potential
from mlip.training.distributed import Workers
from mlip.training.loss import Loss, wanted, with_volume
from mlip.training.settings import LossSettings, TrainConfig


def load_for(
    data: Dataset, indices: Any, settings: LossSettings, workers: Workers
) -> LabelledGraph:
    """A batch on the device of this process, fit for the loss."""
    item = load(data, indices).to(workers.device)
    return with_volume(item) if settings.stress else item


def validate(
    potential: Potential,
    data: Dataset,
    settings: LossSettings,
    config: TrainConfig,
    workers: Workers,
) -> dict[str, float]:
    """Loss and errors on a data set.

    Args:
        potential: left in evaluation mode.
        data: the validation part.
        settings: of the loss.
        config: of the run; its batches.
        workers: processes that share the work.

    Returns:
        "valid_loss", and "LABEL_mae", "LABEL_rmse" of every weighted label, in eV units (the
        energy per atom).
    """
    potential.eval()
    function = Loss(settings)
    names = [name for name, weight in settings.weights.items() if weight]
    # sum and number of losses; number, sum and sum of squares of errors
    sums = torch.zeros(len(names), 5, dtype=torch.float64, device=workers.device)
    batches = pack(np.arange(len(data)), data, config.batch)
    for indices in workers.share(batches):
        item = load_for(data, indices, settings, workers)
        results = potential(item.graph, wanted(settings))
        terms = function.sums(results, item)
        for place, name in enumerate(names):
            target = getattr(item.labels, name)
            if results[name].ndim != target.ndim:
                continue  # no label of this kind in the batch, or `sums` would have said so
            error = results[name].double() - target
            if name == "energy":
                error = error / item.graph.atoms_per_graph
            error = error[target.isfinite()]
            count = error.new_tensor(error.numel())
            figures = [*terms[name], count, error.abs().sum(), error.square().sum()]
            sums[place] += torch.stack(figures)
    workers.sum(sums)
    row = {"valid_loss": 0.0}
    for name, (loss, count, n, absolute, square) in zip(names, sums.tolist(), strict=True):
        if count:
            row["valid_loss"] += settings.weights[name] * loss / count
            row[f"{name}_mae"] = absolute / n
            row[f"{name}_rmse"] = (square / n) ** 0.5
    return row
