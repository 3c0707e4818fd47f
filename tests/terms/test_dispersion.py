"""Dispersion of molecules, crystals and slabs: finite differences, limits, both descriptions."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import fcc111
from numerical import central_difference, force_by_differences
from pyscf import dft, gto
from systems import as_system, water

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.recommended import with_dispersion
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion, parse_dispersion

# The sums over images are cut off at a fixed distance. Images that enter during a displacement are
# noise in the differences, more so in D4, whose atomic charges are sums over images as well.
STRAIN_TOLERANCE = 2e-8  # Hartree/Bohr^3, or 5e-7 eV/A^3
FORCE_TOLERANCE = {"d3bj": 1e-7, "d4": 2e-6}  # Hartree/Bohr
NET_FORCE_TOLERANCE = 1e-12  # Hartree/Bohr


def crystal():
    """A distorted triclinic cell, so that no component vanishes."""
    cell = [[4.1, 0.2, 0.0], [0.3, 4.4, 0.1], [0.0, -0.4, 4.9]]
    return Atoms("MgO", [[0.1, 0.0, 0.0], [2.2, 2.0, 2.3]], cell=cell, pbc=True)


def slab():
    atoms = fcc111("Al", (1, 1, 2), vacuum=8.0)
    atoms.rattle(0.1, seed=1)
    return atoms


def as_mole(atoms, basis="sto-3g"):
    positions = atoms.positions / units.BOHR_ANGSTROM
    atom = list(zip(atoms.symbols, positions, strict=True))
    return gto.M(atom=atom, basis=basis, unit="Bohr", verbose=0)


STRUCTURES = {"crystal": crystal, "slab": slab}


@pytest.mark.parametrize("method", ["d3bj", "d4"])
@pytest.mark.parametrize("name", STRUCTURES)
def test_forces_and_stress_equal_finite_differences(method, name):
    term, atoms = Dispersion(method, "pbe"), STRUCTURES[name]()
    forces = term.forces(as_system(atoms))
    expected = force_by_differences(lambda a: term.energy(as_system(a)), atoms, 1, 2, 1e-3)
    expected *= units.BOHR_ANGSTROM
    assert abs(expected) > 1e-5
    assert forces[1, 2] == pytest.approx(expected, abs=FORCE_TOLERANCE[method])
    assert np.abs(forces.sum(axis=0)).max() < NET_FORCE_TOLERANCE

    stress = term.stress(as_system(atoms))
    volume = atoms.get_volume() / units.BOHR_ANGSTROM**3
    for i, j in ((0, 0), (0, 1)):

        def energy(x, i=i, j=j):
            strain = np.eye(3)
            strain[i, j] += 0.5 * x
            strain[j, i] += 0.5 * x
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            return term.energy(as_system(strained))

        difference = central_difference(energy, 1e-3) / volume
        assert abs(difference) > 2 * STRAIN_TOLERANCE
        assert stress[i, j] == pytest.approx(difference, abs=STRAIN_TOLERANCE)
    np.testing.assert_array_equal(stress, stress.T)


def test_a_slab_in_d3_does_not_feel_its_images():
    atoms = slab()
    energies = []
    for vacuum in (8.0, 16.0):
        atoms.center(vacuum=vacuum, axis=2)
        energies.append(Dispersion("d3bj", "pbe").energy(as_system(atoms)))
    assert energies[0] < -1e-3
    assert energies[0] == pytest.approx(energies[1], abs=1e-12)


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_a_molecule_is_the_same_as_system_and_as_mole(method):
    atoms, mol = water(), as_mole(water())
    term = Dispersion(method, "r2scan")
    assert term.energy(mol) < -1e-6
    assert term.energy(as_system(atoms)) == pytest.approx(term.energy(mol), rel=1e-12)
    np.testing.assert_allclose(term.forces(as_system(atoms)), term.forces(mol), atol=1e-14)


def test_stress_of_a_molecule_is_refused():
    with pytest.raises(InvalidInputError, match="expected a periodic system"):
        Dispersion("d3bj", "pbe").stress(as_system(water()))


def test_names_of_methods_and_functionals():
    assert parse_dispersion(None, "pbe") is None
    assert parse_dispersion("d3", "pbe").name == "d3bj(pbe)"
    assert parse_dispersion("D4:r2scan", "mine").name == "d4(r2scan)"
    with pytest.raises(InvalidInputError, match="unknown dispersion 'd5'"):
        parse_dispersion("d5", "pbe")
    with pytest.raises(InvalidInputError, match="no damping parameters for the functional 'mine'"):
        parse_dispersion("d3bj", "mine")


@pytest.mark.parametrize("method", ["d3bj", "d4"])
def test_a_correction_takes_the_place_of_nonlocal_correlation(method):
    functional, term = with_dispersion(LibxcFunctional("B97M-V"), method)
    assert term == Dispersion(method, "b97m")
    assert (functional.has_vv10, functional.name) == (False, "libxc:B97M-V without VV10")
    structure = as_system(water())
    settings = KSSettings(basis="def2-svp", density_fit=False, grid_level=2)
    ours = MolecularBackend().solve(structure, functional, settings, [term])
    theirs = dft.RKS(as_mole(water(), "def2-svp"), xc="b97m_v")
    theirs.nlc, theirs.grids.level, theirs.small_rho_cutoff = 0, 2, 0
    expected = theirs.kernel() + term.energy(structure)
    assert ours.energy == pytest.approx(expected, abs=1e-7)


def test_nonlocal_correlation_stays_without_a_correction():
    functional, term = with_dispersion(LibxcFunctional("b97m_v"), None)
    assert (functional.has_vv10, functional.name, term) == (True, "libxc:b97m_v", None)
    assert {LibxcFunctional(name).dispersion for name in ("b97mv", "B97M-V", "b97m_v")} == {"b97m"}
    plain, _ = with_dispersion(LibxcFunctional("r2scan"), "d4")
    assert plain == LibxcFunctional("r2scan")
