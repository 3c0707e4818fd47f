"""The potential through ASE: numbers, states, warnings, committees and sums."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.emt import EMT
from ase.calculators.mixing import SumCalculator
from ase.md.verlet import VelocityVerlet
from small_potential import MODEL, clusters

import mlip
from ase_neuralxc.errors import InvalidInputError
from mlip.calculator import MLIP, CloseContactWarning
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import ModelCard, save_potential

CARD = ModelCard(
    energy_reference="EMT",
    shortest={"Cu-Cu": 1.5, "Cu-Au": 1.5, "Au-Au": 1.5},
    uncertainty_scale={"energy": 2.0, "forces": 3.0},
    uncertainty_floor={"energy": 0.01, "forces": 0.1},
)


def save(path, seed=0, card=CARD, **settings):
    torch.manual_seed(seed)
    settings = ModelSettings(elements=(29, 79), **{**MODEL, **settings})
    levels = max(len(settings.fidelities), 1)
    reference = np.array([[-3.0 - k, -4.0 - k] for k in range(levels)])
    save_potential(path, Potential(SphereModel(settings).double(), torch.tensor(reference)), card)
    return path


@pytest.fixture
def file(tmp_path):
    return save(tmp_path / "model.pt")


@pytest.fixture
def crystal(rng):
    atoms = bulk("Cu", cubic=True)
    atoms.numbers[1] = 79
    atoms.rattle(0.1, rng=rng)
    return atoms


def test_the_package_is_light_until_it_is_used(file):
    assert mlip.MLIP is MLIP
    assert dir(mlip) == ["MLIP"]
    with pytest.raises(AttributeError, match="no attribute 'MLIPP'"):
        _ = mlip.MLIPP


def test_forces_and_stress_are_derivatives_of_the_energy(file, crystal):
    crystal.calc = MLIP(file)
    forces, stress = crystal.get_forces(), crystal.get_stress(voigt=False)
    assert np.abs(forces).max() > 1e-3
    assert np.abs(stress).max() > 1e-4
    step = 1e-5
    for atom, axis in ((0, 0), (1, 2), (3, 1)):
        energies = []
        for sign in (1, -1):
            moved = crystal.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = crystal.calc
            energies.append(moved.get_potential_energy())
        slope = -(energies[0] - energies[1]) / (2 * step)
        assert forces[atom, axis] == pytest.approx(slope, abs=1e-7)
    for i, j in ((0, 0), (1, 2)):
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[i, j] += sign * step / 2
            strain[j, i] += sign * step / 2
            strained = crystal.copy()
            strained.set_cell(crystal.cell.array @ strain, scale_atoms=True)
            strained.calc = crystal.calc
            energies.append(strained.get_potential_energy())
        slope = (energies[0] - energies[1]) / (2 * step) / crystal.get_volume()
        assert stress[i, j] == pytest.approx(slope, abs=1e-7)


def test_all_results_are_there(file, crystal):
    crystal.calc = calc = MLIP(file)
    energy = crystal.get_potential_energy()
    assert calc.results["free_energy"] == energy
    assert calc.results["energies"].sum() == pytest.approx(energy)
    assert crystal.get_potential_energies().shape == (4,)
    assert calc.results["energy_uncertainty"] > 0
    assert "forces_uncertainty" in calc.results
    assert "forces_uncertainty" not in list(calc.results)  # until it is asked for
    assert calc.results["forces_uncertainty"].shape == (4,)
    assert (calc.results["forces_uncertainty"] > 0).all()
    assert calc.results.get("dipole") is None
    molecule = clusters(1)[0]
    molecule.calc = calc
    molecule.get_forces()
    with pytest.raises(PropertyNotImplementedError):
        molecule.get_stress()


def test_uncertainties_carry_the_calibration(tmp_path, file, crystal):
    plain = save(
        tmp_path / "plain.pt", card=replace(CARD, uncertainty_scale={}, uncertainty_floor={})
    )
    results = []
    for path in (file, plain):
        crystal.calc = MLIP(path)
        crystal.get_forces()
        results.append(crystal.calc.results)
    scaled, raw = results
    assert scaled["energy_uncertainty"] == pytest.approx(
        np.hypot(2.0 * raw["energy_uncertainty"], 0.01 * len(crystal))
    )
    np.testing.assert_allclose(
        scaled["forces_uncertainty"], np.hypot(3.0 * raw["forces_uncertainty"], 0.1)
    )


def test_a_batch_equals_one_by_one(file, crystal):
    images = [*clusters(4), crystal, Atoms("Cu"), crystal * (2, 1, 1)]
    calc = MLIP(file)
    found = calc.evaluate(images, batch_atoms=12, uncertainty=True)
    for atoms, results in zip(images, found, strict=True):
        single = atoms.copy()
        single.calc = MLIP(file)
        assert results["energy"] == pytest.approx(single.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(results["forces"], single.get_forces(), atol=1e-10)
        expected = single.calc.results["forces_uncertainty"]
        np.testing.assert_allclose(results["forces_uncertainty"], expected, atol=1e-10)
        assert ("stress" in results) == bool(atoms.pbc.all())
        if "stress" in results:
            np.testing.assert_allclose(results["stress"], single.get_stress(), atol=1e-10)
    assert found[-1]["energy"] == pytest.approx(2 * found[4]["energy"])
    assert found[5]["energy"] != 0.0  # an atom alone


def test_dynamics_with_a_skin_follow_those_without(file, crystal):
    ends = []
    for skin in (0.0, 0.6):
        atoms = crystal.copy()
        atoms.set_momenta(np.random.default_rng(0).normal(scale=3.0, size=(4, 3)))
        atoms.calc = calc = MLIP(file, skin=skin)
        VelocityVerlet(atoms, 0.2).run(25)
        ends.append((atoms.positions.copy(), calc._neighbours.searches))
    assert np.abs(ends[0][0] - crystal.positions).max() > 0.05
    np.testing.assert_allclose(ends[0][0], ends[1][0], atol=1e-9)
    assert ends[1][1] < ends[0][1] / 3


def test_the_state_of_a_structure_is_an_input(tmp_path, crystal):
    path = save(tmp_path / "state.pt", system_state=True)
    calc = MLIP(path)
    potential = calc.committee.potentials[0]
    with torch.no_grad():  # conditioning starts at zero
        for name, value in potential.named_parameters():
            if "film" in name:
                value.normal_()
    crystal.calc = calc
    energies = [crystal.get_potential_energy()]
    for info in ({"charge": 1}, {"charge": 0}, {"multiplicity": 3}, {"spin_polarised": True}):
        crystal.info = info
        energies.append(crystal.get_potential_energy())
    assert len({round(e, 8) for e in energies}) == 5
    crystal.info = {}
    assert crystal.get_potential_energy() == pytest.approx(energies[0], abs=1e-12)


def test_moments_are_an_input(tmp_path, crystal):
    path = save(tmp_path / "spin.pt", moments="vector", predict_moments=True)
    crystal.calc = MLIP(path)
    with pytest.raises(InvalidInputError, match="moments"):
        crystal.get_potential_energy()
    moments = np.random.default_rng(1).normal(size=(4, 3))
    crystal.set_initial_magnetic_moments(moments)
    energy = crystal.get_potential_energy()
    assert crystal.calc.results["magmoms"].shape == (4, 3)
    assert crystal.calc.results["magnetic_forces"].shape == (4, 3)
    crystal.set_initial_magnetic_moments(-moments)
    assert crystal.get_potential_energy() == pytest.approx(energy, abs=1e-12)
    crystal.set_initial_magnetic_moments(moments * [1, 1, 0])
    assert abs(crystal.get_potential_energy() - energy) > 1e-6


def test_levels_of_theory_must_be_named_and_known(tmp_path, crystal):
    path = save(tmp_path / "two.pt", fidelities=("low", "high"))
    with pytest.raises(InvalidInputError, match="expected one of the model's levels"):
        MLIP(path)
    with pytest.raises(InvalidInputError, match="got 'hgih'"):
        MLIP(path, fidelity="hgih")
    energies = []
    for level in ("low", "high"):
        crystal.calc = MLIP(path, fidelity=level)
        assert f"fidelity {level}" in repr(crystal.calc)
        energies.append(crystal.get_potential_energy())
        (results,) = crystal.calc.evaluate([crystal])
        assert results["energy"] == pytest.approx(energies[-1], abs=1e-10)
    assert energies[1] == pytest.approx(energies[0] - 4.0)


def test_committees_average_and_refuse_what_does_not_compare(tmp_path, file, crystal):
    other = save(tmp_path / "other.pt", seed=1)
    singles = []
    for path in (file, other):
        crystal.calc = MLIP(path)
        crystal.get_forces()
        singles.append(crystal.calc.results)
    crystal.calc = MLIP([file, other])
    energies = [s["energy"] for s in singles]
    assert crystal.get_potential_energy() == pytest.approx(np.mean(energies))
    mean = np.mean([s["forces"] for s in singles], axis=0)
    np.testing.assert_allclose(crystal.get_forces(), mean)
    within = np.mean([s["energy_uncertainty"] ** 2 for s in singles])
    expected = np.sqrt(within + np.var(energies, ddof=1))
    assert crystal.calc.results["energy_uncertainty"] == pytest.approx(expected)
    spread = crystal.calc.results["forces_uncertainty"]
    assert (spread**2 > np.sum((singles[0]["forces"] - mean) ** 2, axis=1)).all()

    foreign = save(tmp_path / "foreign.pt", card=replace(CARD, energy_reference="PBE"))
    with pytest.raises(InvalidInputError, match="expected one energy reference, got 'EMT' and"):
        MLIP([file, foreign])
    magnetic = save(tmp_path / "magnetic.pt", moments="collinear")
    with pytest.raises(InvalidInputError, match="agree in moments"):
        MLIP([file, magnetic])


def test_it_says_what_it_is(file):
    assert "elements Cu Au; energy reference: EMT; cpu" in repr(MLIP(file))
    assert MLIP(file.parent).energy_reference == "EMT"  # the folder of a run


def test_unknown_elements_and_broken_structures(file):
    for atoms, text in (
        (Atoms("CuH", [[0, 0, 0], [0, 0, 2]]), r"knows \['Cu', 'Au'\], got \['H'\]"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, np.nan]]), r"NaN or inf at \[\[1, 2\]\]"),
        (Atoms(), "at least one atom"),
    ):
        atoms.calc = MLIP(file)
        with pytest.raises(InvalidInputError, match=text):
            atoms.get_potential_energy()


def test_atoms_closer_than_ever_are_warned_of_once(file):
    atoms = Atoms("CuAu", [[0, 0, 0], [0, 0, 1.45]])
    atoms.calc = MLIP(file)
    with pytest.warns(CloseContactWarning, match=r"1.450 A apart, closer than 1.500 A"):
        atoms.get_potential_energy()
    atoms.positions[1, 2] = 1.44
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        atoms.get_potential_energy()
        Atoms("CuAu", [[0, 0, 0], [0, 0, 1.6]], calculator=MLIP(file)).get_potential_energy()
    atoms.positions[1, 2] = 1.2
    with pytest.warns(CloseContactWarning, match=r"1.200 A apart"):
        atoms.get_potential_energy()


def test_it_sums_with_other_calculators(file, crystal):
    crystal.calc = MLIP(file)
    expected = crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()
    crystal.calc = EMT()
    expected = [
        a + b
        for a, b in zip(
            expected,
            (crystal.get_potential_energy(), crystal.get_forces(), crystal.get_stress()),
            strict=True,
        )
    ]
    crystal.calc = SumCalculator([MLIP(file), EMT()])
    assert crystal.get_potential_energy() == pytest.approx(expected[0])
    np.testing.assert_allclose(crystal.get_forces(), expected[1])
    np.testing.assert_allclose(crystal.get_stress(), expected[2])


@pytest.mark.gpu
def test_the_device_changes_nothing(file, crystal):
    results = []
    for device in ("cpu", "cuda"):
        crystal.calc = MLIP(file, device=device)
        results.append((crystal.get_potential_energy(), crystal.get_forces()))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-9)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-9)


def test_features_are_invariant_and_tell_structures_apart(file, crystal, rng):
    calc = MLIP([file, save(file.with_name("other.pt"), seed=1)])
    turned = crystal.copy()
    turned.rotate(40.0, (1, 2, 3), rotate_cell=True)
    moved = crystal.copy()
    moved.rattle(0.05, rng=rng)
    first, second, third = calc.features([crystal, turned, moved])
    width = 2 * (MODEL["channels"] + MODEL["hidden"])
    assert first.shape == (len(crystal), width)
    np.testing.assert_allclose(second, first, atol=1e-9)
    assert np.abs(third - first).max() > 1e-3
    assert calc.has_uncertainty
    assert not MLIP(save(file.with_name("single.pt"), ensemble=1)).has_uncertainty
