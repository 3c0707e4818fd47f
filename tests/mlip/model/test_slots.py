import pytest
import torch

from mlip.model.slots import EdgeSlots

#: Atom 3 has no neighbour, atom 0 has most; one-sided edges are allowed.
EDGES = torch.tensor([[1, 2, 0, 0, 1, 4], [0, 0, 1, 2, 0, 2]])


@pytest.mark.parametrize("edges", [EDGES, EDGES[:, [3, 0, 5, 1, 4, 2]], EDGES[:, :0]])
def test_slots_hold_each_edge_once_at_its_atoms(edges):
    slots = EdgeSlots.of(edges, 5)
    values = torch.arange(1.0, edges.shape[1] + 1)[:, None]
    by_receiver = slots.fill(values, torch.zeros(1))
    assert by_receiver.shape == (5 * slots.width, 1)
    by_sender = slots.sender_order(by_receiver)
    for rows, atoms in ((by_receiver, edges[1]), (by_sender, edges[0])):
        for atom, row in enumerate(rows.view(5, slots.width).tolist()):
            expected = values[atoms == atom, 0].tolist()
            assert sorted(v for v in row if v) == sorted(expected)
    assert torch.equal(slots.receiver_order(by_sender), by_receiver)


def test_reading_in_another_order_differentiates_twice():
    slots = EdgeSlots.of(EDGES, 5)
    values = torch.rand(6, 2, dtype=torch.float64, requires_grad=True)
    empty = torch.zeros(2, dtype=torch.float64)

    def squared(v):
        return slots.sender_order(slots.fill(v, empty)) ** 3

    assert torch.autograd.gradgradcheck(squared, values)
