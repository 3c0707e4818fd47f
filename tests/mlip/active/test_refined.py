"""The correction interpolates; the corrected relaxation ends in the reference's own minimum."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from ase.calculators.morse import MorsePotential
from ase.cluster import Icosahedron
from ase.constraints import FixAtoms
from ase.optimize import BFGS
from scipy.spatial.transform import Rotation

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows.common import max_force
from mlip.active.bonding import Bonds
from mlip.active.correction import DifferenceModel, PairDistances
from mlip.active.refined import BondsChangedWarning, relax_refined
from mlip.active.refined_calculator import RefinedCalculator


def model_of(atoms):
    return DifferenceModel(PairDistances(atoms))


def difference(atoms):
    """Energy and gradient of one potential minus those of another."""
    found = []
    for calc in (EMT(), MorsePotential(epsilon=0.35, r0=2.55, rho0=3.6, rcut1=7, rcut2=8)):
        work = atoms.copy()
        work.calc = calc
        found.append((work.get_potential_energy(), work.get_forces()))
    return found[0][0] - found[1][0], found[1][1] - found[0][1]


def test_points_of_a_wrong_turn_do_not_blur_the_correction(rng):
    atoms = Icosahedron("Cu", 2)
    model = model_of(atoms)
    images = []
    for size in [*[0.02] * 4, *[0.35] * 8]:
        images.append(atoms.copy())
        images[-1].rattle(size, rng=rng)
        energy, gradient = difference(images[-1])
        model.add(images[-1].positions, energy, gradient)
    near = images[0].positions
    expected = difference(images[0])[0]
    blurred = abs(model.predict(near)[0] - expected)
    model.focus(near)
    assert abs(model.predict(near)[0] - expected) < min(0.01, blurred)


@pytest.mark.parametrize("periodic", [False, True])
def test_the_correction_interpolates_energies_and_gradients(rng, periodic):
    atoms = bulk("Cu", cubic=True) * (2, 1, 1) if periodic else Icosahedron("Cu", 2)
    model = model_of(atoms)
    energy, gradient = model.predict(atoms.positions)
    assert energy == 0.0
    assert not gradient.any()
    points = [atoms.positions + rng.normal(scale=0.05, size=(len(atoms), 3)) for _ in range(4)]
    images = []
    for positions in points:
        image = atoms.copy()
        image.positions = positions
        images.append(image)
        model.add(positions, *difference(image))
    for image in images:
        energy, gradient = model.predict(image.positions)
        known = difference(image)
        assert energy == pytest.approx(known[0], abs=5e-3)
        assert np.abs(gradient - known[1]).max() < 0.05 * np.abs(known[1]).max()
    # between them it leaves little of the difference
    between = atoms.copy()
    between.positions = np.mean(points, axis=0)
    known = difference(between)[1]
    assert np.abs(model.predict(between.positions)[1] - known).max() < 0.5 * np.abs(known).max()


def test_the_gradient_is_that_of_the_energy_and_turns_with_the_structure(rng):
    atoms = molecule("CH3OH")
    model = model_of(atoms)
    n = len(atoms)
    for _ in range(3):
        moved = atoms.positions + rng.normal(scale=0.1, size=(n, 3))
        model.add(moved, rng.normal(), rng.normal(size=(n, 3)))
    # weights of 1e6 leave energies with 1e-10 eV of rounding: shorter steps would show nothing else
    point, step = atoms.positions + rng.normal(scale=0.1, size=(n, 3)), 1e-3
    energy, gradient = model.predict(point)
    assert np.abs(gradient).max() > 1e-2
    for index in ((0, 0), (2, 1), (5, 2)):
        energies = []
        for sign in (1, -1):
            moved = point.copy()
            moved[index] += sign * step
            energies.append(model.predict(moved)[0])
        slope = (energies[0] - energies[1]) / (2 * step)
        assert gradient[index] == pytest.approx(slope, rel=1e-4)
    turn = Rotation.random(random_state=1).as_matrix()
    turned = model.predict(point @ turn.T + 3.0)
    assert turned[0] == pytest.approx(energy, abs=1e-9)
    np.testing.assert_allclose(turned[1], gradient @ turn.T, atol=1e-9)


def test_numbers_that_are_not_finite_are_refused():
    model = model_of(molecule("H2"))
    with pytest.raises(InvalidInputError, match="finite"):
        model.add(molecule("H2").positions, np.nan, np.zeros((2, 3)))


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


def test_bonds_that_a_relaxation_breaks_or_makes_are_told():
    atoms = Atoms("O2H2", [(0, 0, 0), (0, 0, 1.45), (0, 0.95, -0.2), (0, 1.9, -0.2)])
    repulsive = LennardJones(sigma=2.0, epsilon=0.2, rc=6.0)
    with pytest.warns(BondsChangedWarning, match="O0-O1 broken"):
        result = relax_refined(atoms, repulsive, repulsive)
    assert "O0-O1 broken" in result.bond_changes
    assert "bonds: O0-O1 broken" in result.table()
    apart = Atoms("OH", [(0, 0, 0), (0, 0, 2.0)])
    near = Atoms("OH", [(0, 0, 0), (0, 0, 1.0)])
    assert Bonds(apart).changes(near) == ["O0-H1 made"]
    assert Bonds(near).changes(apart) == ["O0-H1 broken"]
    stretched = Atoms("OH", [(0, 0, 0), (0, 0, 1.4)])
    assert not Bonds(near).changes(stretched)
    assert not Bonds(stretched).changes(apart)
    wrapped = Atoms("OH", [(0, 0, 0.1), (0, 0, 9.1)], cell=(10, 10, 10), pbc=True)
    assert not Bonds(near).changes(wrapped)


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
