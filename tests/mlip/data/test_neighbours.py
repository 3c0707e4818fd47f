"""Edges against ASE's neighbour list, and the reuse of a list against a new search."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.neighborlist import neighbor_list

from ase_neuralxc.errors import InvalidInputError
from mlip.data.neighbours import SkinNeighbours, neighbours


def skewed():
    atoms = bulk("Fe", cubic=False)
    atoms.set_cell(atoms.cell.array @ [[1, 0, 0], [0.7, 1, 0], [-0.4, 0.9, 1]], scale_atoms=True)
    return atoms


def flat():
    atoms = fcc111("Cu", (2, 1, 2), vacuum=6.0)
    atoms.cell[2] = 0.0  # open direction without a lattice vector
    return atoms


def wire():
    return Atoms("CO", positions=[[9.0, 0, 0], [0.3, 1.1, -0.2]], cell=[2.5, 0, 0], pbc=[1, 0, 0])


SYSTEMS = {
    "molecule": lambda: molecule("CH3CH2OH"),
    "one image per neighbour": lambda: bulk("Cu", cubic=True) * 3,
    "smaller than the cutoff": lambda: bulk("Cu"),
    "skewed": skewed,
    "two periodic directions": flat,
    "one periodic direction, atoms outside": wire,
    "isolated atom": lambda: Atoms("H"),
}


def sorted_edges(edge_index, shifts):
    rows = np.vstack([edge_index, np.asarray(shifts).T]).astype(int)
    return rows[:, np.lexsort(rows[::-1])]


@pytest.mark.parametrize("name", SYSTEMS)
def test_edges_equal_those_of_ase(name, rng):
    atoms = SYSTEMS[name]()
    atoms.rattle(0.05, rng=rng)
    found = neighbours(atoms.positions, atoms.cell.array, atoms.pbc, 5.0)
    i, j, shifts = neighbor_list("ijS", atoms, 5.0)
    expected = sorted_edges(np.stack([j, i]), shifts)
    assert expected.shape[1] > 0 or name == "isolated atom"
    np.testing.assert_array_equal(sorted_edges(found.edge_index, found.shifts), expected)
    assert (np.diff(found.edge_index[1]) >= 0).all()


def test_skin_gives_the_edges_of_a_new_search_and_searches_less(rng):
    atoms = bulk("Cu", cubic=True) * 2
    atoms.rattle(0.05, rng=rng)
    kept = SkinNeighbours(4.0, skin=0.6)
    steps = 40
    for _ in range(steps):
        atoms.positions += rng.normal(scale=0.02, size=atoms.positions.shape)
        atoms.positions[:, 0] += 0.3  # a drift moves no atom against another
        strain = np.eye(3) + rng.normal(scale=0.002, size=(3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        edges, shifts = kept.update(atoms.positions, atoms.cell.array, atoms.pbc)
        new = neighbours(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
        np.testing.assert_array_equal(
            sorted_edges(edges.numpy(), shifts.numpy()), sorted_edges(new.edge_index, new.shifts)
        )
    assert 1 < kept.searches < steps / 2


def test_skin_searches_again_for_another_structure():
    kept = SkinNeighbours(4.0)
    for atoms in (bulk("Cu"), molecule("H2O"), bulk("Cu") * 2, Atoms("H")):
        edges, _ = kept.update(atoms.positions, atoms.cell.array, atoms.pbc)
        new = neighbours(atoms.positions, atoms.cell.array, atoms.pbc, 4.0)
        assert edges.shape == new.edge_index.shape
    assert kept.searches == 4


@pytest.mark.parametrize(
    ("positions", "cell", "pbc", "text"),
    [
        (np.empty((0, 3)), np.eye(3), [0, 0, 0], "expected at least one atom"),
        ([[0, 0, np.nan]], np.eye(3), [0, 0, 0], r"NaN or inf in atoms \[0\]"),
        ([[0, 0, 0]], np.zeros((3, 3)), [1, 1, 1], "independent lattice vectors"),
        ([[0, 0, 0]], [[1, 0, 0], [1, 0, 0], [0, 0, 1]], [1, 1, 1], "independent lattice vectors"),
        ([[0, 0, 0]], np.diag([3.0, 0, 3.0]), [1, 1, 1], "independent lattice vectors"),
    ],
)
def test_what_cannot_be_searched_is_an_error(positions, cell, pbc, text):
    with pytest.raises(InvalidInputError, match=text):
        neighbours(np.array(positions, float), np.array(cell, float), np.array(pbc, bool), 3.0)
