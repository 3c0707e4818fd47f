"""k-point grids against ASE's own conversion, and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.calculator import kpts2ndarray

from ase_neuralxc.backend.kpoints import resolve_kpoints
from ase_neuralxc.errors import InvalidInputError

CELLS = {
    "primitive": bulk("Si"),
    "hexagonal": bulk("Mg"),
    "slab": fcc111("Al", (1, 1, 3), vacuum=6.0),
    "triclinic": Atoms("H", cell=[[3, 0, 0.2], [0.5, 4, 0], [0, 1, 5.5]], pbc=True),
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize(
    "kpts",
    [{"density": 2.5}, {"density": 2.5, "gamma": True}, {"density": 3.1, "gamma": False},
     (2, 3, 1), {"size": (4, 1, 1), "gamma": True}],
)  # fmt: skip
def test_points_equal_those_of_ase(name, kpts):
    atoms = CELLS[name]
    ours = resolve_kpoints(kpts, atoms.cell.array, atoms.pbc)
    assert np.prod(ours.size) > 1
    # a density contains Gamma unless told otherwise, which ASE wants to be asked for
    asked = {"gamma": True, **kpts} if "density" in kpts else kpts
    np.testing.assert_allclose(ours.scaled, kpts2ndarray(asked, atoms), atol=1e-12)


def test_a_density_has_the_symmetry_of_the_lattice():
    """Every rotation of silicon maps the points onto each other; those of an even size without
    Gamma have a [111] direction of their own."""
    atoms = CELLS["primitive"]
    threefold = np.roll(np.eye(3), 1, axis=0), np.diag([-1.0, -1.0, 1.0])

    def symmetric(kpts):
        grid = resolve_kpoints(kpts, atoms.cell.array, atoms.pbc)
        points = grid.scaled @ np.linalg.inv(atoms.cell.array).T
        for rotation in threefold:
            turned = (points @ rotation) @ atoms.cell.array.T
            off = turned[:, None] - grid.scaled
            if (np.abs(off - np.round(off)).max(axis=2).min(axis=1) > 1e-6).any():
                return False
        return True

    assert symmetric({"density": 2.5})
    assert resolve_kpoints({"density": 2.5}, atoms.cell.array, atoms.pbc).size[0] % 2 == 0
    assert not symmetric((2, 2, 2))


def test_gamma_for_a_molecule_whatever_was_asked():
    box = 8.0 * np.eye(3)
    for kpts in (None, (3, 3, 1), {"density": 5.0}):
        np.testing.assert_array_equal(resolve_kpoints(kpts, box).scaled, [[0, 0, 0]])
        np.testing.assert_array_equal(resolve_kpoints(kpts).scaled, [[0, 0, 0]])


def test_density_is_at_least_what_was_asked_for():
    atoms = CELLS["slab"]
    grid = resolve_kpoints({"density": 2.5}, atoms.cell.array, atoms.pbc)
    assert grid.size[2] == 1
    assert 2.5 <= grid.density(atoms.cell.array, atoms.pbc) < 3.0
    assert grid.density(atoms.cell.array, (False,) * 3) is None


@pytest.mark.parametrize(
    ("kpts", "message"),
    [
        ((2, 2), "kpts: expected three positive integers"),
        ((2, 2, 0), "kpts: expected three positive integers"),
        ((2, 2, 1.5), "kpts: expected three positive integers"),
        (3.5, "kpts: expected three positive integers"),
        ({"densty": 3.0}, "Did you mean 'density'"),
        ({"density": -1.0}, "expected a positive density"),
        ({"gamma": True}, "either 'density' or 'size'"),
        ({"density": 1.0, "gamma": "yes"}, "True or False"),
        ((2, 2, 2), "direction 2, which is not periodic"),
    ],
)
def test_malformed_settings_are_refused(kpts, message):
    atoms = CELLS["slab"]
    with pytest.raises(InvalidInputError, match=message):
        resolve_kpoints(kpts, atoms.cell.array, atoms.pbc)
