"""Functionals on stored densities: energies of species, differentiable and bounded in memory.

The energies of thousands of species have one node in the graph of autograd: values are computed
without a graph, and the backward pass goes over the points again, chunk by chunk. Memory is that of
one chunk, whatever the loss and however many species it joins, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.training.batches import CHUNK, InvariantBatch, batches
from ase_neuralxc.training.nonlocal_batches import GridBatch, grid_batches
from ase_neuralxc.training.stored import StoredDensity


def batches_for(
    functional: XCFunctional,
    densities: Sequence[StoredDensity],
    chunk: int = CHUNK,
    device: str = "cpu",
) -> Iterator[InvariantBatch | GridBatch]:
    """Points of species in the form that a functional needs.

    Args:
        functional: semi-local or nonlocal.
        densities: stored densities.
        chunk: largest number of points of a batch of single points.
        device: torch device of the batches.

    Returns:
        `batches` for a semi-local functional, else `grid_batches`.
    """
    if isinstance(functional, SemilocalFunctional):
        return batches(densities, chunk, device)
    return grid_batches(densities, getattr(functional, "atomwise", False), device)


def xc_energies(
    functional: XCFunctional,
    densities: Sequence[StoredDensity],
    chunk: int = CHUNK,
    device: str = "cpu",
) -> Tensor:
    """Exchange-correlation energies of stored densities, without any exact exchange.

    Args:
        functional: a torch module on `device`, semi-local or nonlocal.
        densities: of the species.
        chunk: largest number of points of a semi-local functional that are evaluated together.
        device: torch device.

    Returns:
        [n_species] in Hartree, once differentiable with respect to the functional's parameters.
    """
    module: Any = functional
    parameters = tuple(p for p in module.parameters() if p.requires_grad)
    return _Energies.apply(functional, densities, chunk, device, *parameters)


def energy_jacobian(
    functional: XCFunctional,
    densities: Sequence[StoredDensity],
    chunk: int = CHUNK,
    device: str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Exchange-correlation energies of stored densities and their derivatives by all weights.

    Args:
        functional: a torch module on `device`, semi-local or nonlocal.
        densities: of the species.
        chunk: see `xc_energies`.
        device: torch device.

    Returns:
        [n_species] in Hartree, and [n_species, p] derivatives with respect to the p weights that
        are trained, in the order of `parameters()`; float64, on the CPU.
    """
    module: Any = functional
    parameters = [p for p in module.parameters() if p.requires_grad]
    energies = torch.zeros(len(densities), dtype=torch.float64)
    jacobian = torch.zeros(
        (len(densities), sum(p.numel() for p in parameters)), dtype=torch.float64
    )
    for index, density in enumerate(tqdm(densities, desc="derivatives", leave=False)):
        for batch in batches_for(functional, [density], chunk, device):
            energy = batch.energies(module, 1)[0]
            energies[index] += float(energy.detach())
            gradients = torch.autograd.grad(energy, parameters, materialize_grads=True)
            jacobian[index] += torch.cat([g.reshape(-1).double().cpu() for g in gradients])
    return energies, jacobian


class _Energies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        functional: Any,
        densities: Sequence[StoredDensity],
        chunk: int,
        device: str,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.work = functional, densities, chunk, device
        ctx.save_for_backward(*parameters)
        total = torch.zeros(len(densities), dtype=torch.float64, device=device)
        for batch in batches_for(functional, densities, chunk, device):
            total += batch.energies(functional, len(densities))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        functional, densities, chunk, device = ctx.work
        parameters = ctx.saved_tensors
        gradients = [torch.zeros_like(p) for p in parameters]
        # species that do not enter the loss cost nothing
        wanted = [i for i, g in enumerate(cotangent.tolist()) if g != 0.0]
        needed = [densities[i] for i in wanted]
        weights = cotangent[wanted]
        for batch in batches_for(functional, needed, chunk, device):
            with torch.enable_grad():
                value = batch.energies(functional, len(needed)) @ weights
            parts = torch.autograd.grad(value, parameters, allow_unused=True)
            for total, part in zip(gradients, parts, strict=True):
                if part is not None:
                    total += part
        return None, None, None, None, *gradients
