"""Points of stored densities for nonlocal functionals: whole grids, not sums over single points.

A nonlocal functional needs the points of an atom (an `atomwise` one) or of a species together, with
their positions, so that neither joined points (`training.compression`) nor batches across species
will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.records import units
from ase_neuralxc.training.stored import StoredDensity


@dataclass(frozen=True)
class GridBatch:
    """The grid of one species, or of one of its atoms.

    Attributes:
        features: of n points, float64, with weights, positions and atoms.
        species: index of the species in the sequence that was given.
    """

    features: GridFeatures
    species: int

    def energies(self, functional: XCFunctional, n_species: int) -> Tensor:
        """Part of the energy of each species that its points here make, [n_species] in Hartree."""
        weights = self.features.weights
        assert weights is not None
        energy = torch.dot(weights, functional.energy_density(self.features))
        out = torch.zeros(n_species, dtype=energy.dtype, device=energy.device)
        return out.index_add(0, torch.tensor([self.species], device=energy.device), energy[None])


def grid_batches(
    densities: Sequence[StoredDensity], atomwise: bool, device: str = "cpu"
) -> Iterator[GridBatch]:
    """Go over the grids of species.

    Args:
        densities: stored densities; only what is yielded is read from their files.
        atomwise: one batch per atom, which bounds the memory; else one per species.
        device: torch device of the batches.

    Yields:
        Batches that together hold every point once.

    Raises:
        InvalidInputError: a density whose points have no positions.
    """
    for index, density in enumerate(densities):
        if sum(density.atom_counts) != density.n_points or len(density.coords) == 0:
            raise InvalidInputError(
                f"densities: expected points with positions for a nonlocal functional, got joined "
                f"points for {density.species.name!r} (compress: false keeps them apart)"
            )
        stops = np.cumsum(density.atom_counts)
        parts = [slice(b - n, b) for b, n in zip(stops, density.atom_counts, strict=True)]
        atoms = np.asarray(density.species.positions, dtype=float) / units.BOHR_ANGSTROM
        if not atomwise:
            yield GridBatch(_features(density, slice(0, density.n_points), parts, atoms, device),
                            index)  # fmt: skip
            continue
        for part, atom in zip(parts, atoms, strict=True):
            own = [slice(0, part.stop - part.start)]
            yield GridBatch(_features(density, part, own, atom[None], device), index)


def _features(
    density: StoredDensity,
    points: slice,
    atom_slices: Sequence[slice],
    atoms: NDArray,
    device: str,
) -> GridFeatures:
    def tensor(values: NDArray) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.float64)).to(device)

    def channels(values: NDArray) -> Tensor:
        rows = tensor(values[..., points])
        return (0.5 * rows).expand(2, *rows.shape[1:]) if density.closed_shell else rows

    return GridFeatures(
        density=channels(density.density),
        gradient=channels(density.gradient),
        tau=channels(density.tau),
        coords=tensor(density.coords[points]),
        weights=tensor(density.weights[points]),
        atom_slices=tuple(atom_slices),
        atom_coords=tensor(atoms),
        closed_shell=density.closed_shell,
        atomic_weights=tensor(density.atomic_weights[points]),
    )
