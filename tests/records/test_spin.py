import numpy as np
import pytest

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState


def test_three_words_for_spin():
    state = SpinState.from_multiplicity(3, charge=-1)
    assert (state.n_unpaired, state.pyscf_spin, state.multiplicity) == (2, 2, 3)
    assert state.charge == -1


def test_an_open_state_has_no_multiplicity():
    with pytest.raises(InvalidInputError, match=r"n_unpaired: expected a number.*got None"):
        _ = SpinState().multiplicity


@pytest.mark.parametrize(
    ("moments", "collinear"),
    [(None, True), (np.array([1, -1]), True), ([[0, 0, 1.5], [0, 1, 0]], False)],
)
def test_round_trip_and_hash(moments, collinear):
    state = SpinState(charge=np.int64(1), n_unpaired=2.0, magmoms=moments, target="S1")
    again = SpinState.from_dict(state.to_dict())
    assert again == state
    assert hash(again) == hash(state)
    assert type(again.charge) is int
    assert again.collinear is collinear


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"charge": 0.5}, "charge: expected an integer, got 0.5"),
        ({"charge": True}, "charge: expected an integer, got True"),
        ({"n_unpaired": -1}, "n_unpaired: expected at least 0, got -1"),
        ({"magmoms": [[1, 2]]}, r"magmoms: expected n numbers or n vectors.*\(1, 2\)"),
        ({"magmoms": []}, "magmoms: expected one moment per atom"),
        ({"magmoms": "up"}, "magmoms: expected one moment per atom, got 'up'"),
        ({"magmoms": [1.0, float("nan")]}, "magmoms: expected finite"),
        ({"target": ""}, "target: expected the name"),
    ],
)
def test_bad_states(arguments, text):
    with pytest.raises(InvalidInputError, match=text):
        SpinState(**arguments)


def test_bad_multiplicity():
    with pytest.raises(InvalidInputError, match=r"multiplicity: expected at least 1.*got 0"):
        SpinState.from_multiplicity(0)


def test_unknown_key_names_the_nearest():
    with pytest.raises(InvalidInputError, match="Did you mean 'n_unpaired'"):
        SpinState.from_dict({"unpaired": 1})
