"""The correction interpolates; the corrected relaxation ends in the reference's own minimum."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms
from ase.optimize import BFGS

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows.common import max_force
from mlip.active.correction import DifferenceModel
from mlip.active.refined import RefinedCalculator, relax_refined


def quadratic(rng, d=6):
    matrix = rng.normal(size=(d, d))
    matrix = matrix + matrix.T
    slope = rng.normal(size=d)
    return lambda x: (1.0 + slope @ x + 0.5 * x @ matrix @ x, slope + matrix @ x)


def test_the_correction_interpolates_energies_and_gradients(rng):
    function = quadratic(rng)
    model = DifferenceModel()
    assert model.predict(np.zeros(6)) == (0.0, pytest.approx(np.zeros(6)))
    points = rng.normal(scale=0.1, size=(5, 6))
    for point in points:
        model.add(point, *function(point))
    for point in points:
        energy, gradient = model.predict(point)
        assert energy == pytest.approx(function(point)[0], abs=2e-3)
        np.testing.assert_allclose(gradient, function(point)[1], atol=2e-2)
    # nearby it is better than the nearest point alone
    point = points.mean(axis=0)
    assert np.abs(model.predict(point)[1] - function(point)[1]).max() < 0.1


def test_the_gradient_is_that_of_the_energy(rng):
    model = DifferenceModel()
    for _ in range(3):
        model.add(rng.normal(scale=0.1, size=(4, 3)), rng.normal(), rng.normal(size=(4, 3)))
    point, step = rng.normal(scale=0.1, size=(4, 3)), 1e-5
    _, gradient = model.predict(point)
    assert np.abs(gradient).max() > 1e-2
    for index in ((0, 0), (2, 1), (3, 2)):
        energies = []
        for sign in (1, -1):
            moved = point.copy()
            moved[index] += sign * step
            energies.append(model.predict(moved)[0])
        slope = (energies[0] - energies[1]) / (2 * step)
        assert gradient[index] == pytest.approx(slope, abs=1e-7)


def test_points_that_do_not_fit_are_refused(rng):
    model = DifferenceModel()
    model.add(np.zeros(6), 0.0, np.zeros(6))
    with pytest.raises(InvalidInputError, match="expected 6 coordinates"):
        model.add(np.zeros(9), 0.0, np.zeros(9))
    with pytest.raises(InvalidInputError, match="finite"):
        model.add(np.zeros(6), np.nan, np.zeros(6))


def cluster(rng):
    atoms = Icosahedron("Cu", 2)
    atoms.rattle(0.25, rng=rng)
    return atoms


def plain_relaxation(atoms, calc):
    atoms.calc = calc
    with BFGS(atoms, logfile=None) as optimizer:
        optimizer.run(fmax=0.02, steps=500)
        return optimizer.nsteps + 1  # the first geometry is a calculation too


def test_a_cluster_reaches_the_minimum_of_the_reference_with_few_calls(rng):
    start = cluster(rng)
    plain = start.copy()
    n_plain = plain_relaxation(plain, EMT())
    # a crude potential: a pair potential with a bond that is 3 % off
    crude = MorsePotential(epsilon=0.35, r0=2.5, rho0=3.6)
    result = relax_refined(start, crude, EMT())
    assert result.converged
    assert n_plain >= 20
    assert result.n_dft <= n_plain / 7
    assert result.atoms.get_potential_energy() == pytest.approx(
        plain.get_potential_energy(), abs=5e-3
    )
    assert max_force(result.atoms.get_forces()) < 0.02
    assert len(result.records) == len(result.fmaxes) == result.n_dft
    assert f"converged: {result.n_dft} DFT calculations" in result.table()


def test_fixed_atoms_stay_and_the_picture_is_written(rng, tmp_path):
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    slab.set_constraint(FixAtoms(indices=range(8)))
    slab.rattle(0.15, rng=rng)
    held = slab.positions[:8].copy()
    crude = MorsePotential(epsilon=0.35, r0=2.6, rho0=3.6)
    result = relax_refined(slab, crude, EMT())
    assert result.converged
    np.testing.assert_array_equal(result.atoms.positions[:8], held)
    assert result.plot(tmp_path / "path.png").stat().st_size > 1000


def test_a_budget_that_is_too_small_is_said(rng):
    with pytest.warns(UnconvergedWarning, match="after 1 DFT calculations"):
        result = relax_refined(cluster(rng), LennardJones(sigma=2.4, epsilon=0.3), EMT(), budget=1)
    assert not result.converged
    assert "NOT CONVERGED" in result.table()


def test_another_system_and_another_setting_are_refused(rng):
    calc = RefinedCalculator(LennardJones(), EMT())
    calc.observe(Atoms("Cu2", [(0, 0, 0), (0, 0, 2.2)]))
    with pytest.raises(InvalidInputError, match="system of the DFT points"):
        calc.observe(molecule("CO"))
    with pytest.raises(InvalidInputError, match="Did you mean 'budget'"):
        relax_refined(cluster(rng), EMT(), EMT(), budgt=3)
