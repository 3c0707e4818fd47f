import pickle

import numpy as np
import pytest
from ase.build import molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState, structure_hash

CONVERGED = {"converged": True, "cycles": 7}


def make(**changes):
    arguments = {
        "numbers": [8, 1],
        "positions": [[0, 0, 0], [0, 0, 0.97]],
        "spin_state": SpinState(n_unpaired=1),
        "fidelity": FidelityTag(functional="pbe"),
        "convergence": CONVERGED,
    }
    return LabelRecord(**{**arguments, **changes})


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"convergence": {}}, "convergence: expected 'converged': True"),
        ({"convergence": {"converged": False}}, "convergence: expected 'converged': True"),
        ({"convergence": {"converged": 1}}, "convergence: expected 'converged': True"),
        ({"numbers": []}, "numbers: expected .* at least one atom"),
        ({"positions": [[0, 0, 0]]}, r"positions: expected shape \(2, 3\).*got \(1, 3\)"),
        ({"positions": [[0, 0, 0], [0, 0, np.nan]]}, "positions: expected finite"),
        ({"forces": np.zeros((2, 2))}, r"forces: expected shape \(2, 3\)"),
        ({"stress": np.zeros((3, 3))}, r"stress: expected shape \(6,\)"),
        ({"magmoms": np.zeros(3)}, r"magmoms: expected shape \(2,\) or \(2, 3\)"),
        ({"energy": np.inf}, "energy: expected finite"),
        ({"energy": "low"}, "energy: expected numbers, got 'low'"),
        ({"spin_state": SpinState(magmoms=[1.0])}, "spin_state.magmoms: expected 2 moments"),
        ({"spin_state": None}, "spin_state: expected a SpinState, got NoneType"),
        ({"provenance": {"x": object()}}, "provenance: expected finite, JSON-like"),
    ],
)
def test_what_is_not_a_label(changes, text):
    with pytest.raises(InvalidInputError, match=text):
        make(**changes)


def test_arrays_are_private_and_read_only():
    positions = np.array([[0, 0, 0], [0, 0, 0.97]])
    record = make(positions=positions)
    positions[1, 2] = 5.0
    assert record.positions[1, 2] == 0.97
    with pytest.raises(ValueError, match="read-only"):
        record.positions[0, 0] = 1.0


def test_missing_stays_missing():
    record = LabelRecord.from_dict(make(energy=-3.0).to_dict())
    assert record.energy == -3.0
    for name in ("free_energy", "forces", "stress", "magmoms", "charges", "dipole"):
        assert getattr(record, name) is None
    assert "forces" not in record.to_atoms().calc.results
    assert make().to_atoms().calc is None


def test_atoms_and_back():
    state = SpinState(n_unpaired=1, magmoms=[2.0, -1.0])
    record = make(
        spin_state=state,
        energy=-1.5,
        forces=[[0, 0, 1], [0, 0, -1]],
        charges=[-0.4, 0.4],
        cell=np.diag([5.0, 6.0, 7.0]),
        pbc=[True, False, True],
        provenance={"versions": {"host": "1.2"}, "times": np.array([1.0, 2.0])},
    )
    atoms = record.to_atoms()
    assert atoms.get_potential_energy() == -1.5
    assert atoms.get_initial_magnetic_moments().tolist() == [2.0, -1.0]
    assert LabelRecord.from_atoms(atoms).to_dict() == record.to_dict()
    assert pickle.loads(pickle.dumps(record)).to_dict() == record.to_dict()


def test_explicit_results_win_over_the_calculator():
    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-1.0, dipole=np.ones(3))
    record = LabelRecord.from_atoms(
        atoms,
        spin_state=SpinState(),
        fidelity=FidelityTag(),
        convergence=CONVERGED,
        energy=-2.0,
    )
    assert record.energy == -2.0
    assert record.dipole.tolist() == [1, 1, 1]


def test_results_of_other_atoms_are_refused():
    atoms = molecule("CO")
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.positions[0, 0] += 0.1
    with pytest.raises(InvalidInputError, match=r"got those of others: \['positions'"):
        LabelRecord.from_atoms(
            atoms, spin_state=SpinState(), fidelity=FidelityTag(), convergence=CONVERGED
        )


def test_unknown_names():
    with pytest.raises(InvalidInputError, match="Did you mean 'forces'"):
        LabelRecord.from_atoms(molecule("CO"), force=np.zeros((2, 3)))
    with pytest.raises(InvalidInputError, match=r"expected the fields \['spin_state'"):
        LabelRecord.from_atoms(molecule("CO"))


def test_content_hash_is_of_geometry_and_spin_state_only():
    record = make(energy=-1.0)
    same = make(energy=-2.0, fidelity=FidelityTag(functional="lda"))
    assert record.content_hash == same.content_hash
    assert record.checksum != same.checksum
    assert record.content_hash == structure_hash(record.to_atoms(), record.spin_state)
    others = [
        make(positions=[[0, 0, 0], [0, 0, 0.97 + 1e-12]]),
        make(numbers=[1, 8]),
        make(pbc=[True, False, False]),
        make(cell=np.eye(3)),
        make(spin_state=SpinState(n_unpaired=3)),
        make(spin_state=SpinState(n_unpaired=1, target="S1")),
    ]
    assert len({r.content_hash for r in [record, *others]}) == len(others) + 1
    assert make(positions=[[0, 0, -0.0], [0, 0, 0.97]]).content_hash == record.content_hash
