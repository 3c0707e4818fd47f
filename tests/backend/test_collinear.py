"""Initial moments and the reference that follows from them."""

import numpy as np
import pytest

from ase_neuralxc.backend.collinear import collinear_moments, periodic_reference
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState


def test_moments_are_one_number_per_atom_or_none():
    assert collinear_moments(SpinState(), 2) is None
    np.testing.assert_array_equal(collinear_moments(SpinState(magmoms=(2.0, -2.0)), 2), [2.0, -2.0])
    with pytest.raises(InvalidInputError, match=r"magmoms: expected one .* \(3,\), got \(2,\)"):
        collinear_moments(SpinState(magmoms=(2.0, -2.0)), 3)


@pytest.mark.parametrize(
    ("asked", "state", "expected"),
    [
        ("auto", SpinState(), "rks"),
        ("auto", SpinState(n_unpaired=2), "uks"),
        ("auto", SpinState(magmoms=(1.0, -1.0)), "uks"),
        ("rks", SpinState(magmoms=(1.0, -1.0)), "rks"),
        ("uks", SpinState(), "uks"),
    ],
)
def test_the_reference_follows_from_the_spin_state(asked, state, expected):
    moments = collinear_moments(state, 2)
    assert periodic_reference(asked, state, np.zeros(2) if moments is None else moments) == expected


def test_a_closed_shell_has_no_unpaired_electrons():
    with pytest.raises(InvalidInputError, match="reference: 'rks' needs a closed shell, got 2"):
        periodic_reference("rks", SpinState(n_unpaired=2), np.zeros(2))
