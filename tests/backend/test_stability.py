"""The lowest mode of the orbital Hessian against energies."""

from __future__ import annotations

import numpy as np
import pytest
from systems import aminyl, as_system, stretched_hydrogen, water

from ase_neuralxc.backend.ladder import DIIS
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.stability import (
    aufbau_violated,
    coarse_newton,
    doubtful,
    downhill,
    lowest_mode,
    smallest_gap,
)
from ase_neuralxc.functional import load_functional


def solve(atoms, reference, **state):
    settings = KSSettings(basis="6-31g", grid_level=1, reference=reference, stability="never")
    backend = MolecularBackend(ladder=(DIIS("diis"),))
    return backend.solve(as_system(atoms, **state), load_functional("r2scan"), settings).host


@pytest.fixture(scope="module")
def unstable():
    return solve(stretched_hydrogen(2.5), "uks")


def test_an_instability_is_found_and_leads_downhill(unstable):
    mode = lowest_mode(unstable)
    assert mode.eigenvalue < -0.05
    assert np.linalg.norm(mode.vector) == pytest.approx(1.0, abs=1e-6)
    density = downhill(unstable)
    assert density is not None
    assert unstable.energy_tot(density) < unstable.e_tot - 1e-3


@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
def test_the_eigenvalue_is_the_curvature_of_the_energy(reference):
    mf = solve(water() if reference == "rks" else aminyl(), reference)
    mode = lowest_mode(mf, grid_level=None)
    assert mode.eigenvalue > 0.01
    newton = coarse_newton(mf, None)

    def energy(length):
        rotation = newton.update_rotate_matrix(length * mode.vector, mf.mo_occ)
        orbitals = newton.rotate_mo(np.asarray(mf.mo_coeff), rotation)
        return mf.energy_tot(mf.make_rdm1(orbitals, mf.mo_occ))

    # E(x) = E + 2 g.x + x.H x with H the operator of `gen_g_hop`
    step = 0.02
    curvature = (energy(step) - 2 * energy(0.0) + energy(-step)) / (2 * step**2)
    assert curvature == pytest.approx(mode.eigenvalue, rel=0.01)
    assert downhill(mf) is None
    assert lowest_mode(mf).eigenvalue == pytest.approx(mode.eigenvalue, rel=0.1)


def test_the_coarse_grid_is_the_solvers_own(unstable):
    newton = coarse_newton(unstable)
    assert newton.grids.weights.size < unstable.grids.weights.size
    assert newton._scf.grids.weights.size == unstable.grids.weights.size


def test_ordinary_molecules_are_not_doubted(unstable):
    assert not doubtful(solve(water(), "rks"), water().numbers)
    radical = solve(aminyl(), "uks")
    assert not doubtful(radical, aminyl().numbers)
    assert doubtful(radical, np.array([26]))
    assert doubtful(unstable, np.array([1, 1]))


def test_a_hole_is_seen():
    mf = solve(aminyl(), "uks")
    gap = smallest_gap(mf)
    assert gap > 0.05
    assert not aufbau_violated(mf)
    excited = mf.copy()
    excited.mo_occ = np.array(mf.mo_occ)
    excited.mo_occ[1, 3], excited.mo_occ[1, 4] = 0.0, 1.0
    assert aufbau_violated(excited)
    assert smallest_gap(excited) < 0
