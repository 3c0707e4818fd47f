"""The periodic PySCF host: energies against libxc, derivatives against differences, spin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from functionals import AtomMoments
from numerical import central_difference
from pyscf.pbc.grad import krks, kuks
from systems import as_system

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.pbc.cell import frozen
from ase_neuralxc.backend.pbc.properties import bands, spectrum
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.backend.periodic import PeriodicBackend
from ase_neuralxc.errors import InvalidInputError, SCFNotConverged
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.terms.field import ElectricField

BACKEND = PeriodicBackend()
ENERGY_TOLERANCE = 1e-9  # Hartree, against libxc
FORCE_TOLERANCE = 1e-8  # Hartree/Bohr, against libxc
STRESS_TOLERANCE = 1e-9  # Hartree/Bohr^3, against libxc
# eV/Angstrom, against finite differences: PySCF's energy has the nonlocal pseudopotential up to the
# cutoff of the grid, its forces have all of it, and the tests' cutoff is low (hydrogen: 1e-7)
FORCE_DIFFERENCE = 5e-5
STRESS_DIFFERENCE = 1e-7  # eV/Angstrom^3, against finite differences

BASE = PeriodicSettings(basis="gth-szv", kpts=(1, 1, 2), ecut=900.0, conv_tol=1e-10)


def diamond():
    """Off its symmetry, so that no force and no stress vanishes."""
    atoms = bulk("C")
    atoms.rattle(0.05, seed=1)
    return as_system(atoms), BASE


def hydrogen(moments=None, **state):
    """Atoms that are far apart and hot: fractional occupations, moments of either sign."""
    cell = [[2.9, 0.2, 0.0], [0.0, 3.0, 0.3], [-0.2, 0.0, 3.6]]
    atoms = Atoms("H2", [[0.0, 0.0, 0.0], [0.3, 0.1, 1.7]], cell=cell, pbc=True)
    if moments is not None:
        state["magmoms"] = moments
    return as_system(atoms, **state), replace(BASE, smearing=3.0)


CASES = {
    "rks": diamond,
    "rks-smeared": hydrogen,
    "uks-free": lambda: hydrogen((1.0, 0.6)),
    "uks-fixed": lambda: hydrogen((1.0, 0.0), n_unpaired=1),
}


def moved(system, atom, axis, step):
    positions = system.positions.copy()
    positions[atom, axis] += step
    return replace(system, positions=positions)


def strained(system, i, j, size):
    strain = np.eye(3)
    strain[i, j] += 0.5 * size
    strain[j, i] += 0.5 * size
    return replace(system, cell=system.cell @ strain, positions=system.positions @ strain)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        ("rks", "r2scan"),
        ("uks-fixed", "pbe"),
        pytest.param("rks", "pbe", marks=pytest.mark.slow),
        pytest.param("uks-fixed", "r2scan", marks=pytest.mark.slow),
    ],
)
def test_torch_equals_libxc(case, name):
    structure, settings = CASES[case]()
    ours = BACKEND.solve(structure, load_functional(name), settings)
    theirs = BACKEND.solve(structure, LibxcFunctional(name), settings)
    assert ours.host._numint.functional.name == name
    assert ours.reference == case[:3]
    assert ours.energy == pytest.approx(theirs.energy, abs=ENERGY_TOLERANCE)
    assert ours.free_energy == pytest.approx(theirs.free_energy, abs=ENERGY_TOLERANCE)
    forces, stress = BACKEND.forces(theirs), BACKEND.stress(theirs)
    assert np.abs(forces).max() > 1e-3
    assert np.abs(stress).max() > 1e-4
    np.testing.assert_allclose(BACKEND.forces(ours), forces, rtol=0, atol=FORCE_TOLERANCE)
    np.testing.assert_allclose(BACKEND.stress(ours), stress, rtol=0, atol=STRESS_TOLERANCE)


SLOW = [
    pytest.param(case, name, marks=pytest.mark.slow)
    for case in ("rks", "rks-smeared", "uks-free", "uks-fixed")
    for name in ("pbe", "r2scan")
    if (case, name) not in {("uks-fixed", "pbe"), ("uks-free", "r2scan")}
]


@pytest.mark.parametrize(("case", "name"), [("uks-fixed", "pbe"), ("uks-free", "r2scan"), *SLOW])
def test_forces_and_stress_are_derivatives_of_the_free_energy(case, name):
    structure, settings = CASES[case]()
    settings = replace(frozen(structure, settings), conv_tol=1e-11)
    functional = load_functional(name)
    solution = BACKEND.solve(structure, functional, settings)
    if settings.smearing:
        assert solution.free_energy < solution.energy - 1e-3
    else:
        assert solution.free_energy == solution.energy

    def energy(other):
        found = BACKEND.solve(other, functional, settings, guess=solution.density_matrix)
        return found.free_energy * units.HARTREE_EV

    # The grid does not move with the atoms: energies are wavy with its spacing, and two points
    # would not do.
    difference = -central_difference(lambda x: energy(moved(structure, 1, 2, x)), 2e-3)
    force = BACKEND.forces(solution)[1, 2] * units.HARTREE_BOHR_EV_ANGSTROM
    assert abs(difference) > 1000 * FORCE_DIFFERENCE
    assert force == pytest.approx(difference, abs=FORCE_DIFFERENCE)

    stress = BACKEND.stress(solution) * units.STRESS_EV_ANGSTROM3
    volume = abs(np.linalg.det(structure.cell))
    for i, j in ((2, 2), (0, 2)):

        def of_strain(x, i=i, j=j):
            return energy(strained(structure, i, j, x))

        difference = central_difference(of_strain, 2e-3) / volume
        assert abs(difference) > 1000 * STRESS_DIFFERENCE
        assert stress[i, j] == pytest.approx(difference, abs=STRESS_DIFFERENCE)


@pytest.mark.parametrize(
    ("case", "kind"), [pytest.param("rks", krks, marks=pytest.mark.slow), ("uks-free", kuks)]
)
def test_forces_of_a_gga_equal_those_of_pyscf(case, kind):
    structure, settings = CASES[case]()
    solution = BACKEND.solve(structure, LibxcFunctional("pbe"), settings)
    theirs = kind.Gradients(solution.host)
    theirs.verbose = 0
    np.testing.assert_allclose(BACKEND.forces(solution), -theirs.kernel(), rtol=0, atol=1e-10)


def test_odd_electrons_over_all_points_are_counted_right():
    settings = PeriodicSettings(basis="gth-szv-molopt-sr", kpts=(3, 1, 1), smearing=0.3, ecut=700.0)
    aluminium = as_system(bulk("Al"))
    solution = BACKEND.solve(aluminium, load_functional("pbe"), settings)
    assert solution.mo_occ.sum() == pytest.approx(3 * 3, abs=1e-10)  # PySCF's smearing finds 10
    with pytest.raises(InvalidInputError, match="odd number of electrons over all k-points"):
        BACKEND.solve(aluminium, load_functional("pbe"), replace(settings, smearing=None))
    with pytest.warns(UserWarning, match="a metal needs a width"):
        BACKEND.solve(
            aluminium, load_functional("pbe"), replace(settings, smearing=None, kpts=(2, 1, 1))
        )


def test_energies_add_up_with_smearing_and_dispersion():
    structure, settings = hydrogen((1.0, 0.6))
    term = Dispersion("d3bj", "pbe")
    bare = BACKEND.solve(structure, load_functional("pbe"), settings)
    with_term = BACKEND.solve(structure, load_functional("pbe"), settings, (term,))
    items = dict(with_term.energies)
    total, free = items.pop("total"), items.pop("free")
    assert set(items) == {"nuclear", "core", "coulomb", "xc", "d3bj(pbe)", "entropy"}
    assert sum(items.values()) == pytest.approx(total, abs=1e-10)
    assert free - total == pytest.approx(items["entropy"], abs=1e-12)
    assert items["entropy"] < -1e-3
    assert term.energy(structure) < -1e-4
    assert with_term.energy - bare.energy == pytest.approx(term.energy(structure), abs=1e-9)
    for ours, expected in (
        (BACKEND.forces(with_term) - BACKEND.forces(bare), term.forces(structure)),
        (BACKEND.stress(with_term) - BACKEND.stress(bare), term.stress(structure)),
    ):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-8)


def test_signs_of_initial_moments_are_kept():
    cell = [3.5, 3.5, 4.4]
    atoms = Atoms("H2", [[0, 0, 0], [0, 0, 2.2]], cell=cell, pbc=True)
    found = {}
    for name, moments in {"afm": (1.0, -1.0), "fm": (1.0, 1.0)}.items():
        solution = BACKEND.solve(as_system(atoms, magmoms=moments), load_functional("pbe"), BASE)
        found[name] = BACKEND.properties(solution)
    assert found["afm"]["magmoms"][0] > 0.5
    assert found["afm"]["magmoms"][1] == pytest.approx(-found["afm"]["magmoms"][0], abs=1e-3)
    assert found["afm"]["magmom"] == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(found["fm"]["magmoms"], [1.0, 1.0], atol=1e-3)
    assert found["fm"]["magmom"] == pytest.approx(2.0)


def test_populations_levels_and_bands():
    structure, settings = hydrogen((1.0, 0.0), n_unpaired=1)
    solution = BACKEND.solve(structure, load_functional("pbe"), settings)
    properties = BACKEND.properties(solution)
    assert properties["magmom"] == pytest.approx(1.0, abs=1e-10)
    assert properties["magmoms"].sum() == pytest.approx(1.0, abs=1e-8)
    assert properties["charges"].sum() == pytest.approx(0.0, abs=1e-8)
    assert "dipole" not in properties
    levels = spectrum(solution)
    assert levels["fermi_level"].shape == (2,)
    assert levels["fermi_level"][0] > levels["fermi_level"][1]
    assert levels["eigenvalues"].shape == (2, 2, 2)
    again = bands(solution, levels["kpoints"])
    np.testing.assert_allclose(again, levels["eigenvalues"], atol=1e-5)


def test_a_molecule_in_a_box_has_a_dipole_that_does_not_depend_on_the_place():
    atoms = Atoms("ClH", [[0.0, 0.0, 0.0], [0.0, 0.0, 1.28]])
    dipoles = []
    for shift in (0.0, 5.1):
        atoms.translate([0.0, 0.0, shift])
        atoms.set_cell([7.0, 7.0, 8.0])
        solution = BACKEND.solve(
            as_system(atoms), load_functional("pbe"), replace(BASE, kpts=(2, 2, 1))
        )
        assert len(solution.host.kpts) == 1
        dipoles.append(BACKEND.properties(solution)["dipole"])
    assert dipoles[0][2] > 0.1  # from chlorine to hydrogen
    np.testing.assert_allclose(dipoles[0][:2], 0.0, atol=1e-4)
    np.testing.assert_allclose(dipoles[1], dipoles[0], atol=5e-3)
    with pytest.raises(InvalidInputError, match="stress: expected a periodic system"):
        BACKEND.stress(solution)


def test_a_density_starts_the_next_calculation():
    structure, settings = diamond()
    functional = load_functional("pbe")
    first = BACKEND.solve(structure, functional, settings)
    second = BACKEND.solve(structure, functional, settings, guess=first.density_matrix)
    assert second.cycles < first.cycles - 2
    assert second.energy == pytest.approx(first.energy, abs=1e-9)
    other = BACKEND.solve(structure, functional, settings, guess=np.zeros((1, 3, 3)))
    assert other.energy == pytest.approx(first.energy, abs=1e-9)


@pytest.mark.slow
def test_a_left_handed_cell_is_the_same_crystal():
    structure, settings = diamond()
    functional = load_functional("pbe")
    first = BACKEND.solve(structure, functional, settings)
    turned = replace(structure, cell=structure.cell[[1, 0, 2]])
    second = BACKEND.solve(turned, functional, settings)
    assert second.energy == pytest.approx(first.energy, abs=1e-7)
    np.testing.assert_allclose(BACKEND.forces(second), BACKEND.forces(first), atol=1e-5)


def test_no_convergence_raises_with_the_history():
    structure, settings = diamond()
    with pytest.raises(SCFNotConverged, match="did not converge with any strategy") as caught:
        BACKEND.solve(structure, load_functional("pbe"), replace(settings, max_cycle=1))
    tried = [attempt.strategy for attempt in caught.value.history]
    assert tried == ["diis", "damped", "level-shift", "annealing"]
    assert not any(attempt.converged for attempt in caught.value.history)


def test_a_small_gap_does_not_undo_the_convergence():
    structure, settings = diamond()
    # at Gamma the gap is 0.2 eV, and a cycle without DIIS multiplies errors by 50
    settings = replace(settings, kpts=None, conv_tol_grad=1e-6)
    solution = BACKEND.solve(structure, load_functional("pbe"), settings)
    assert solution.host.gap < 0.01
    assert [attempt.strategy for attempt in solution.history] == ["diis"]
    assert solution.history[-1].gradient_norm < 3e-6


@pytest.mark.parametrize("strategy", BACKEND.ladder[1:], ids=lambda strategy: strategy.name)
def test_every_strategy_finds_the_same_state(strategy):
    structure, settings = diamond()
    alone = PeriodicBackend((strategy,)).solve(structure, load_functional("pbe"), settings)
    plain = BACKEND.solve(structure, load_functional("pbe"), settings)
    assert alone.energy == pytest.approx(plain.energy, abs=1e-8)
    np.testing.assert_allclose(alone.mo_energy, plain.mo_energy, rtol=0, atol=1e-4)
    assert set(np.unique(alone.mo_occ)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("functional", "terms", "message"),
    [
        (LibxcFunctional("pbe0"), (), "without exact exchange for periodic PySCF"),
        (load_functional("pbe0"), (), "without exact exchange for periodic PySCF"),
        (LibxcFunctional("b97m_v"), (), "without nonlocal correlation for periodic PySCF"),
        (AtomMoments(), (), "semi-local functional for periodic PySCF, got the nonlocal"),
        (load_functional("pbe"), (ElectricField((0, 0, 0.01)),), "terms of the geometry alone"),
    ],
)
def test_what_this_host_cannot_do_is_refused(functional, terms, message):
    structure, settings = diamond()
    with pytest.raises(InvalidInputError, match=message):
        BACKEND.solve(structure, functional, settings, terms)


@pytest.mark.parametrize(
    ("state", "changes", "message"),
    [
        ({"n_unpaired": 2}, {"reference": "rks"}, "'rks' needs a closed shell"),
        ({"n_unpaired": 4}, {}, "5 is impossible with 2 valence electrons"),
        ({"n_unpaired": 1}, {"smearing": None, "kpts": None}, "impossible with 2 electrons"),
        ({"magmoms": (1.0,)}, {}, "one collinear moment per atom"),
    ],
)
def test_impossible_spin_states_are_refused(state, changes, message):
    structure, settings = hydrogen(**state)
    with pytest.raises(InvalidInputError, match=message):
        BACKEND.solve(structure, load_functional("pbe"), replace(settings, **changes))


def test_a_grid_that_misses_electrons_is_refused():
    rocksalt = as_system(bulk("LiH", "rocksalt", a=4.1))
    with pytest.raises(InvalidInputError, match="a grid on which 4 electrons are found, got"):
        BACKEND.solve(rocksalt, load_functional("pbe"), replace(BASE, ecut=400.0, kpts=None))
