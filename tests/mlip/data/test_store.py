"""Graphs read from a mapped file equal those built from the structures."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk, molecule

from ase_neuralxc.errors import InvalidInputError
from mlip.data.batching import BatchSettings, evaluation_batches, load, order, pack
from mlip.data.dataset import MappedDataset, MemoryDataset, Subset, is_store, open_dataset
from mlip.data.labelled import Labels, fidelity_index, to_graph
from mlip.data.store import GraphStore, write_store
from mlip.data.structure import DataKeys, Structure


@pytest.fixture
def structures(rng):
    found = []
    for k, atoms in enumerate([bulk("Cu") * 2, molecule("H2O"), molecule("H"), bulk("Fe")]):
        atoms.rattle(0.05, rng=rng)
        moments = rng.normal(size=(len(atoms), 3)) if k == 3 else None
        found.append(
            Structure(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=atoms.cell.array,
                pbc=atoms.pbc,
                energy=-float(k) if k else None,
                forces=rng.normal(size=(len(atoms), 3)) if k != 2 else None,
                stress=rng.normal(size=(3, 3)) if k == 3 else None,
                input_magmoms=moments,
                magnetic_forces=moments,
                charge=1.0 if k == 1 else None,
                spin_polarised=True if k == 3 else None,
                config_type=f"kind {k}",
                source=f"made, frame {k}",
            )
        )
    return found


def in_order(item):
    """The same with the neighbours of each atom in a canonical order."""
    rows = torch.cat([item.graph.edge_index, item.graph.shifts.T.long()])
    keys = np.lexsort(rows.numpy()[[4, 3, 2, 0, 1]])
    graph = replace(
        item.graph, edge_index=item.graph.edge_index[:, keys], shifts=item.graph.shifts[keys]
    )
    return replace(item, graph=graph)


def assert_equal(one, other):
    one, other = in_order(one), in_order(other)
    for name in vars(one.graph):
        a, b = getattr(one.graph, name), getattr(other.graph, name)
        if isinstance(a, torch.Tensor):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
        else:
            assert a == b
    for name in vars(one.labels):
        a, b = getattr(one.labels, name), getattr(other.labels, name)
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)
    assert one.config_types == other.config_types


@pytest.mark.parametrize("cutoff", [5.0, 3.7])
def test_mapped_graphs_equal_those_in_memory(tmp_path, structures, cutoff):
    path = tmp_path / "a.graphs"
    assert write_store(path, iter(structures), 5.0) == 4
    memory = MemoryDataset([to_graph(s, cutoff) for s in structures])
    mapped = MappedDataset(path, cutoff)
    assert len(mapped) == len(memory) == 4
    np.testing.assert_array_equal(mapped.n_atoms, memory.n_atoms)
    for one, other in zip(mapped, memory, strict=True):
        assert_equal(one, other)
    assert_equal(load(mapped, [2, 0, 3]), load(memory, [2, 0, 3]))
    assert is_store([str(path)])
    assert isinstance(open_dataset([str(path)], DataKeys(), cutoff), MappedDataset)


def test_missing_labels_are_nan_in_a_batch(structures):
    batch = load(MemoryDataset([to_graph(s, 5.0) for s in structures]), range(4))
    assert batch.labels.energy.isnan().tolist() == [True, False, False, False]
    assert batch.labels.forces.isnan().any(1).tolist() == [False] * 11 + [True] + [False]
    assert batch.labels.magnetic_forces.shape == (13, 3)
    assert batch.labels.magnetic_forces.isnan().any(1).sum() == 12
    assert batch.graph.spin_polarised.tolist() == [-1, -1, -1, 1]
    assert batch.graph.charge.isnan().tolist() == [True, False, True, True]
    assert isinstance(batch.to("cpu").labels, Labels)


def test_files_that_are_no_store(tmp_path, structures):
    path = tmp_path / "a.graphs"
    write_store(path, structures, 4.0)
    with pytest.raises(InvalidInputError, match=r"expected at most the cutoff 4.0"):
        MappedDataset(path, 5.0)[0]
    whole = path.read_bytes()
    for content in (whole[:-1], whole[: len(whole) // 2], b"x" * 200, b""):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError, match=r"truncated|cannot open"):
            GraphStore(path)
    path.write_bytes(whole.replace(b'"version": 1,', b'"version": 7,'))
    with pytest.raises(InvalidInputError, match="of version 7"):
        GraphStore(path)
    with pytest.raises(InvalidInputError, match=r"ends in .graphs"):
        write_store(tmp_path / "a.db", structures, 4.0)
    with pytest.raises(InvalidInputError, match="at least one"):
        write_store(tmp_path / "b.graphs", [], 4.0)
    assert not (tmp_path / "b.graphs").exists()
    with pytest.raises(InvalidInputError, match=r"expected one .graphs file"):
        is_store(["a.graphs", "b.graphs"])


def test_batches_keep_their_limits(structures):
    data = MemoryDataset([to_graph(s, 5.0) for s in structures * 5])
    indices = order(len(data), seed=1, epoch=0)
    for settings in (
        BatchSettings(structures=3),
        BatchSettings(structures=None, atoms=12),
        BatchSettings(structures=None, edges=700),
    ):
        batches = pack(indices, data, settings)
        np.testing.assert_array_equal(np.concatenate(batches), indices)
        for batch in batches:
            sizes = (len(batch), data.n_atoms[batch].sum(), data.n_edges[batch].sum())
            limits = (settings.structures, settings.atoms, settings.edges)
            for size, limit in zip(sizes, limits, strict=True):
                assert limit is None or size <= limit or len(batch) == 1
        assert 1 < len(batches) < len(data)
    with pytest.raises(InvalidInputError, match="expected a limit"):
        BatchSettings(structures=None)
    with pytest.raises(InvalidInputError, match=r"batch.atoms: expected at least 1, got 0"):
        BatchSettings(atoms=0)


def test_the_order_follows_from_seed_and_epoch():
    assert (order(50, 1, 3) == order(50, 1, 3)).all()
    assert (order(50, 1, 3) != order(50, 1, 4)).any()
    assert (order(50, 2, 3) != order(50, 1, 3)).any()


def test_evaluation_keeps_the_order(structures):
    data = Subset(MemoryDataset([to_graph(s, 5.0) for s in structures]), [3, 1, 0])
    kinds = [k for b in evaluation_batches(data, BatchSettings(2)) for k in b.config_types]
    assert kinds == ["kind 3", "kind 1", "kind 0"]


def test_levels_of_theory_are_looked_up():
    assert fidelity_index("b", ("a", "b"), "x") == 1
    assert fidelity_index("", (), "x") == fidelity_index("", ("a",), "x") == 0
    assert fidelity_index("anything", (), "x") == 0
    for name in ("", "c"):
        with pytest.raises(InvalidInputError, match="expected one of the model's levels"):
            fidelity_index(name, ("a", "b"), "x")
    with pytest.raises(InvalidInputError, match="frame 0: fidelity"):
        to_graph(
            Structure(numbers=[1], positions=[[0, 0, 0]], fidelity="c", source="frame 0"),
            5.0,
            ("a",),
        )
