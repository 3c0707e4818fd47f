"""Pseudopotentials, cells and occupations, before any self-consistent field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from systems import as_system

from ase_neuralxc.backend.pbc.cell import build_cell, frozen
from ase_neuralxc.backend.pbc.occupation import occupy
from ase_neuralxc.backend.pbc.pseudopotentials import (
    VALENCE,
    load_basis,
    load_pseudopotential,
)
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units

SMALL = PeriodicSettings(basis="gth-szv", ecut=600.0)


def test_the_table_is_what_the_potentials_and_bases_have():
    for element, electrons in VALENCE.items():
        name, potential = load_pseudopotential(element, "gth-pbe")
        assert name == f"GTH-PBE-q{electrons}"
        assert sum(potential[0]) == electrons
        assert load_basis(element, "gth-dzvp-molopt-sr", electrons)[0].endswith(f"-q{electrons}")
    assert VALENCE["Pd"] == VALENCE["Pt"] == VALENCE["Ni"] == 18
    assert VALENCE["Cu"] == VALENCE["Ag"] == VALENCE["Au"] == 11


def test_another_valence_can_be_chosen():
    settings = PeriodicSettings(
        pseudo={"Mg": "GTH-PBE-q2", "default": "gth-pbe"}, basis="gth-dzvp-molopt-sr", ecut=2000
    )
    rocksalt = as_system(bulk("MgO", "rocksalt", a=4.2))
    assert build_cell(rocksalt, settings).nelectron == 2 + 6
    assert build_cell(rocksalt, replace(settings, pseudo="gth-pbe")).nelectron == 10 + 6


@pytest.mark.parametrize(
    ("atoms", "changes", "message"),
    [
        (bulk("Th", "fcc", a=5.1), {}, "pseudo: expected an element from H to Rn"),
        (bulk("Si"), {"pseudo": "gth-foo"}, "pseudo: expected a GTH pseudopotential that has Si"),
        (bulk("Pd"), {"pseudo": "GTH-PBE-q10"}, "basis that has Pd with 10 valence electrons"),
        (bulk("Si"), {"basis": "def2-svp"}, "basis for GTH pseudopotentials in a periodic"),
        (bulk("Si"), {"basis": "DZVP-GTH-q12"}, "4 valence electrons of the pseudopotential"),
        (bulk("Si"), {"basis": {"C": "gth-szv"}}, "basis: expected an entry for Si"),
        (bulk("Si"), {"ecut": 50.0}, "cell is too small for the cutoff"),
        (bulk("Si"), {"mesh": (15, 15, 3)}, "cell is too small for the cutoff"),
        (fcc111("Al", (1, 1, 2), vacuum=1.5), {}, "4 Angstrom of vacuum along direction 2"),
    ],
)
def test_bad_input_is_refused(atoms, changes, message):
    with pytest.raises(InvalidInputError, match=message):
        build_cell(as_system(atoms), replace(SMALL, **changes))


def test_a_charged_cell_is_refused():
    with pytest.raises(InvalidInputError, match="charge: expected 0, a periodic cell is neutral"):
        build_cell(as_system(bulk("Si"), charge=1), SMALL)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": (9, 9)}, "mesh: expected three positive integers"),
        ({"mesh": (9, 9, 9.5)}, "mesh: expected three positive integers"),
        ({"smearing": -0.1}, "smearing: expected a positive number"),
        ({"ecut": 0.0}, "ecut: expected a positive number"),
        ({"reference": "roks"}, "restricted open shells have no correct k-point forces"),
        ({"reference": "uhf"}, "Valid: auto, rks, uks"),
        ({"max_cycle": 0}, "max_cycle: expected at least 1"),
        ({"kpts": (0, 1, 1)}, "kpts: expected three positive integers"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(InvalidInputError, match=message):
        PeriodicSettings(**changes)


def test_a_molecule_gets_a_box_and_a_slab_keeps_its_cell():
    water = molecule("H2O")
    cell = build_cell(as_system(water), replace(SMALL, vacuum=3.0))
    lengths = np.diag(cell.lattice_vectors()) * units.BOHR_ANGSTROM
    assert (lengths >= np.ptp(water.positions, axis=0) + 6.0).all()
    assert (lengths <= np.ptp(water.positions, axis=0) + 6.5).all()
    slab = fcc111("Al", (1, 1, 2), vacuum=4.0)
    cell = build_cell(as_system(slab), replace(SMALL, basis="gth-szv-molopt-sr"))
    assert cell.dimension == 3
    np.testing.assert_allclose(cell.lattice_vectors() * units.BOHR_ANGSTROM, slab.cell.array)


def test_a_left_handed_cell_is_turned_over():
    atoms = bulk("Si")
    atoms.set_cell(atoms.cell.array[[1, 0, 2]])
    assert np.linalg.det(atoms.cell.array) < 0
    assert np.linalg.det(build_cell(as_system(atoms), SMALL).lattice_vectors()) > 0


def test_a_frozen_grid_survives_a_strain():
    atoms = bulk("Si")
    settings = replace(SMALL, kpts={"density": 1.5, "gamma": True})
    large = atoms.copy()
    large.set_cell(atoms.cell.array * 1.2, scale_atoms=True)
    meshes = [tuple(build_cell(as_system(a), settings).mesh) for a in (atoms, large)]
    assert meshes[0] != meshes[1]
    fixed = frozen(as_system(atoms), settings)
    assert fixed.kpts["gamma"] is True
    assert fixed.kpts["size"][0] > 1
    assert tuple(build_cell(as_system(large), fixed).mesh) == fixed.mesh == meshes[0]


def test_fermi_dirac_occupations():
    energies = np.array([[-0.5, 0.1], [-0.4, 0.12], [-0.45, 0.08]])
    occupations, level = occupy(energies, 4.5, 0.02)
    assert occupations.sum() == pytest.approx(4.5, abs=1e-12)
    np.testing.assert_allclose(occupations, 1 / (1 + np.exp((energies - level) / 0.02)))
    whole, middle = occupy(energies, 3.0, 0.0)
    np.testing.assert_array_equal(whole, [[1, 0], [1, 0], [1, 0]])
    assert middle == pytest.approx(0.5 * (-0.4 + 0.08))
    np.testing.assert_array_equal(occupy(energies, 0.0, 0.02)[0], 0.0)
    np.testing.assert_array_equal(occupy(energies, 6.0, 0.02)[0], 1.0)


def test_atoms_closer_than_their_periodic_images_allow_are_refused():
    with pytest.raises(InvalidInputError, match="Angstrom apart"):
        as_system(Atoms("H2", [[0, 0, 0], [0, 0, 2.9]], cell=[3, 3, 3], pbc=True))
