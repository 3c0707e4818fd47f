"""The two orders of a grid describe the same points."""

from __future__ import annotations

import numpy as np
import pytest
from pyscf import dft
from systems import as_system, water

from ase_neuralxc.backend.atom_grid import AtomGrid, in_order_of_atoms
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import build_mole, resolve_spin


@pytest.fixture(scope="module")
def grids():
    mol = build_mole(resolve_spin(as_system(water())), KSSettings(basis="6-31g"))
    built = dft.gen_grid.Grids(mol)
    built.level = 0
    built.alignment = 64
    return built.build(with_non0tab=True)


def test_padding_goes_and_every_point_belongs_to_its_atom(grids):
    grid = AtomGrid.of(grids)
    padding = np.count_nonzero(grids.atm_idx < 0)
    assert padding > 0
    assert grid.host_size == grids.weights.size == grid.order.size + padding
    assert [s.stop for s in grid.atom_slices[:-1]] == [s.start for s in grid.atom_slices[1:]]
    assert (grid.atom_slices[0].start, grid.atom_slices[-1].stop) == (0, grid.order.size)
    for atom, points in enumerate(grid.atom_slices):
        owned = grids.atm_idx == atom
        assert owned.sum() == points.stop - points.start > 100
        np.testing.assert_array_equal(grid.coords[points], grids.coords[owned])
        # symmetric around the nucleus with the weights of its own grid, not with the partitioned
        away = grid.coords[points] - grid.atom_coords[atom]
        near = np.exp(-(away**2).sum(1))
        moment = near * grid.atomic_weights[points] @ away
        assert np.abs(moment).max() < 1e-10 < np.abs(near * grid.weights[points] @ away).max()
        assert near @ grid.atomic_weights[points] == pytest.approx(
            np.pi**1.5, rel=1e-3
        )  # a coarse grid


def test_gather_and_scatter_are_inverse(grids, rng):
    grid = AtomGrid.of(grids)
    values = rng.normal(size=(2, 5, grid.order.size))
    spread = grid.scatter(values)
    assert spread.shape == (2, 5, grid.host_size)
    assert not spread[..., grids.atm_idx < 0].any()
    np.testing.assert_array_equal(grid.gather(spread), values)
    np.testing.assert_array_equal(grid.gather(grids.weights), grid.weights)


def test_order_of_atoms_has_the_same_points(grids):
    plain = in_order_of_atoms(grids)
    assert grids.alignment == 64
    assert plain.weights.size == np.count_nonzero(grids.atm_idx >= 0)
    grid, reordered = AtomGrid.of(plain), AtomGrid.of(grids)
    np.testing.assert_array_equal(grid.order, np.arange(plain.weights.size))
    assert grid.atom_slices == reordered.atom_slices
    for points in grid.atom_slices:
        for values in ("weights", "atomic_weights"):
            a, b = (np.sort(getattr(g, values)[points]) for g in (grid, reordered))
            np.testing.assert_array_equal(a, b)


def test_parts_are_the_molecule_or_its_atoms(grids):
    grid = AtomGrid.of(grids)
    assert list(grid.parts(False)) == [(slice(0, 3), slice(0, grid.order.size))]
    assert [points for _, points in grid.parts(True)] == list(grid.atom_slices)
    assert [atoms for atoms, _ in grid.parts(True)] == [slice(a, a + 1) for a in range(3)]
