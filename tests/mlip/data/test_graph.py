"""Edge vectors, batches and the segments of the receivers."""

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule
from ase.neighborlist import neighbor_list

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import AtomGraph, along_z, collate
from mlip.data.neighbours import neighbours


def graph(atoms, magmoms=None, charge=torch.nan):
    found = neighbours(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
    return AtomGraph(
        numbers=torch.tensor(atoms.numbers),
        positions=torch.tensor(atoms.positions),
        cell=torch.tensor(atoms.cell.array)[None],
        edge_index=torch.tensor(found.edge_index),
        shifts=torch.tensor(found.shifts, dtype=torch.float64),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        n_graphs=1,
        charge=torch.tensor([charge]),
        n_unpaired=torch.tensor([torch.nan]),
        spin_polarised=torch.tensor([-1]),
        fidelity=torch.tensor([0]),
        magmoms=magmoms,
    )


@pytest.fixture
def structures(rng):
    found = [molecule("H2O"), bulk("Cu") * 2, molecule("H"), bulk("Fe")]
    for atoms in found:
        atoms.rattle(0.05, rng=rng)
    return found


def test_edge_vectors_of_a_batch_are_those_of_ase(structures):
    batch = collate([graph(atoms) for atoms in structures])
    expected = [neighbor_list("D", atoms, 4.0) for atoms in structures]
    assert batch.n_graphs == 4
    assert batch.n_edges == sum(map(len, expected)) > 0
    vectors = batch.edge_vectors().numpy()
    graph_of_edge = batch.batch[batch.edge_index[1]]
    for index, reference in enumerate(expected):
        mine = vectors[graph_of_edge == index]

        def rows(array):
            return array[np.lexsort(np.round(array, 8).T)]

        np.testing.assert_allclose(rows(mine), rows(reference), atol=1e-12)


def test_receiver_ptr_bounds_the_edges_of_each_atom(structures):
    batch = collate([graph(atoms) for atoms in structures])
    ptr = batch.receiver_ptr
    assert ptr[-1] == batch.n_edges
    for atom in range(batch.n_atoms):
        edges = (batch.edge_index[1] == atom).nonzero().squeeze(1)
        assert torch.equal(edges, torch.arange(int(ptr[atom]), int(ptr[atom + 1])))
    assert batch.atoms_per_graph.tolist() == [len(atoms) for atoms in structures]


def test_edge_vectors_are_differentiable_in_a_strain(structures):
    batch = collate([graph(atoms) for atoms in structures])
    strain = torch.zeros(4, 3, 3, dtype=torch.float64, requires_grad=True)
    map_ = torch.eye(3, dtype=torch.float64) + strain
    positions = torch.einsum("na,nab->nb", batch.positions, map_[batch.batch])
    vectors = batch.edge_vectors(positions, batch.cell @ map_)
    unstrained = batch.edge_vectors()
    (gradient,) = torch.autograd.grad((vectors**2).sum(), strain)
    edge_graph = batch.batch[batch.edge_index[1]]
    expected = torch.zeros_like(strain).index_add(
        0, edge_graph, 2 * unstrained[:, :, None] * unstrained[:, None, :]
    )
    assert expected.abs().max() > 1.0
    torch.testing.assert_close(gradient, expected.detach())


def test_missing_moments_are_nan_and_signed_ones_lie_along_z():
    water, iron = molecule("H2O"), bulk("Fe")
    signed = graph(iron, magmoms=torch.tensor([2.2]))
    vector = graph(iron, magmoms=torch.tensor([[0.1, 0.2, 0.3]]))
    assert collate([graph(water), graph(iron)]).magmoms is None
    moments = collate([graph(water), signed]).magmoms
    assert moments[:3].isnan().all()
    assert moments[3] == torch.tensor(2.2)
    moments = collate([graph(water), signed, vector]).magmoms
    assert moments[:3].isnan().all()
    torch.testing.assert_close(moments[3:].float(), torch.tensor([[0, 0, 2.2], [0.1, 0.2, 0.3]]))
    assert along_z(torch.tensor([torch.nan])).isnan().all()


def test_conversion_changes_floats_only(structures):
    single = graph(structures[0], charge=1.0).to(dtype=torch.float32)
    assert single.positions.dtype == single.shifts.dtype == torch.float32
    assert single.numbers.dtype == single.fidelity.dtype == torch.int64
    assert single.charge.item() == 1.0
    same = single.to("cpu")
    assert same.positions is single.positions


def test_an_empty_batch_is_an_error():
    with pytest.raises(InvalidInputError, match="expected at least one, got none"):
        collate([])
