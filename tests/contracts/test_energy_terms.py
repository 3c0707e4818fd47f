"""What every `EnergyTerm` must keep: its operator and forces are derivatives of its energy."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from numerical import central_difference
from systems import as_system, water

from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import build_mole, resolve_spin
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.terms.field import ElectricField

TERMS = {
    "d3": Dispersion("d3bj", "r2scan"),
    "d4": Dispersion("d4", "r2scan"),
    "field": ElectricField((0.01, -0.02, 0.015)),
}
SETTINGS = KSSettings(basis="6-31g")


def mole(shift: float = 0.0, atom: int = 1, axis: int = 2):
    """Water on argon, near enough to be attracted, with one coordinate moved by `shift` Bohr."""
    atoms = water() + Atoms("Ar", [(0.3, 0.2, 2.9)])
    atoms.positions[atom, axis] += shift * units.BOHR_ANGSTROM
    return build_mole(resolve_spin(as_system(atoms)), SETTINGS)


def density(rng, mol, spins):
    """A symmetric matrix that stands for a density; no term may ask for more."""
    matrix = rng.normal(size=(*((2,) if spins else ()), mol.nao, mol.nao))
    return matrix + np.swapaxes(matrix, -1, -2)


@pytest.mark.parametrize("spins", [False, True], ids=["total", "spins"])
@pytest.mark.parametrize("name", TERMS)
def test_operator_is_the_derivative_of_the_energy(rng, name, spins):
    term, mol = TERMS[name], mole()
    start, change = density(rng, mol, spins), density(rng, mol, spins)
    operator = term.ao_operator(mol, start)
    expected = central_difference(lambda t: term.energy(mol, start + t * change), 1e-3)
    if operator is None:
        assert expected == 0.0
        assert term.energy(mol, start) != 0.0
        return
    found = np.vdot(np.broadcast_to(operator, change.shape), change)
    assert abs(found) > 1e-3
    assert found == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("spins", [False, True], ids=["total", "spins"])
@pytest.mark.parametrize(("atom", "axis"), [(0, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("name", TERMS)
def test_forces_are_derivatives_at_fixed_density_matrix(rng, name, atom, axis, spins):
    term, mol = TERMS[name], mole()
    matrix = density(rng, mol, spins)
    forces = term.forces(mol, matrix)
    assert forces.shape == (4, 3)
    assert np.abs(forces).max() > 1e-5
    expected = -central_difference(lambda t: term.energy(mole(t, atom, axis), matrix), 1e-2)
    assert forces[atom, axis] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", TERMS)
def test_terms_leave_their_arguments_alone(rng, name):
    term, mol = TERMS[name], mole()
    matrix = density(rng, mol, False)
    before, coordinates = matrix.copy(), mol.atom_coords()
    term.energy(mol, matrix)
    term.forces(mol, matrix)
    np.testing.assert_array_equal(matrix, before)
    np.testing.assert_array_equal(mol.atom_coords(), coordinates)
    assert term.name == term.name.strip() != ""
