"""Hessians are derivatives of the forces, on grids that are far from dense."""

from __future__ import annotations

import numpy as np
import pytest
from systems import aminyl, as_system, water

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.derivatives.hessian import hessian
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units

BACKEND = MolecularBackend()
#: Hartree/Bohr^2; the differences of forces have an error of 1e-6 themselves.
TOLERANCE = 3e-6
STEP = 2e-3  # Bohr


def settings(**changes):
    tight = {"conv_tol": 1e-12, "conv_tol_grad": 1e-8, "stability": "never"}
    return KSSettings(basis="sto-3g", grid_level=0, **tight, **changes)


@pytest.mark.parametrize(
    ("functional", "atoms", "reference", "density_fit"),
    [
        (LibxcFunctional("r2scan"), water(), "rks", False),
        (load_functional("r2scan"), water(), "rks", True),
        (load_functional("r2scan"), aminyl(), "uks", False),
        (load_functional("pbe0"), aminyl(), "uks", False),
        (load_functional("lda"), water(), "rks", False),
    ],
    ids=["rks-libxc", "rks-fitted", "uks", "uks-hybrid", "rks-lda"],
)
def test_hessian_equals_differences_of_forces(functional, atoms, reference, density_fit):
    chosen = settings(reference=reference, density_fit=density_fit)
    column = 4  # y of the second atom

    def gradient(shift):
        moved = atoms.copy()
        moved.positions.ravel()[column] += shift * units.BOHR_ANGSTROM
        return -BACKEND.forces(BACKEND.solve(as_system(moved), functional, chosen)).ravel()

    found = hessian(BACKEND.solve(as_system(atoms), functional, chosen))
    expected = (gradient(STEP) - gradient(-STEP)) / (2 * STEP)
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found[column], expected, atol=TOLERANCE)


def test_nothing_changes_when_all_atoms_move_and_a_grid_at_rest_does_not_know_it():
    atoms, functional = water(), LibxcFunctional("r2scan")
    sums = {}
    for moving in (True, False):
        solution = BACKEND.solve(as_system(atoms), functional, settings(grid_response=moving))
        sums[moving] = np.abs(hessian(solution).reshape(9, 3, 3).sum(axis=1)).max()
    assert sums[True] < 1e-6
    assert sums[False] > 1e-3
