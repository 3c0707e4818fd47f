"""Input checks, spin resolution and core potentials."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from systems import as_system, hydrogen_iodide, stretched_hydrogen, water

from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import System, build_mole, resolve_reference, resolve_spin
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState


@pytest.mark.parametrize(
    ("state", "unpaired"),
    [({}, 0), ({"charge": 1}, 1), ({"n_unpaired": 2}, 2), ({"magmoms": (2.0, 0.0, 0.0)}, 2),
     ({"magmoms": (-2.0, 0.0, 0.0)}, 2), ({"magmoms": (1.2, -1.2, 0.0)}, 0),
     ({"magmoms": (2.7, 0.0, 0.0)}, 2)],
)  # fmt: skip
def test_unpaired_electrons_are_resolved(state, unpaired):
    assert resolve_spin(as_system(water(), **state)).spin_state.n_unpaired == unpaired


def test_broken_symmetry_moments_ask_for_uks():
    system = resolve_spin(as_system(stretched_hydrogen(), magmoms=(1.0, -1.0)))
    assert system.spin_state.n_unpaired == 0
    assert resolve_reference(system, KSSettings()) == "uks"
    assert resolve_reference(resolve_spin(as_system(water())), KSSettings()) == "rks"


@pytest.mark.parametrize(
    ("atoms", "state", "message"),
    [(Atoms(), {}, "at least one atom"),
     (water(), {"n_unpaired": 1}, "multiplicity: 2 is impossible with 10 electrons"),
     (water(), {"charge": 10}, "charge: 10 leaves 0 electrons"),
     (water(), {"magmoms": (1.0, 1.0)}, r"shape \(3,\), got \(2,\)"),
     (Atoms("H2", [(0, 0, 0), (0, 0, 0.1)]), {}, "atoms 0 and 1 are 0.1000 Angstrom apart"),
     (Atoms("H2", [(0, 0, 0), (0, 0, np.nan)]), {}, r"NaN or infinity for atoms \[1\]")],
)  # fmt: skip
def test_bad_input_is_refused(atoms, state, message):
    with pytest.raises(InvalidInputError, match=message):
        resolve_spin(as_system(atoms, **state))


def test_core_potential_is_automatic_for_heavy_elements_only():
    mol = build_mole(resolve_spin(as_system(hydrogen_iodide())), KSSettings(basis="def2-svp"))
    assert mol.atom_charges().tolist() == [1, 25]
    assert mol.nelectron == 26


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"ecp": None}, "basis 'def2-svp' is made for a core potential on I, got ecp=None"),
     ({"ecp": "no-such-ecp"}, "expected a core potential that has I, got 'no-such-ecp'"),
     ({"basis": "no-such-basis"}, "expected a basis that has H, got 'no-such-basis'"),
     ({"basis": {"H": "def2-svp"}}, "expected an entry for I")],
)  # fmt: skip
def test_missing_basis_or_core_potential_is_named(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        build_mole(resolve_spin(as_system(hydrogen_iodide())), KSSettings(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"reference": "ukss"}, "unknown reference 'ukss'. Did you mean 'uks'"),
     ({"grid_level": 12}, "grid_level: expected an integer from 0 to 9, got 12"),
     ({"conv_tol": -1.0}, "conv_tol: expected a positive energy"),
     ({"electric_field": (1.0,)}, "electric_field: expected three numbers")],
)  # fmt: skip
def test_settings_check_their_values(settings, message):
    with pytest.raises(InvalidInputError, match=message):
        KSSettings(**settings)


def test_periodic_images_count_as_neighbours():
    cell = 3.0 * np.eye(3)
    with pytest.raises(InvalidInputError, match=r"atoms 0 and 1 are 0.2000 Angstrom apart"):
        System(
            np.array([1, 1]), np.array([(0, 0, 0.1), (0, 0, 2.9)]), SpinState(), cell, (True,) * 3
        )
    with pytest.raises(InvalidInputError, match=r"atoms 0 and 0 are 0.2000 Angstrom apart"):
        System(
            np.array([1]), np.zeros((1, 3)), SpinState(), np.diag([0.2, 5, 5]), (True, False, False)
        )
    with pytest.raises(InvalidInputError, match="cell: expected three independent lattice vectors"):
        System(np.array([1]), np.zeros((1, 3)), SpinState(), None, (True, False, False))
    slab = System(
        np.array([1, 1]), np.array([(0, 0, 0.1), (0, 0, 2.9)]), SpinState(), cell,
        (True, True, False),
    )  # fmt: skip
    assert slab.periodic
