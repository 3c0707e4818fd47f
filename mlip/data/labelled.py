"""Graphs with labels, alone and in batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import UNKNOWN_FLAG, AtomGraph, along_z, collate
from mlip.data.neighbours import neighbours
from mlip.data.structure import Structure


@dataclass(frozen=True, eq=False, kw_only=True)
class Labels:
    """Labels of a batch; NaN is missing.

    Attributes:
        energy: [g] in eV.
        forces: [n, 3] in eV/Angstrom.
        stress: [g, 3, 3] in eV/Angstrom^3.
        magmoms: [n] or [n, 3] in mu_B.
        magnetic_forces: [n] or [n, 3] in eV/mu_B.
        weight: [g] of the structures in the loss.
    """

    energy: Tensor
    forces: Tensor
    stress: Tensor
    magmoms: Tensor
    magnetic_forces: Tensor
    weight: Tensor

    def to(self, device: torch.device | str) -> Labels:
        """The labels on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


@dataclass(frozen=True, eq=False)
class LabelledGraph:
    """A batch of structures, their labels and their groups.

    Attributes:
        graph: the structures.
        labels: float64.
        config_types: [g] names of groups.
    """

    graph: AtomGraph
    labels: Labels
    config_types: tuple[str, ...]

    def to(self, device: torch.device | str) -> LabelledGraph:
        """The batch on another device."""
        return replace(self, graph=self.graph.to(device), labels=self.labels.to(device))


def fidelity_index(name: str, fidelities: Sequence[str], source: str) -> int:
    """Place of a level of theory in a model's list.

    Args:
        name: digest or name, "" where nobody said.
        fidelities: of the model; empty if it knows but one, without a name.
        source: for the message.

    Returns:
        The index; 0 for an empty list and for an unnamed level where there is only one.

    Raises:
        InvalidInputError: a level that is not in the list, or none given among several.
    """
    if name in fidelities:
        return fidelities.index(name)
    if len(fidelities) <= 1 and (not name or not fidelities):
        return 0
    raise InvalidInputError(
        f"{source}: fidelity: expected one of the model's levels of theory {list(fidelities)}, got "
        f"{name!r}"
    )


def to_graph(structure: Structure, cutoff: float, fidelities: Sequence[str] = ()) -> LabelledGraph:
    """A structure as a graph of one.

    Args:
        structure: the structure.
        cutoff: of the neighbour list in Angstrom.
        fidelities: levels of theory that the model knows.

    Returns:
        The graph with float64 geometry, and its labels.

    Raises:
        InvalidInputError: an unknown fidelity, or a geometry without a neighbour list.
    """
    try:
        found = neighbours(structure.positions, structure.cell, structure.pbc, cutoff)
    except InvalidInputError as error:
        raise InvalidInputError(f"{structure.source}: {error}") from None
    return assemble(
        structure,
        found.edge_index,
        found.shifts,
        fidelity_index(structure.fidelity, fidelities, structure.source),
    )


def assemble(
    structure: Structure, edge_index: NDArray, shifts: NDArray, fidelity: int
) -> LabelledGraph:
    """A structure and its edges as a graph of one.

    Args:
        structure: the structure.
        edge_index: [2, e] sorted by the second row.
        shifts: [e, 3] cell shifts.
        fidelity: index of the level of theory.

    Returns:
        The graph and its labels.
    """
    n, floats = len(structure.numbers), torch.float64
    polarised = UNKNOWN_FLAG if structure.spin_polarised is None else int(structure.spin_polarised)
    moments = structure.input_magmoms
    graph = AtomGraph(
        numbers=_tensor(structure.numbers, torch.long),
        positions=_tensor(structure.positions, floats),
        cell=_tensor(structure.cell, floats)[None],
        edge_index=_tensor(edge_index, torch.long),
        shifts=_tensor(shifts, floats),
        batch=torch.zeros(n, dtype=torch.long),
        n_graphs=1,
        charge=_number(structure.charge),
        n_unpaired=_number(structure.n_unpaired),
        spin_polarised=torch.tensor([polarised]),
        fidelity=torch.tensor([fidelity]),
        magmoms=None if moments is None else _tensor(moments, floats),
    )
    labels = Labels(
        energy=_number(structure.energy),
        forces=_label(structure.forces, (n, 3)),
        stress=_label(structure.stress, (3, 3))[None],
        magmoms=_label(structure.magmoms, (n,)),
        magnetic_forces=_label(structure.magnetic_forces, (n,)),
        weight=_number(structure.weight),
    )
    return LabelledGraph(graph, labels, (structure.config_type,))


def collate_labelled(items: Sequence[LabelledGraph]) -> LabelledGraph:
    """One batch of several.

    Args:
        items: at least one.

    Returns:
        The batch; signed moments become vectors along z where another structure has vectors.
    """
    labels = {}
    for field in fields(Labels):
        parts = [getattr(item.labels, field.name) for item in items]
        if field.name in ("magmoms", "magnetic_forces") and any(p.ndim == 2 for p in parts):
            parts = [along_z(part) for part in parts]
        labels[field.name] = torch.cat(parts)
    return LabelledGraph(
        collate([item.graph for item in items]),
        Labels(**labels),
        tuple(name for item in items for name in item.config_types),
    )


def _tensor(array: NDArray, dtype: torch.dtype) -> Tensor:
    # A copy: arrays may be read-only views of a mapped file, which torch warns about.
    return torch.tensor(np.ascontiguousarray(array), dtype=dtype)


def _number(value: float | None) -> Tensor:
    return torch.tensor([torch.nan if value is None else value], dtype=torch.float64)


def _label(value: NDArray | None, shape: tuple[int, ...]) -> Tensor:
    if value is None:
        return torch.full(shape, torch.nan, dtype=torch.float64)
    return _tensor(value, torch.float64)
