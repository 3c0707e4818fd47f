"""The loss of a batch as sums and counts, so that parts of a batch on several devices add up."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.data.labelled import LabelledGraph
from mlip.model.potential import Wanted
from mlip.training.settings import LossSettings

#: Smallest standard deviation of an energy per atom in the likelihood, in eV.
SPREAD_FLOOR = 1e-4


def wanted(settings: LossSettings) -> Wanted:
    """What a model has to compute for a loss."""
    return Wanted(
        forces=settings.forces > 0,
        stress=settings.stress > 0,
        magnetic_forces=settings.magnetic_forces > 0,
    )


def with_volume(item: LabelledGraph) -> LabelledGraph:
    """The batch with a unit cell for structures that have none.

    Molecules and crystals may share a batch; a stress divides by the volume, and that of a
    molecule, which has no label and no shifts, must be any number but zero.
    """
    cell = item.graph.cell
    flat = torch.linalg.det(cell).abs() < 1e-12
    if not bool(flat.any()):
        return item
    unit = torch.eye(3, dtype=cell.dtype, device=cell.device)
    # Only where no edge crosses the cell, which is so where there are no shifts.
    open_ = item.graph.shifts.new_zeros(item.graph.n_graphs)
    of_edge = item.graph.batch[item.graph.edge_index[1]]
    crossing = open_.index_add(0, of_edge, item.graph.shifts.abs().sum(1)) > 0
    if bool((flat & crossing).any()):
        return item
    return replace(
        item, graph=replace(item.graph, cell=torch.where(flat[:, None, None], unit, cell))
    )


class Loss:
    """Weighted losses of what is labelled.

    Args:
        settings: weights and kind.
    """

    def __init__(self, settings: LossSettings) -> None:
        self.settings = settings

    def sums(
        self, results: dict[str, Tensor], item: LabelledGraph
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Sum of the losses and number of labels, of each term with a weight.

        Args:
            results: of a `Potential` in training mode.
            item: the batch.

        Returns:
            Term to (sum, number); a term without labels in this batch has (0, 0).

        Raises:
            InvalidInputError: the model does not compute what has a weight.
        """
        labels, graph = item.labels, item.graph
        n_atoms = graph.atoms_per_graph.to(torch.float64)
        of_atom = labels.weight.index_select(0, graph.batch)
        terms = {}
        for name, weight in self.settings.weights.items():
            if weight == 0.0:
                continue
            if name not in results:
                raise InvalidInputError(f"loss.{name}: the model does not compute {name}")
            predicted, target = results[name], getattr(labels, name)
            if name in ("magmoms", "magnetic_forces") and predicted.ndim != target.ndim:
                if bool(target.isfinite().any()):
                    raise InvalidInputError(
                        f"loss.{name}: the labels have shape {list(target.shape)}, the model gives "
                        f"{list(predicted.shape)} (signed and vector moments are different models)"
                    )
                target = torch.full_like(predicted, torch.nan, dtype=torch.float64)
            error = predicted.double() - target
            weights = labels.weight
            if name == "energy":
                error = error / n_atoms
            elif name != "stress":
                weights = of_atom
            terms[name] = self._reduce(error, target.isfinite(), weights)
        if self.settings.uncertainty:
            terms["uncertainty"] = self._likelihood(results, item, n_atoms)
        return terms

    def total(self, terms: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """Weighted sum of the means.

        Args:
            terms: of `sums`.

        Returns:
            A number with gradients.
        """
        parts = [
            getattr(self.settings, name) * value / count.clamp(min=1.0)
            for name, (value, count) in terms.items()
        ]
        return torch.stack(parts).sum()

    def _reduce(self, error: Tensor, present: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        # Only labels may be missing: a prediction that is not finite must show in the loss.
        # Replaced before anything is computed: NaN times zero would poison the gradients.
        error = torch.where(present, error, torch.zeros_like(error))
        shape = (-1,) + (1,) * (error.ndim - 1)
        if self.settings.kind == "norm" and error.ndim == 2:
            present = present.all(1)
            value = torch.sqrt(error.square().sum(1) + 1e-16)
            value, shape = torch.where(present, value, torch.zeros_like(value)), (-1,)
        else:
            value = self._elementwise(error)
        value = value * weights.view(shape)
        return value.sum(), present.sum().to(torch.float64)

    def _elementwise(self, error: Tensor) -> Tensor:
        kind, delta = self.settings.kind, self.settings.huber_delta
        if kind == "mse":
            return error.square()
        if kind == "huber":
            zero = torch.zeros_like(error)
            return torch.nn.functional.huber_loss(error, zero, reduction="none", delta=delta)
        return error.abs()

    def _likelihood(
        self, results: dict[str, Tensor], item: LabelledGraph, n_atoms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Negative log-likelihood of the energies under the spread of the readouts.

        The error is taken as given (detached): this term shapes the spread, not the mean.
        """
        members = results["member_energy"]
        if members.shape[1] < 2:
            raise InvalidInputError("loss.uncertainty: expected a model with several readouts")
        error = ((members.mean(1) - item.labels.energy) / n_atoms).detach()
        centred = members - members.mean(1, keepdim=True).detach()
        variance = centred.square().sum(1) / (members.shape[1] - 1) / n_atoms**2
        variance = variance + SPREAD_FLOOR**2
        present = item.labels.energy.isfinite()
        error = torch.where(present, error, torch.zeros_like(error))
        value = 0.5 * (error.square() / variance + variance.log() + math.log(2.0 * math.pi))
        value = torch.where(present, value, torch.zeros_like(value)) * item.labels.weight
        return value.sum(), present.sum().to(torch.float64)
