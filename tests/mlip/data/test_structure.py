"""Labels are found under the names given, the free energy first, and nothing is invented."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState
from mlip.data.structure import DataKeys, Structure, available_keys, from_atoms, from_record


def dimer(**results):
    atoms = Atoms("FeO", positions=[[0, 0, 0], [0, 0, 1.7]])
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_the_free_energy_comes_before_the_energy():
    atoms = dimer(energy=-1.0, free_energy=-1.5)
    found = from_atoms(atoms)
    assert (found.energy, found.energy_key) == (-1.5, "free_energy")
    found = from_atoms(dimer(energy=-1.0))
    assert (found.energy, found.energy_key) == (-1.0, "energy")


def test_names_of_labels_are_configurable():
    atoms = dimer()
    forces = np.arange(6.0).reshape(2, 3)
    atoms.info.update(REF_energy=-3.0, charge=-1, multiplicity=4, config_type="dimer")
    atoms.arrays["REF_forces"] = forces
    assert from_atoms(atoms).labels == ()
    found = from_atoms(atoms, DataKeys(energy="REF_energy", forces=("DFT_forces", "REF_forces")))
    assert found.energy == -3.0
    np.testing.assert_array_equal(found.forces, forces)
    assert (found.charge, found.n_unpaired, found.config_type) == (-1.0, 3.0, "dimer")
    assert found.labels == ("energy", "forces")
    assert "REF_forces" in available_keys(atoms)["arrays"]


def test_what_is_missing_is_none():
    found = from_atoms(dimer(energy=-1.0))
    for name in ("forces", "stress", "magmoms", "charge", "n_unpaired", "spin_polarised"):
        assert getattr(found, name) is None
    assert found.weight == 1.0


@pytest.mark.parametrize("shape", [(6,), (9,), (3, 3)])
def test_stress_in_all_shapes(shape):
    full = np.array([[1.0, 6, 5], [6, 2, 4], [5, 4, 3]])
    atoms = bulk("Cu")
    given = [1.0, 2, 3, 4, 5, 6] if shape == (6,) else full.reshape(shape)
    atoms.info["REF_stress"] = given
    found = from_atoms(atoms, DataKeys(stress="REF_stress"))
    np.testing.assert_array_equal(found.stress, full)


def test_a_record_brings_its_state_and_digest():
    record = LabelRecord(
        numbers=[26, 8],
        positions=[[0, 0, 0], [0, 0, 1.7]],
        spin_state=SpinState(charge=1, n_unpaired=5, magmoms=(4.0, 1.0)),
        fidelity=FidelityTag(functional="pbe", spin_treatment="UKS"),
        convergence={"converged": True},
        energy=-1.0,
        free_energy=-2.0,
        forces=np.ones((2, 3)),
    )
    found = from_record(record)
    assert (found.energy, found.energy_key) == (-2.0, "free_energy")
    assert (found.charge, found.n_unpaired, found.spin_polarised) == (1.0, 5.0, True)
    assert found.fidelity == record.fidelity.digest
    np.testing.assert_array_equal(found.input_magmoms, [4.0, 1.0])
    assert found.magmoms is None


def test_moments_may_be_signed_or_vectors_and_unknown_for_some_atoms():
    atoms = dimer()
    atoms.arrays["initial_magmoms"] = np.array([2.0, np.nan])
    assert np.isnan(from_atoms(atoms).input_magmoms[1])
    atoms.arrays["initial_magmoms"] = np.ones((2, 3))
    assert from_atoms(atoms).input_magmoms.shape == (2, 3)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"energy": np.nan}, "energy: expected finite numbers"),
        ({"forces": [[0, 0, 0], [np.inf, 0, 0]]}, r"forces: expected finite .* \[\[1, 0\]\]"),
        (
            {"forces": np.zeros((3, 3))},
            r"forces: expected shape \(2, 3\) for 2 atoms, got \(3, 3\)",
        ),
        ({"energy": "low"}, "energy: expected numbers, got 'low'"),
    ],
)
def test_labels_that_cannot_be_used_are_errors(values, text):
    with pytest.raises(InvalidInputError, match=f"here: {text}"):
        Structure(numbers=[1, 1], positions=np.zeros((2, 3)), source="here", **values)
