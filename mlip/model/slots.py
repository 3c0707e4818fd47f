"""Edges in slots: every atom gets the same number of places for its neighbours.

Sums over neighbours become batched matrix products, and what an atom sends is evaluated on the
sender's side without gathering its features per edge. The n x width slots are ordered once by
receiver and once by sender; the map between the orders is a permutation, so that both it and its
derivative are plain reads: no atomic additions, hence the same result in every run.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class Permute(torch.autograd.Function):
    """Rows of a tensor in another order; the derivative reads with the inverse."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """Rows `order` of `rows`."""
        ctx.save_for_backward(order, inverse)
        return rows.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Put the gradient of every row back where the row came from."""
        order, inverse = ctx.saved_tensors
        return Permute.apply(gradient, inverse, order), None, None


@dataclass(frozen=True, eq=False)
class EdgeSlots:
    """Where each edge stands.

    Attributes:
        n_atoms: n.
        n_edges: e.
        width: slots per atom, w.
        order: [n w] edge in each receiver-ordered slot; e, e + 1, ... in those left empty.
        place: [n w] inverse of `order`.
        to_sender: [n w] receiver-ordered slot for each sender-ordered slot.
        to_receiver: [n w] inverse of `to_sender`.
    """

    n_atoms: int
    n_edges: int
    width: int
    order: Tensor
    place: Tensor
    to_sender: Tensor
    to_receiver: Tensor

    @classmethod
    def of(cls, edge_index: Tensor, n_atoms: int) -> EdgeSlots:
        """Slots for a list of edges.

        Args:
            edge_index: [2, e] sender and receiver, in any order.
            n_atoms: n.

        Returns:
            The slots, as wide as the largest number of edges that one atom receives or sends.
        """
        n_edges = edge_index.shape[1]
        counts = [torch.bincount(side, minlength=n_atoms) for side in edge_index]
        width = int(torch.stack(counts).max()) if n_edges else 1
        sender_slot, receiver_slot = (
            _slots(side, count, width) for side, count in zip(edge_index, counts, strict=True)
        )
        order, place = _complete(receiver_slot, n_atoms * width)
        to_edge, from_edge = _complete(sender_slot, n_atoms * width)
        return cls(
            n_atoms=n_atoms,
            n_edges=n_edges,
            width=width,
            order=order,
            place=place,
            to_sender=place.index_select(0, to_edge),
            to_receiver=from_edge.index_select(0, order),
        )

    def fill(self, edges: Tensor, empty: Tensor) -> Tensor:
        """Rows of edges in receiver-ordered slots.

        Args:
            edges: [e, k].
            empty: [k] what stands in empty slots.

        Returns:
            [n w, k].
        """
        missing = self.n_atoms * self.width - self.n_edges
        padded = torch.cat([edges, empty.expand(missing, -1)])
        return Permute.apply(padded, self.order, self.place)

    def sender_order(self, rows: Tensor) -> Tensor:
        """[n w, k] from receiver to sender order."""
        return Permute.apply(rows, self.to_sender, self.to_receiver)

    def receiver_order(self, rows: Tensor) -> Tensor:
        """[n w, k] from sender to receiver order."""
        return Permute.apply(rows, self.to_receiver, self.to_sender)


def _slots(atoms: Tensor, counts: Tensor, width: int) -> Tensor:
    """[e] a slot of its atom for each edge; the edges of an atom keep their order."""
    position = torch.arange(len(atoms), device=atoms.device)
    first = counts.cumsum(0) - counts
    if len(atoms) < 2 or bool((atoms[1:] >= atoms[:-1]).all()):
        return atoms * width + position - first.index_select(0, atoms)
    by_atom = torch.argsort(atoms, stable=True)
    owner = atoms.index_select(0, by_atom)
    slots = torch.empty_like(atoms)
    slots[by_atom] = owner * width + position - first.index_select(0, owner)
    return slots


def _complete(slots: Tensor, total: int) -> tuple[Tensor, Tensor]:
    """A permutation of 0..total-1 (item in each slot) and its inverse (slot of each item)."""
    taken = torch.zeros(total, dtype=torch.bool, device=slots.device)
    taken[slots] = True
    slot_of_item = torch.cat([slots, (~taken).nonzero().squeeze(1)])
    item_in_slot = torch.empty_like(slot_of_item)
    item_in_slot[slot_of_item] = torch.arange(total, device=slots.device)
    return item_in_slot, slot_of_item
