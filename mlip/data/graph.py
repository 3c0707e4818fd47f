"""Structures as one graph of tensors: what a model sees, and nothing of ASE.

Missing conditioning is said explicitly (NaN, or -1 for a flag), because a zero charge and an
unknown charge are different inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError

#: Value of `AtomGraph.spin_polarised` where nobody said.
UNKNOWN_FLAG = -1


@dataclass(frozen=True, eq=False, kw_only=True)
class AtomGraph:
    """A batch of g structures with n atoms and e directed edges in all.

    Edge k points from atom `edge_index[0, k]` (the neighbour j, "sender") to atom
    `edge_index[1, k]` (the centre i, "receiver"). Edges are sorted by receiver, so that sums over
    neighbours are sums over contiguous segments (`receiver_ptr`). Both directions of a pair are
    present.

    Attributes:
        numbers: [n] atomic numbers.
        positions: [n, 3] in Angstrom.
        cell: [g, 3, 3] rows are lattice vectors in Angstrom, zeros where there is none.
        edge_index: [2, e] atoms.
        shifts: [e, 3] integer cell shifts of the neighbour, as floats.
        batch: [n] structure of each atom, ascending.
        n_graphs: g.
        charge: [g] total charge in e, NaN where unknown.
        n_unpaired: [g] unpaired electrons (2S), NaN where unknown.
        spin_polarised: [g] integers: 0 no, 1 yes, -1 unknown.
        fidelity: [g] index into the model's list of fidelities.
        magmoms: [n] signed or [n, 3] vector moments in mu_B that are an *input*, NaN where
            unknown; None where no structure has any.
    """

    numbers: Tensor
    positions: Tensor
    cell: Tensor
    edge_index: Tensor
    shifts: Tensor
    batch: Tensor
    n_graphs: int
    charge: Tensor
    n_unpaired: Tensor
    spin_polarised: Tensor
    fidelity: Tensor
    magmoms: Tensor | None = None

    @property
    def n_atoms(self) -> int:
        """Atoms in all structures."""
        return self.numbers.shape[0]

    @property
    def n_edges(self) -> int:
        """Directed edges in all structures."""
        return self.edge_index.shape[1]

    @property
    def atoms_per_graph(self) -> Tensor:
        """[g] number of atoms of each structure."""
        return torch.bincount(self.batch, minlength=self.n_graphs)

    @property
    def receiver_ptr(self) -> Tensor:
        """[n + 1] the edges into atom i are those from `receiver_ptr[i]` to `receiver_ptr[i+1]`."""
        counts = torch.bincount(self.edge_index[1], minlength=self.n_atoms)
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0))

    def edge_vectors(self, positions: Tensor | None = None, cell: Tensor | None = None) -> Tensor:
        """Vectors from centre to neighbour, differentiable in positions and cell.

        Args:
            positions: [n, 3] in place of those of the graph.
            cell: [g, 3, 3] in place of that of the graph, for example strained.

        Returns:
            [e, 3] r_j + shift . cell - r_i in Angstrom.
        """
        positions = self.positions if positions is None else positions
        cell = self.cell if cell is None else cell
        sender, receiver = self.edge_index
        vectors = positions.index_select(0, sender) - positions.index_select(0, receiver)
        if self.n_graphs == 1:
            return vectors + self.shifts @ cell[0]
        cells = cell.index_select(0, self.batch.index_select(0, receiver))
        return vectors + torch.einsum("ea,eab->eb", self.shifts, cells)

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> AtomGraph:
        """The graph on another device or with floats of another precision.

        Args:
            device: target, None to stay.
            dtype: of positions, cell, shifts, charge, n_unpaired and magmoms, None to keep it.

        Returns:
            A graph; tensors that need no change are shared.
        """
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                floats = dtype if value.is_floating_point() else None
                changed[field.name] = value.to(device=device, dtype=floats)
        return replace(self, **changed)


def collate(graphs: Sequence[AtomGraph]) -> AtomGraph:
    """One graph of several, in their order.

    Args:
        graphs: at least one, on the same device and of the same dtype.

    Returns:
        A batch with as many structures as all graphs together. Structures without moments get NaN
        if another has them; signed moments become vectors along z if another has vectors.

    Raises:
        InvalidInputError: no graph.
    """
    if not graphs:
        raise InvalidInputError("graphs: expected at least one, got none")
    if len(graphs) == 1:
        return graphs[0]
    edges, batches, n_atoms, n_graphs = [], [], 0, 0
    for graph in graphs:
        edges.append(graph.edge_index + n_atoms)
        batches.append(graph.batch + n_graphs)
        n_atoms += graph.n_atoms
        n_graphs += graph.n_graphs

    def joined(name: str) -> Tensor:
        return torch.cat([getattr(graph, name) for graph in graphs])

    return AtomGraph(
        edge_index=torch.cat(edges, dim=1),
        batch=torch.cat(batches),
        n_graphs=n_graphs,
        magmoms=_join_moments(graphs),
        **{
            name: joined(name)
            for name in (
                "numbers",
                "positions",
                "cell",
                "shifts",
                "charge",
                "n_unpaired",
                "spin_polarised",
                "fidelity",
            )
        },
    )


def along_z(moments: Tensor) -> Tensor:
    """[n, 3] vectors along z of [n] signed moments; vectors are returned as they are."""
    if moments.ndim == 2:
        return moments
    # x and y of an unknown moment are unknown as well
    nothing = moments * 0.0
    return torch.stack([nothing, nothing, moments], dim=1)


def _join_moments(graphs: Sequence[AtomGraph]) -> Tensor | None:
    present = [graph.magmoms for graph in graphs if graph.magmoms is not None]
    if not present:
        return None
    vectors = any(moments.ndim == 2 for moments in present)
    shape = (3,) if vectors else ()
    parts = []
    for graph in graphs:
        if graph.magmoms is None:
            parts.append(graph.positions.new_full((graph.n_atoms, *shape), torch.nan))
        else:
            parts.append(along_z(graph.magmoms) if vectors else graph.magmoms)
    return torch.cat(parts)
