"""Every fault that is put into good data is found, and good data are not accused."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Octahedron

from ase_neuralxc.errors import InvalidInputError
from mlip.data.check import check_structures
from mlip.data.structure import Structure


@pytest.fixture
def data(rng):
    found = []
    for k in range(30):
        atoms: Atoms = Octahedron("Cu", 3, 1)
        atoms.numbers[rng.permutation(len(atoms))[: k % 3]] = 79
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        found.append(
            Structure(
                numbers=atoms.numbers,
                positions=atoms.positions,
                energy=atoms.get_potential_energy() - 2.0 * len(atoms),
                energy_key="energy",
                forces=atoms.get_forces(),
                config_type="cluster",
                source=f"frame {k}",
            )
        )
    return found


def test_good_data_pass(data):
    report = check_structures(data)
    assert report.failures == ()
    assert report.warnings == ()
    text = report.text()
    for part in ("30 structures, 390 atoms", "rank 2 of 2", "cluster 30", "'energy' 30", "Cu-Au"):
        assert part in text
    # the check of units has looked: pairs of the ten pure clusters agree
    assert "slope 1.0" in text or "slope 0.9" in text


def test_a_weighted_term_without_labels_fails(data):
    report = check_structures(data, {"energy": 1.0, "stress": 0.1})
    (failure,) = report.failures
    assert "stress has weight 0.1 in the loss, but no structure has this label" in failure
    assert "FAILED" in report.text()
    bare = [replace(s, forces=None) for s in data]
    assert "forces has weight 1" in check_structures(bare).failures[0]


def test_one_energy_in_another_unit_is_an_outlier(data):
    data[7] = replace(data[7], energy=data[7].energy * 23.06)
    warnings = [w for w in check_structures(data).warnings if "outliers" in w]
    assert len(warnings) == 1
    assert "1 energies are outliers" in warnings[0]
    assert "frame 7 (" in warnings[0]


@pytest.mark.parametrize(("factor", "said"), [(23.06, "2"), (1 / 27.2114, "0.0"), (-1.0, "-")])
def test_energies_that_do_not_belong_to_the_forces(data, factor, said):
    wrong = [replace(s, energy=s.energy * factor) for s in data]
    (warning,) = (w for w in check_structures(wrong).warnings if "do not belong together" in w)
    assert f"energy differences are {said}" in warning


def test_large_forces_and_short_distances(data):
    data[3] = replace(data[3], forces=data[3].forces * 1000.0)
    data[4] = replace(data[4], positions=data[4].positions * 0.15)
    warnings = "\n".join(check_structures(data).warnings)
    assert "forces above 50 eV/A (wrong unit?): frame 3" in warnings
    assert "in frame 4 (in Angstrom?)" in warnings


def test_duplicates_are_told_from_other_spin_states(data):
    data[9] = replace(data[2], source="frame 9")
    (warning,) = check_structures(data).warnings
    assert "1 duplicates: frame 2 = frame 9" in warning
    data[9] = replace(data[9], charge=1.0)
    assert check_structures(data).warnings == ()


def test_spin_metadata_and_levels_of_theory(data):
    n = len(data[0].numbers)
    data[0] = replace(data[0], input_magmoms=np.full((n, 3), 1.0), spin_polarised=True)
    data[1] = replace(data[1], n_unpaired=2.0, charge=-1.0, fidelity="abc")
    report = check_structures(data)
    text = report.text()
    assert "moments: vectors in 1; |m| up to 1.73" in text
    assert "unpaired electrons: 2 in 1, unknown in 29" in text
    assert "charge: -1 in 1, unknown in 29" in text
    assert "abc in 1" in text
    assert any("and every structure must say its own" in w for w in report.warnings)


def test_isolated_atoms_are_no_outliers(data):
    alone = Structure(numbers=[29], positions=np.zeros((1, 3)), energy=-50.0, source="atom")
    report = check_structures([*data, alone])
    assert report.warnings == ()
    assert "1 structures without neighbours" in report.text()


def test_no_data_is_an_error():
    with pytest.raises(InvalidInputError, match="at least one structure"):
        check_structures([])
