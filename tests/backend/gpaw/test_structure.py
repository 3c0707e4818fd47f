import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from systems import as_system

from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw.structure import build_structure
from ase_neuralxc.errors import InvalidInputError


def as_cell(atoms, **state):
    moments = atoms.get_initial_magnetic_moments()
    return as_system(atoms, magmoms=tuple(moments) if moments.any() else None, **state)


def test_a_molecule_gets_a_box_that_stays():
    atoms = molecule("H2O")
    structure = build_structure(as_cell(atoms), GPAWSettings(vacuum=4.0))
    box = structure.system.cell
    assert np.allclose(box % 0.5, 0)
    assert (np.diag(box) >= np.ptp(atoms.positions, axis=0) + 8).all()
    assert structure.atoms.positions.min() > 3.9
    assert structure.kpoints.size == (1, 1, 1)
    atoms.positions[0, 0] += 0.3
    again = build_structure(as_cell(atoms), GPAWSettings(vacuum=4.0), box)
    np.testing.assert_array_equal(again.system.cell, box)
    atoms.positions[0, 0] += 5
    assert build_structure(as_cell(atoms), GPAWSettings(vacuum=4.0), box).system.cell[0, 0] > 12


def test_a_cell_of_a_molecule_is_kept_and_its_atoms_are_brought_inside():
    atoms = molecule("H2O", cell=[8, 9, 10])  # around the origin
    structure = build_structure(as_cell(atoms), GPAWSettings())
    np.testing.assert_array_equal(structure.system.cell, np.diag([8, 9, 10]))
    np.testing.assert_array_equal(structure.system.positions, atoms.positions)
    shift = structure.atoms.positions - atoms.positions
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-12)
    middle = structure.atoms.positions.max(axis=0) + structure.atoms.positions.min(axis=0)
    np.testing.assert_allclose(middle, [8, 9, 10])


def test_a_slab_stays_where_it_is_and_needs_vacuum():
    slab = fcc111("Al", (1, 1, 2), vacuum=4.0)
    structure = build_structure(as_cell(slab), GPAWSettings(kpts=(3, 3, 1), smearing=0.1))
    np.testing.assert_array_equal(structure.atoms.positions, slab.positions)
    assert structure.kpoints.size == (3, 3, 1)
    slab = fcc111("Al", (1, 1, 2), vacuum=1.0)
    with pytest.raises(InvalidInputError, match=r"at least 4 Angstrom .* direction 2, .* got 2.00"):
        build_structure(as_cell(slab), GPAWSettings(smearing=0.1))


def test_dipole_layer_needs_a_slab_along_z():
    settings = GPAWSettings(dipole_layer=True, smearing=0.1)
    build_structure(as_cell(fcc111("Al", (1, 1, 2), vacuum=4.0)), settings)
    build_structure(as_cell(molecule("H2O")), settings)  # gas-phase reference of a slab
    with pytest.raises(InvalidInputError, match=r"dipole_layer: expected a slab .* got pbc"):
        build_structure(as_cell(bulk("Al")), settings)


def test_spin_of_a_crystal():
    iron = bulk("Fe", cubic=True)  # ASE gives it moments
    iron.set_initial_magnetic_moments(None)
    smeared = GPAWSettings(smearing=0.1)
    assert build_structure(as_cell(iron), smeared).reference == "rks"
    iron.set_initial_magnetic_moments([2, -2])
    structure = build_structure(as_cell(iron), smeared)
    assert (structure.reference, structure.fixed_moment) == ("uks", False)
    np.testing.assert_array_equal(structure.atoms.get_initial_magnetic_moments(), [2, -2])
    structure = build_structure(as_cell(iron, n_unpaired=4), smeared)
    assert structure.fixed_moment
    assert structure.atoms.get_initial_magnetic_moments().sum() == pytest.approx(4)
    iron.set_initial_magnetic_moments([-2.5, -2.5])
    structure = build_structure(as_cell(iron, n_unpaired=4), smeared)
    np.testing.assert_allclose(structure.atoms.get_initial_magnetic_moments(), [2, 2])
    with pytest.raises(InvalidInputError, match=r"'rks' needs a closed shell, got 4"):
        build_structure(as_cell(iron, n_unpaired=4), GPAWSettings(reference="rks", smearing=0.1))


def test_whole_occupations_need_electrons_in_pairs():
    with pytest.raises(InvalidInputError, match=r"even number of electrons, got 13 .* 1 k-point"):
        build_structure(as_cell(bulk("Al")), GPAWSettings())
    assert build_structure(as_cell(bulk("Al")), GPAWSettings(kpts=(2, 2, 2))).reference == "rks"
    assert build_structure(as_cell(bulk("Al")), GPAWSettings(smearing=0.1)).reference == "rks"
    with pytest.raises(InvalidInputError, match="multiplicity: 3 is impossible with 13 electrons"):
        build_structure(as_cell(bulk("Al"), n_unpaired=2), GPAWSettings())


def test_a_molecule_takes_the_lowest_spin():
    structure = build_structure(as_cell(Atoms("H")), GPAWSettings())
    assert (structure.reference, structure.fixed_moment) == ("uks", True)
    assert structure.atoms.get_initial_magnetic_moments().sum() == 1


@pytest.mark.parametrize(
    ("keyword", "value", "text"),
    [
        ("ecut", 0, "ecut: expected a positive number, got 0"),
        ("smearing", -0.1, "smearing: expected a positive number"),
        ("reference", "roks", "unknown reference 'roks'. Did you mean 'rks'"),
        ("kpts", {"densty": 3}, "Did you mean 'density'"),
        ("clamps", "on", "clamps: expected DensityClamps, None or 'auto', got 'on'"),
        ("max_cycle", 0, "max_cycle: expected at least 1"),
        ("nbands", 0, "nbands: expected at least 1"),
    ],
)
def test_settings_are_checked(keyword, value, text):
    with pytest.raises(InvalidInputError, match=text):
        GPAWSettings(**{keyword: value})
