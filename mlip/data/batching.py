"""Which structures go into which batch: a function of seed and epoch alone.

Nothing is drawn from a global generator, so that a run that was killed continues with the batches
it would have had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from mlip.data.dataset import Dataset
from mlip.data.labelled import LabelledGraph, collate_labelled


@dataclass(frozen=True)
class BatchSettings:
    """Size of a batch: as many structures as all limits allow, at least one.

    Attributes:
        structures: largest number of structures, None for no limit.
        atoms: largest number of atoms, None for no limit.
        edges: largest number of edges, None for no limit; memory follows them.
    """

    structures: int | None = 5
    atoms: int | None = None
    edges: int | None = None

    def __post_init__(self) -> None:
        limits = (self.structures, self.atoms, self.edges)
        if all(limit is None for limit in limits):
            raise InvalidInputError(
                "batch: expected a limit for structures, atoms or edges, got none"
            )
        for name, limit in zip(("structures", "atoms", "edges"), limits, strict=True):
            if limit is not None and (isinstance(limit, bool) or limit < 1):
                raise InvalidInputError(f"batch.{name}: expected at least 1, got {limit!r}")


def order(n: int, seed: int, epoch: int) -> NDArray:
    """[n] permutation of an epoch."""
    return np.random.default_rng((seed, 2, epoch)).permutation(n)


def pack(indices: NDArray, data: Dataset, settings: BatchSettings) -> list[NDArray]:
    """Cut a sequence of structures into batches.

    Args:
        indices: in the order wanted.
        data: whose sizes count.
        settings: limits.

    Returns:
        Indices of each batch; a structure above a limit is alone.
    """
    limits = np.array(
        [np.inf if v is None else v for v in (settings.structures, settings.atoms, settings.edges)]
    )
    sizes = np.stack([np.ones(len(indices)), data.n_atoms[indices], data.n_edges[indices]], axis=1)
    batches: list[NDArray] = []
    start, total = 0, np.zeros(3)
    for place, size in enumerate(sizes):
        if place > start and (total + size > limits).any():
            batches.append(indices[start:place])
            start, total = place, np.zeros(3)
        total = total + size
    batches.append(indices[start:])
    return batches


def load(data: Dataset, indices: Sequence[int] | NDArray) -> LabelledGraph:
    """One batch of a data set."""
    return collate_labelled([data[int(index)] for index in indices])


def evaluation_batches(data: Dataset, settings: BatchSettings) -> Iterator[LabelledGraph]:
    """A data set in its own order, in batches."""
    for indices in pack(np.arange(len(data)), data, settings):
        yield load(data, indices)
