"""How rough the networks of a functional are: second differences of what they compute.

An enhancement that wiggles fits energies on stored densities just as well as a smooth one; its
self-consistent field then takes more cycles, and its energies depend on the grid. The penalty is
the mean square of second differences of each network, along random directions,

    r = (h(x + step u) - 2 h(x) + h(x - step u)) / step^2,

which is a residual like the error of a reaction: `gauss_newton` takes both. Half of the places are
inputs that occur in the training, the others fill the box around them evenly: what does not occur
in molecules may occur in a crystal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import grad, vmap

from ase_neuralxc.functional.network import AnchoredNetwork
from ase_neuralxc.functional.perceptron import perceptron
from ase_neuralxc.training.stored import StoredDensity
from ase_neuralxc.training.stored_energies import batches_for

#: Distance of the differences, of inputs that lie between -1 and 1.
STEP = 0.05
#: Places at which each network is looked at, and species that half of them are taken from.
_PLACES, _SPECIES = 4096, 48
#: Inputs of each species that are kept to choose places from.
_KEPT = 512


@dataclass(frozen=True)
class _Probe:
    """Where one network is looked at, and which of all weights are its own."""

    network: AnchoredNetwork
    places: Tensor
    directions: Tensor
    columns: tuple[int, ...]


class Roughness:
    """Second differences of all networks of a functional, as functions of all its weights.

    Args:
        functional: whose `AnchoredNetwork`s are looked at.
        seen: what reaches each of them in molecules (`network_inputs`).
        seed: of places and directions.
    """

    def __init__(self, functional: Any, seen: Sequence[Tensor], seed: tuple[int, ...]) -> None:
        generator = np.random.default_rng((*seed, 2))
        networks = _networks(functional)
        offsets, start = {}, 0
        for parameter in functional.parameters():
            if parameter.requires_grad:
                offsets[id(parameter)] = start
                start += parameter.numel()
        self.n_weights = start
        self.probes = []
        for network, inputs in zip(networks, seen, strict=True):
            places = inputs[generator.permutation(len(inputs))[: _PLACES // 2]]
            low, high = inputs.amin(0).numpy(), inputs.amax(0).numpy()
            even = torch.from_numpy(generator.uniform(low, high, size=tuple(places.shape)))
            places = torch.cat([places, even])
            directions = generator.normal(size=tuple(places.shape))
            directions /= np.linalg.norm(directions, axis=1, keepdims=True)
            columns = tuple(
                offsets[id(p)] for p in (*network.weights, *network.biases) if id(p) in offsets
            )
            self.probes.append(_Probe(network, places, torch.from_numpy(directions), columns))

    def residuals(self) -> NDArray:
        """Second differences [k], divided by the root of their number."""
        with torch.no_grad():
            parts = [
                vmap(_difference, in_dims=(None, None, 0, 0))(*_weights(p), p.places, p.directions)
                for p in self.probes
            ]
        values: NDArray = torch.cat(parts).numpy()
        return values / np.sqrt(len(values))

    def jacobian(self) -> NDArray:
        """Derivatives of the residuals by all weights that are trained, [k, p]."""
        total = sum(len(p.places) for p in self.probes)
        out, start = np.zeros((total, self.n_weights)), 0
        for probe in self.probes:
            derivative = vmap(grad(_difference, argnums=(0, 1)), in_dims=(None, None, 0, 0))
            weights, biases = derivative(*_weights(probe), probe.places, probe.directions)
            rows = slice(start, start + len(probe.places))
            for part, column in zip((*weights, *biases), probe.columns, strict=True):
                flat = part.detach().flatten(1).numpy()
                out[rows, column : column + flat.shape[1]] = flat
            start = rows.stop
        return out / np.sqrt(total)


def _weights(probe: _Probe) -> tuple[list[Tensor], list[Tensor]]:
    network = probe.network
    return (
        [w.detach().double().cpu() for w in network.weights],
        [b.detach().double().cpu() for b in network.biases],
    )


def _difference(
    weights: Sequence[Tensor], biases: Sequence[Tensor], place: Tensor, direction: Tensor
) -> Tensor:
    shifts = torch.tensor([[1.0], [0.0], [-1.0]], dtype=place.dtype)
    values = perceptron(weights, biases, place + STEP * shifts * direction)
    return (values[0] - 2.0 * values[1] + values[2]) / STEP**2


def network_inputs(
    functional: Any, densities: Sequence[StoredDensity], seed: int = 0
) -> list[Tensor]:
    """What reaches each network of a functional in some species, with the weights that it has.

    Those of a semi-local functional do not depend on its weights.

    Args:
        functional: with `AnchoredNetwork`s.
        densities: of the species, of which some are chosen.
        seed: of species and points.

    Returns:
        [n, inputs] in float64 for each network.
    """
    generator = np.random.default_rng((seed, 1))
    networks = _networks(functional)
    seen: list[list[Tensor]] = [[] for _ in networks]

    def keep(index: int) -> Any:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            rows = generator.permutation(len(arguments[0]))[:_KEPT]
            seen[index].append(arguments[0].detach()[rows].double().cpu())

        return hook

    handles = [n.register_forward_pre_hook(keep(i)) for i, n in enumerate(networks)]
    try:
        with torch.no_grad():
            for chosen in generator.permutation(len(densities))[:_SPECIES]:
                for batch in batches_for(functional, [densities[chosen]]):
                    batch.energies(functional, 1)
    finally:
        for handle in handles:
            handle.remove()
    return [torch.cat(parts) for parts in seen]


def _networks(functional: Any) -> list[AnchoredNetwork]:
    return [m for m in functional.modules() if isinstance(m, AnchoredNetwork)]
