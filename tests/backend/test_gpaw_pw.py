"""GPAW as a host: small cells and cutoffs, the same mathematics as large ones."""

import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from functionals import AtomMoments
from gpaw_runs import FORCE, HOST, SILICON, crystal, functional, needs_gpaw, silicon, solve
from paw_atoms import EveryEntry, atom, of_atom, one_centre

from ase_neuralxc import NeuralXC
from ase_neuralxc.backend.gpaw.radial import RadialRule
from ase_neuralxc.backend.gpaw.scf import GPAWStrategy, solve_structure
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw.structure import build_structure
from ase_neuralxc.backend.gpaw.xc import make_xc
from ase_neuralxc.errors import InvalidInputError, MissingDependencyError, SCFNotConverged
from ase_neuralxc.records import FidelityTag, units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.terms.field import ElectricField


def test_without_gpaw_there_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "ase_neuralxc.backend.gpaw.kernel", None)
    with pytest.raises(MissingDependencyError, match=r"scripts/install_gpaw, or use .*pyscf-pbc"):
        solve(silicon(), **SILICON)


@needs_gpaw
@pytest.mark.parametrize("name", ["pbe", "r2scan"])
def test_silicon_is_that_of_gpaws_own_functional(name):
    energies, others, forces, stresses = [], [], [], []
    for spec in (name, f"libxc:{name}"):
        other = solve(silicon((0.0, 0.1, -0.08)), spec, **SILICON)
        others.append(other.energy * units.HARTREE_EV / 2)
        solution = solve(silicon(), spec, **SILICON)
        energies.append(solution.energy * units.HARTREE_EV / 2)
        forces.append(HOST.forces(solution) * FORCE)
        stresses.append(HOST.stress(solution) * units.STRESS_EV_ANGSTROM3)
    assert np.abs(forces[1]).max() > 0.5
    assert np.abs(stresses[1]).max() > 1e-3
    # near the nucleus GPAW's sum over radial points is not the integral: a constant of the core
    assert energies[0] == pytest.approx(energies[1], abs=2e-5)
    assert abs(energies[1] - others[1]) > 0.01
    assert energies[0] - others[0] == pytest.approx(energies[1] - others[1], abs=1e-6)
    np.testing.assert_allclose(forces[0], forces[1], atol=1e-5)
    np.testing.assert_allclose(stresses[0], stresses[1], atol=1e-6)


@needs_gpaw
@pytest.mark.slow
def test_forces_are_the_derivative_of_the_free_energy():
    atoms = silicon()
    solution = solve(atoms, "r2scan", smearing=0.3, **SILICON)
    assert solution.free_energy < solution.energy - 1e-6
    force = HOST.forces(solution)[1, 0] * FORCE
    energies = []
    for step in (0.01, -0.01):
        moved = atoms.copy()
        moved.positions[1, 0] += step
        shifted = solve(moved, "r2scan", smearing=0.3, guess=solution.restart, **SILICON)
        energies.append(shifted.free_energy * units.HARTREE_EV)
        solution = shifted
    assert abs(force) > 0.5
    assert force == pytest.approx(-(energies[0] - energies[1]) / 0.02, abs=1e-4)


@needs_gpaw
def test_energies_add_up():
    solution = solve(silicon(), smearing=0.3, **SILICON)
    parts = dict(solution.energies)
    total, free = parts.pop("total"), parts.pop("free")
    assert sum(parts.values()) == pytest.approx(total, abs=1e-10)
    assert free - total == pytest.approx(parts["entropy"], abs=1e-10)
    assert parts["entropy"] < -1e-6
    assert solution.density_matrix is None
    assert solution.history[-1].converged
    # both spins in one orbital, weighted over the k-points: eight valence electrons
    weights = HOST.spectrum(solution)["weights"]
    assert np.einsum("skn,k->", solution.mo_occ, weights) == pytest.approx(8, abs=1e-8)


@needs_gpaw
def test_a_calculation_is_continued_and_then_belongs_to_the_new_structure():
    first = solve(silicon(), **SILICON)
    moved = silicon((0.05, 0.03, 0.01))
    fresh = solve(moved, **SILICON)
    again = solve(moved, guess=first.restart, **SILICON)
    assert [a.strategy for a in again.history] == ["continued"]
    assert again.cycles < fresh.cycles
    assert again.energy == pytest.approx(fresh.energy, abs=1e-8)
    np.testing.assert_allclose(HOST.forces(again), HOST.forces(fresh), atol=1e-6)
    with pytest.raises(InvalidInputError, match="has been continued for another structure"):
        HOST.forces(first)
    # another functional starts anew
    other = solve(moved, "libxc:pbe", guess=again.restart, **SILICON)
    assert other.history[0].strategy == "msr1"
    assert np.abs(HOST.forces(again)).max() > 0.01


@needs_gpaw
@pytest.mark.slow
@pytest.mark.parametrize("change", ["symmetry", "cell"])
def test_a_broken_symmetry_or_another_cell_is_continued_too(change):
    start = bulk("Si")
    first = solve(start, "r2scan", **SILICON)
    atoms = silicon() if change == "symmetry" else start
    if change == "cell":
        atoms.set_cell(atoms.cell * 1.01, scale_atoms=True)
    again = solve(atoms, "r2scan", guess=first.restart, **SILICON)
    fresh = solve(atoms, "r2scan", **SILICON)
    assert again.history[-1].strategy == "continued"
    assert again.energy == pytest.approx(fresh.energy, abs=1e-8)
    np.testing.assert_allclose(HOST.forces(again), HOST.forces(fresh), atol=1e-6)
    np.testing.assert_allclose(HOST.stress(again), HOST.stress(fresh), atol=1e-7)


@needs_gpaw
@pytest.mark.slow
@pytest.mark.parametrize("name", ["pbe", "r2scan"])
def test_iron_has_the_moment_of_gpaws_own_functional(name):
    from gpaw.utilities import pack_density

    settings = {"ecut": 300.0, "kpts": (3, 3, 3), "smearing": 0.1, "conv_tol_density": 1e-8}
    specs = (name, f"libxc:{name}")
    solutions = [solve(bulk("Fe"), spec, **settings) for spec in specs]
    wider = [solve(bulk("Fe", a=2.95), spec, **settings) for spec in specs]
    moments = [HOST.properties(s)["magmom"] for s in solutions]
    stresses = [HOST.stress(s) * units.STRESS_EV_ANGSTROM3 for s in solutions]
    assert moments[1] > 2
    assert moments[0] == pytest.approx(moments[1], abs=1e-4)
    np.testing.assert_allclose(stresses[0], stresses[1], atol=1e-6)
    # the same constant for every structure, that of the sum over radial points of GPAW's atom
    # (and 13 micro-eV: see the one-centre tests)
    setup, _ = atom("Fe", "pbe")
    D_sp = pack_density(of_atom(setup))[None]
    few, every = (one_centre(setup, name, rule)(D_sp)[0] for rule in (RadialRule, EveryEntry))
    offsets = [
        (ours.energy - theirs.energy) * units.HARTREE_EV for ours, theirs in (solutions, wider)
    ]
    assert abs(wider[1].energy - solutions[1].energy) * units.HARTREE_EV > 0.01
    assert offsets[0] == pytest.approx((few - every) * units.HARTREE_EV, abs=2e-5)
    assert offsets[1] == pytest.approx(offsets[0], abs=1e-6)


@needs_gpaw
@pytest.mark.slow
def test_antiferromagnetic_and_fixed_moments():
    settings = {"ecut": 250.0, "kpts": (2, 2, 2), "smearing": 0.2}
    iron = bulk("Fe", cubic=True, a=3.1)
    iron.set_initial_magnetic_moments([2.5, -2.5])
    properties = HOST.properties(solve(iron, "libxc:pbe", **settings))
    assert properties["magmom"] == pytest.approx(0, abs=1e-3)
    assert properties["magmoms"][0] > 1
    assert properties["magmoms"][0] == pytest.approx(-properties["magmoms"][1], abs=1e-2)
    iron.set_initial_magnetic_moments([2.0, 2.0])
    fixed = solve(iron, "libxc:pbe", state={"n_unpaired": 5}, **settings)
    assert HOST.properties(fixed)["magmom"] == pytest.approx(5, abs=1e-6)
    assert HOST.spectrum(fixed)["fermi_level"].shape == (2,)


@needs_gpaw
def test_aluminium_has_no_gap_and_warns_without_smearing():
    settings = {"ecut": 150.0, "kpts": (4, 4, 4)}
    spectrum = HOST.spectrum(solve(bulk("Al"), smearing=0.2, **settings))
    assert spectrum["band_gap"] == 0
    assert spectrum["eigenvalues"].shape[:2] == (1, len(spectrum["kpoints"]))
    assert spectrum["eigenvalues"].min() < spectrum["fermi_level"]
    with pytest.warns(UserWarning, match="expected Fermi-Dirac smearing"):
        solve(bulk("Al"), **settings)


@needs_gpaw
def test_a_molecule_in_a_box():
    atoms = Atoms("LiH", [(0, 0, 0), (0, 0, 1.6)])
    solution = solve(atoms, ecut=200.0, vacuum=3.0, kpts=(4, 4, 4))
    properties = HOST.properties(solution)
    debye = properties["dipole"][2] * units.E_BOHR_DEBYE
    assert debye == pytest.approx(-5.6, abs=0.5)  # PBE; measured: 5.88, from Li to H
    assert np.abs(HOST.forces(solution).sum(axis=0)).max() < 1e-3
    with pytest.raises(InvalidInputError, match="stress: expected a periodic system"):
        HOST.stress(solution)


@needs_gpaw
@pytest.mark.slow
def test_the_dipole_of_an_ion_belongs_to_the_origin_of_the_coordinates():
    atoms = Atoms("LiH", [(0, 0, 0), (0, 0, 1.6)], cell=[7, 7, 8])
    dipoles = []
    for shift in (0.0, 2.0):
        atoms.positions[:, 2] += shift
        ion = solve(atoms, state={"charge": 1}, ecut=200.0, conv_tol_density=1e-4)
        dipoles.append(HOST.properties(ion)["dipole"][2] * units.BOHR_ANGSTROM)
    assert dipoles[1] - dipoles[0] == pytest.approx(2.0, abs=1e-2)


@needs_gpaw
def test_dispersion_is_added_and_electronic_terms_are_refused():
    plain = solve(silicon(), **SILICON)
    term = Dispersion("d3bj", "pbe")
    bound = solve(silicon(), terms=(term,), **SILICON)
    system = bound.system
    assert bound.energies[term.name] == term.energy(system) < -1e-3
    assert bound.energy - plain.energy == pytest.approx(term.energy(system), abs=1e-8)
    change = HOST.forces(bound) - HOST.forces(plain)
    np.testing.assert_allclose(change, term.forces(system), atol=1e-6)
    change = HOST.stress(bound) - HOST.stress(plain)
    np.testing.assert_allclose(change, term.stress(system), atol=1e-8)
    with pytest.raises(InvalidInputError, match="terms of the geometry alone"):
        solve(silicon(), terms=(ElectricField((0.0, 0.0, 0.01)),), **SILICON)


@needs_gpaw
def test_an_unconverged_field_raises_with_its_history():
    settings = GPAWSettings(**{**SILICON, "max_cycle": 3})
    pbe = functional("pbe")
    with pytest.raises(SCFNotConverged, match="did not converge") as caught:
        HOST.solve(crystal(silicon()), pbe, settings)
    assert [a.strategy for a in caught.value.history] == ["msr1", "pulay", "slow"]
    assert all(a.cycles == 3 and not a.converged for a in caught.value.history)


@needs_gpaw
@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 2])
def test_every_strategy_finds_the_same_energy(number):
    from ase_neuralxc.backend.gpaw.scf import LADDER

    settings = GPAWSettings(**SILICON)
    structure = build_structure(crystal(silicon()), settings)
    xc = make_xc(functional("libxc:pbe"), None, "cpu")
    strategy: GPAWStrategy = LADDER[number]
    run, history = solve_structure(structure, settings, None, xc, ladder=[strategy])
    assert history[0].strategy == strategy.name
    reference = solve(silicon(), "libxc:pbe", **SILICON)
    assert run.dft.energies.total_free == pytest.approx(reference.energy, abs=1e-7)


@needs_gpaw
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pbe0", "without exact exchange .* got 'pbe0' with 0.25"),
        ("libxc:b3lyp", "without exact exchange"),
        ("libxc:b97m_v", "without nonlocal correlation"),
        ("libxc:0.5*pbe,pbe", "at most one exchange and one correlation"),
    ],
)
def test_functionals_that_gpaw_cannot_serve_are_refused(name, text):
    with pytest.raises(InvalidInputError, match=text):
        solve(silicon(), name, **SILICON)


@needs_gpaw
def test_nonlocal_functionals_are_refused():
    with pytest.raises(InvalidInputError, match=r"semi-local functional .* got 'moments'"):
        HOST.solve(crystal(silicon()), AtomMoments(), GPAWSettings(**SILICON))


@needs_gpaw
def test_an_element_without_paw_data_is_named():
    with pytest.raises(InvalidInputError, match=r"setups: expected PAW data of 'paw' .*\['Po'\]"):
        solve(bulk("Po", "sc", a=3.35), ecut=100.0, smearing=0.1)


@needs_gpaw
def test_a_density_in_a_file_is_a_start(tmp_path):
    first = solve(silicon(), **SILICON)
    np.savez(tmp_path / "density.npz", density=first.restart)
    with np.load(tmp_path / "density.npz") as data:
        density = data["density"]
    again = solve(silicon(), guess=density, **SILICON)
    assert [a.strategy for a in again.history] == ["continued"]
    assert again.cycles < first.cycles
    assert again.energy == pytest.approx(first.energy, abs=1e-8)
    other = solve(silicon(), guess=density[:-1], **SILICON)  # of another cutoff, say
    assert other.energy == pytest.approx(first.energy, abs=1e-8)


@needs_gpaw
def test_bands_pass_through_the_levels_of_the_calculation():
    solution = solve(bulk("Si"), "r2scan", **SILICON)
    spectrum = HOST.spectrum(solution)
    at = HOST.bands(solution, np.vstack([spectrum["kpoints"], [[0, 0, 0]]]))
    occupied = spectrum["eigenvalues"][..., :4]
    np.testing.assert_allclose(at[:, :-1, :4], occupied, atol=1e-5)
    assert at[0, -1, 3] > occupied.max() + 0.01  # the top is at Gamma
    with pytest.raises(InvalidInputError, match=r"kpoints: expected \[n, 3\]"):
        HOST.bands(solution, np.zeros(3))


@needs_gpaw
def test_the_calculator_of_ase():
    atoms = silicon()
    atoms.calc = NeuralXC("pbe", backend="gpaw", ecut=160.0, kpts=(2, 2, 2), conv_tol_density=1e-6)
    forces, stress = atoms.get_forces(), atoms.get_stress()
    assert np.abs(forces).max() > 0.5
    assert stress.shape == (6,)
    assert 0 < atoms.calc.get_band_gap() < 3
    record = atoms.calc.export_label()
    assert record.fidelity.host == "gpaw"
    assert {"gpaw", "gpaw-data"} < set(record.provenance["versions"])
    assert record.fidelity.density_clamps == "n > 1e-05 to 0.0001, tau >= tau_W within 0.01 to 0.5"
    atoms.positions[1, 0] += 0.02
    atoms.get_potential_energy()
    assert [a.strategy for a in atoms.calc.solution.history] == ["continued"]


def test_fidelity_holds_the_rules_and_nothing_that_follows_from_a_cell():
    settings = GPAWSettings(ecut=350.0, kpts={"density": 3.5}, smearing=0.1, dipole_layer=True)
    tag = FidelityTag(functional="r2scan", **settings.fidelity(functional("r2scan")))
    assert tag.density_clamps == "n > 1e-05 to 0.0001, tau >= tau_W within 0.01 to 0.5"
    assert (tag.host, tag.basis, tag.kpoint_density) == ("gpaw", "plane waves 350 eV", 3.5)
    points = "one-centre points max(0.36 N, 170)"
    assert tag.grid == f"k-points density with Gamma, dipole layer, {points}"
    # GPAW's own functionals run as GPAW runs them
    native = GPAWSettings(kpts=(2, 2, 1)).fidelity(functional("libxc:pbe"))
    assert (native["density_clamps"], native["grid"]) == (None, "k-points 2x2x1")
    bare = GPAWSettings(kpts=(2, 2, 1), clamps=None).fidelity(functional("pbe"))
    assert (bare["density_clamps"], bare["grid"]) == (None, f"k-points 2x2x1, {points}")
