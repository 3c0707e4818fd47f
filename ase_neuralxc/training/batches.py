"""Points of stored densities for semi-local functionals, in chunks across species."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.training.stored import StoredDensity

#: Points per chunk: some 100 MB of a 64-wide network in float32.
CHUNK = 65_536


@dataclass(frozen=True)
class InvariantBatch:
    """Points of several species, all closed-shell or all spin-polarised.

    Attributes:
        invariants: of n points, float64.
        weights: [n] quadrature weights, float64.
        segments: [n] index of the species of each point, in the sequence that was given.
    """

    invariants: DensityInvariants
    weights: Tensor
    segments: Tensor

    def energies(self, functional: SemilocalFunctional, n_species: int) -> Tensor:
        """Part of the energy of each species that its points here make, [n_species] in Hartree."""
        energy = self.weights * functional.local_energy_density(self.invariants)
        out = torch.zeros(n_species, dtype=energy.dtype, device=energy.device)
        return out.index_add(0, self.segments, energy)


def batches(
    densities: Sequence[StoredDensity], chunk: int = CHUNK, device: str = "cpu"
) -> Iterator[InvariantBatch]:
    """Go over the points of species in chunks; large species are split, small ones joined.

    Args:
        densities: stored densities; only what is yielded is read from their files.
        chunk: largest number of points of a batch.
        device: torch device of the batches.

    Yields:
        Batches that together hold every point once.
    """
    for closed_shell in (True, False):
        parts: list[tuple[int, slice]] = []
        room = chunk
        for index, density in enumerate(densities):
            start = 0
            while density.closed_shell == closed_shell and start < density.n_points:
                stop = min(start + room, density.n_points)
                parts.append((index, slice(start, stop)))
                room -= stop - start
                start = stop
                if room == 0:
                    yield _batch(densities, parts, device)
                    parts, room = [], chunk
        if parts:
            yield _batch(densities, parts, device)


def _batch(
    densities: Sequence[StoredDensity],
    parts: Sequence[tuple[int, slice]],
    device: str,
) -> InvariantBatch:
    def gather(name: str) -> Tensor:
        rows = [getattr(densities[i], name)[..., points] for i, points in parts]
        joined: NDArray = np.concatenate(rows, axis=-1, dtype=np.float64)
        return torch.from_numpy(joined).to(device)

    invariants = DensityInvariants.from_channels(
        gather("density"), gather("gradient"), gather("tau")
    )
    counts = torch.tensor([points.stop - points.start for _, points in parts])
    segments = torch.repeat_interleave(torch.tensor([i for i, _ in parts]), counts)
    return InvariantBatch(invariants, gather("weights"), segments.to(device))
