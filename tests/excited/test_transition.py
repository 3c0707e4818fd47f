"""Transitions by name and by index, their populations, and what is refused."""

import numpy as np
import pytest

from ase_neuralxc import InvalidInputError, TransitionConstraint
from ase_neuralxc.excited.transition import FrozenOrbitals


def test_populations_of_names_and_indices():
    one = TransitionConstraint([("HOMO", "LUMO", 1.0)])
    assert one.populations(5, 12) == ({4: 1.0}, {5: 1.0})
    several = TransitionConstraint(
        [("HOMO-1", "LUMO+2", 0.5), ("HOMO", "LUMO+2", 0.25), (0, 11, 0.25)], "triplet"
    )
    assert several.populations(5, 12) == ({3: 0.5, 4: 0.25, 0: 0.25}, {7: 0.75, 11: 0.25})
    assert one.name == "singlet HOMO->LUMO"
    assert several.name == "triplet HOMO-1->LUMO+2 0.5, HOMO->LUMO+2 0.25, 0->11 0.25"


@pytest.mark.parametrize(
    ("transitions", "multiplicity", "message"),
    [
        ([("HOMO", "LUMO", 1.0)], "quintet", "unknown multiplicity .quintet"),
        ([("HOMO", "LUMO")], "singlet", r"expected \(from, to, weight\)"),
        ([("HOMO", "LUMO", "all")], "singlet", r"expected \(from, to, weight\)"),
        ([("homo", "LUMO", 1.0)], "singlet", "got 'homo'"),
        ([("HOMO", "LUMO+", 1.0)], "singlet", r"got 'LUMO\+'"),
        ([("HOMO", 2.5, 1.0)], "singlet", "got 2.5"),
        ([("HOMO", "LUMO", 0.4)], "singlet", "sum 1, one electron, got 0.4"),
        ([("HOMO", "LUMO", -0.5), ("HOMO", "LUMO+1", 1.5)], "singlet", "weights from 0 to 1"),
        ([], "singlet", "got 0"),
    ],
)
def test_what_is_no_transition_is_refused(transitions, multiplicity, message):
    with pytest.raises(InvalidInputError, match=message):
        TransitionConstraint(transitions, multiplicity)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("HOMO-9", "LUMO", "leave an occupied orbital"),
        ("LUMO", "LUMO+1", "leave an occupied orbital"),
        ("HOMO", "HOMO-1", "enter an empty orbital"),
        ("HOMO", 12, "enter an empty orbital"),
    ],
)
def test_orbitals_must_be_there(first, second, message):
    with pytest.raises(InvalidInputError, match=message):
        TransitionConstraint([(first, second, 1.0)]).populations(5, 12)


def test_projection_keeps_what_is_allowed_and_nothing_else():
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(6, 6))
    overlap = mixing @ mixing.T + 6 * np.eye(6)
    orbitals = np.linalg.inv(np.linalg.cholesky(overlap)).T
    np.testing.assert_allclose(orbitals.T @ overlap @ orbitals, np.eye(6), atol=1e-12)
    fock = rng.normal(size=(6, 6))
    fock = fock + fock.T
    space = FrozenOrbitals.among(orbitals, {1: 0.25, 4: 0.75})
    before = orbitals.T @ fock @ orbitals
    after = orbitals.T @ space.project(fock, overlap) @ orbitals
    rest, frozen = [0, 2, 3, 5], [1, 4]
    np.testing.assert_allclose(after[np.ix_(rest, rest)], before[np.ix_(rest, rest)], atol=1e-12)
    np.testing.assert_allclose(after[np.ix_(rest, frozen)], 0, atol=1e-12)
    np.testing.assert_allclose(after[1, 4], 0, atol=1e-12)
    np.testing.assert_allclose(np.diag(after)[frozen], np.diag(before)[frozen], atol=1e-12)
    assert space.occupations(3).tolist() == [1, 1, 0, 0, 0.25, 0.75]
