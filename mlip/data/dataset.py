"""Data sets of graphs, in memory or mapped from a file, behind one interface."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from mlip.data.files import read_structures
from mlip.data.labelled import LabelledGraph, to_graph
from mlip.data.store import SUFFIX, GraphStore
from mlip.data.structure import DataKeys, Structure


class Dataset(Protocol):
    """A sequence of graphs of one structure each, whose sizes are known without reading them."""

    n_atoms: NDArray
    n_edges: NDArray

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> LabelledGraph: ...

    def __iter__(self) -> Iterator[LabelledGraph]: ...


class MemoryDataset:
    """Graphs in memory.

    Args:
        graphs: of one structure each.
    """

    def __init__(self, graphs: Sequence[LabelledGraph]) -> None:
        self._graphs = list(graphs)
        self.n_atoms = np.array([item.graph.n_atoms for item in self._graphs], dtype=np.int64)
        self.n_edges = np.array([item.graph.n_edges for item in self._graphs], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, index: int) -> LabelledGraph:
        return self._graphs[index]

    def __iter__(self) -> Iterator[LabelledGraph]:
        return iter(self._graphs)


class MappedDataset:
    """Graphs of a file that `mlip.data.store.write_store` wrote; built when they are asked for.

    Args:
        path: the file.
        cutoff: in Angstrom, at most that of the file.
        fidelities: levels of theory that the model knows.
    """

    def __init__(self, path: str | Path, cutoff: float, fidelities: Sequence[str] = ()) -> None:
        self._store = GraphStore(path)
        self._cutoff, self._fidelities = cutoff, tuple(fidelities)
        self.n_atoms, self.n_edges = self._store.n_atoms, self._store.n_edges

    def __len__(self) -> int:
        return len(self._store)

    def __getitem__(self, index: int) -> LabelledGraph:
        return self._store.graph(index, self._cutoff, self._fidelities)

    def __iter__(self) -> Iterator[LabelledGraph]:
        return (self[index] for index in range(len(self)))


class Subset:
    """Some graphs of a data set, for example a held-back part.

    Args:
        parent: the data set.
        indices: which, in the order wanted.
    """

    def __init__(self, parent: Dataset, indices: Sequence[int] | NDArray) -> None:
        self._parent, self.indices = parent, np.asarray(indices, dtype=np.int64)
        self.n_atoms, self.n_edges = parent.n_atoms[self.indices], parent.n_edges[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> LabelledGraph:
        return self._parent[int(self.indices[index])]

    def __iter__(self) -> Iterator[LabelledGraph]:
        return (self[index] for index in range(len(self)))


def is_store(paths: Sequence[str]) -> bool:
    """Whether a data set is one mapped file.

    Args:
        paths: of the data set.

    Returns:
        True for a single file of graphs.

    Raises:
        InvalidInputError: such a file among others.
    """
    mapped = [path for path in paths if Path(path).suffix == SUFFIX]
    if mapped and len(paths) > 1:
        raise InvalidInputError(
            f"data: expected one {SUFFIX} file or any number of other files, got {list(paths)}; "
            "`mlip convert` makes one of several"
        )
    return bool(mapped)


def iterate_structures(paths: Sequence[str], keys: DataKeys) -> Iterator[Structure]:
    """Structures of a data set, whichever way it is stored.

    Args:
        paths: files.
        keys: names of the labels.

    Returns:
        An iterator.
    """
    if is_store(paths):
        return GraphStore(paths[0]).structures()
    return read_structures(paths, keys)


def open_dataset(
    paths: Sequence[str], keys: DataKeys, cutoff: float, fidelities: Sequence[str] = ()
) -> Dataset:
    """Open a data set for training.

    Args:
        paths: one file of graphs, which stays on disk, or any other files, which are read.
        keys: names of the labels.
        cutoff: of the neighbour lists in Angstrom.
        fidelities: levels of theory that the model knows.

    Returns:
        The data set.
    """
    if is_store(paths):
        return MappedDataset(paths[0], cutoff, fidelities)
    return MemoryDataset(
        [to_graph(structure, cutoff, fidelities) for structure in read_structures(paths, keys)]
    )
