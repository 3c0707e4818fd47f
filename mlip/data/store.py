"""Graphs of a large data set in one file that is mapped, not read.

The file is a row of blocks, one per structure, with its neighbour list already made, followed by
an index and a trailer that says where the index starts: it can be written in one pass over data
that does not fit into memory, and opening it reads only the index.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.files import PARTIAL_SUFFIX
from mlip.data.labelled import LabelledGraph, assemble, fidelity_index
from mlip.data.neighbours import Neighbours, neighbours
from mlip.data.structure import Structure

SUFFIX = ".graphs"
VERSION = 1
_MAGIC = b"mlip-graphs\n"
_TRAILER = struct.Struct("<QQ12s")  # where the index starts, its length, magic
_ARRAYS = {
    "numbers": np.uint8,
    "positions": np.float64,
    "cell": np.float64,
    "pbc": np.bool_,
    "forces": np.float64,
    "stress": np.float64,
    "magmoms": np.float64,
    "magnetic_forces": np.float64,
    "input_magmoms": np.float64,
    "edge_index": np.int32,
    "shifts": np.int16,
}
_EDGES = ("edge_index", "shifts")
_SCALARS = (
    "energy",
    "charge",
    "n_unpaired",
    "spin_polarised",
    "fidelity",
    "config_type",
    "weight",
    "energy_key",
    "source",
)


def write_store(path: str | Path, structures: Iterable[Structure], cutoff: float) -> int:
    """Write structures and their neighbour lists; the file appears when it is complete.

    Args:
        path: the file, ending in .graphs.
        structures: walked once.
        cutoff: of the neighbour lists in Angstrom; training may use a smaller one.

    Returns:
        The number of structures.

    Raises:
        InvalidInputError: another suffix, no structure, or a path that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InvalidInputError(f"out: expected a name that ends in {SUFFIX}, got {path.name!r}")
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    offsets, atoms, edges = [0], [], []
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            for structure in structures:
                found = neighbours(structure.positions, structure.cell, structure.pbc, cutoff)
                file.write(_pack(structure, found))
                offsets.append(file.tell())
                atoms.append(len(structure.numbers))
                edges.append(found.edge_index.shape[1])
            if not atoms:
                raise InvalidInputError("structures: expected at least one, got none")
            head = {"version": VERSION, "cutoff": cutoff, "n": len(atoms)}
            table = np.array([offsets[1:], atoms, edges], dtype="<u8").tobytes()
            index = json.dumps(head).encode().ljust(256) + table
            file.write(index + _TRAILER.pack(offsets[-1], len(index), _MAGIC))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise InvalidInputError(f"out: cannot write {str(path)!r}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(atoms)


class GraphStore:
    """A file of `write_store`; a sequence of structures with neighbours.

    Args:
        path: the file.

    Attributes:
        cutoff: of the stored neighbour lists in Angstrom.
        n_atoms: [m] atoms of each structure.
        n_edges: [m] stored edges of each structure.

    Raises:
        InvalidInputError: no such file, truncated, or of a newer version.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InvalidInputError(f"data: cannot open {str(path)!r}: {error}") from error
        size = len(self._map)
        start, length, magic = (
            _TRAILER.unpack(self._map[-_TRAILER.size :]) if size >= _TRAILER.size else (0, 0, b"")
        )
        if magic != _MAGIC or start + length + _TRAILER.size != size:
            raise InvalidInputError(
                f"data: expected a complete file of graphs, {str(path)!r} is truncated or another "
                "kind of file"
            )
        head = json.loads(self._map[start : start + 256])
        if head["version"] > VERSION:
            raise InvalidInputError(
                f"data: {str(path)!r} is of version {head['version']}, this program reads up to "
                f"{VERSION}; update it"
            )
        self.cutoff = float(head["cutoff"])
        table = np.frombuffer(self._map[start + 256 : start + length], dtype="<u8")
        ends, atoms, edges = table.reshape(3, head["n"]).astype(np.int64)
        self._starts = np.concatenate([[0], ends])
        self.n_atoms: NDArray = atoms
        self.n_edges: NDArray = edges

    def __len__(self) -> int:
        return len(self.n_atoms)

    def __getitem__(self, index: int) -> tuple[Structure, NDArray, NDArray]:
        """Structure, `edge_index` [2, e] and `shifts` [e, 3]."""
        view = memoryview(self._map)[self._starts[index] : self._starts[index + 1]]
        structure, arrays = _unpack(view)
        return structure, arrays["edge_index"], arrays["shifts"]

    def structures(self) -> Iterator[Structure]:
        """All structures, one after the other."""
        for index in range(len(self)):
            yield self[index][0]

    def graph(self, index: int, cutoff: float, fidelities: tuple[str, ...] = ()) -> LabelledGraph:
        """A structure as a graph.

        Args:
            index: which.
            cutoff: in Angstrom, at most that of the file.
            fidelities: levels of theory that the model knows.

        Returns:
            The graph.

        Raises:
            InvalidInputError: a larger cutoff or an unknown level of theory.
        """
        if cutoff > self.cutoff:
            raise InvalidInputError(
                f"r_max: expected at most the cutoff {self.cutoff} A of {str(self.path)!r}, got "
                f"{cutoff}"
            )
        structure, edge_index, shifts = self[index]
        if cutoff < self.cutoff:
            sender, centre = edge_index
            vectors = structure.positions[sender] - structure.positions[centre]
            vectors = vectors + shifts @ structure.cell
            near = (vectors**2).sum(axis=1) < cutoff**2
            edge_index, shifts = edge_index[:, near], shifts[near]
        level = fidelity_index(structure.fidelity, fidelities, structure.source)
        return assemble(structure, edge_index, shifts, level)


def _pack(structure: Structure, found: Neighbours) -> bytes:
    """One block: length of the head, JSON head (scalars, shapes), arrays at multiples of eight."""
    head: dict[str, Any] = {name: getattr(structure, name) for name in _SCALARS}
    shapes, body = {}, bytearray()
    for name, dtype in _ARRAYS.items():
        value = getattr(found if name in _EDGES else structure, name)
        if value is None:
            continue
        array = np.ascontiguousarray(value)
        stored: NDArray = array.astype(dtype)
        if not np.array_equal(stored, array, equal_nan=array.dtype.kind == "f"):
            raise InvalidInputError(
                f"{structure.source}: {name} does not fit into {dtype.__name__}"
            )
        shapes[name] = list(stored.shape)
        body += stored.tobytes()
        body += b"\0" * (-len(body) % 8)
    text = json.dumps({**head, "shapes": shapes}).encode()
    text += b" " * (-(len(text)) % 8)
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _unpack(view: memoryview) -> tuple[Structure, dict[str, NDArray]]:
    (length,) = struct.unpack("<Q", view[:8])
    head = json.loads(bytes(view[8 : 8 + length]))
    place, arrays = 8 + length, dict[str, Any]()
    for name, shape in head.pop("shapes").items():
        dtype = np.dtype(_ARRAYS[name])
        count = int(np.prod(shape))
        arrays[name] = np.frombuffer(view, dtype, count, place).reshape(shape)
        place += count * dtype.itemsize
        place += -place % 8
    edges = {name: arrays.pop(name) for name in _EDGES}
    return Structure(**head, **arrays), edges
