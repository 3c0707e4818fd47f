"""The calculator as ASE and its users see it."""

from __future__ import annotations

import multiprocessing
import pickle
from operator import methodcaller

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces
from ase.db import connect
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.md.verlet import VelocityVerlet
from ase.mep import NEB
from ase.optimize import BFGS, LBFGS
from ase.units import fs
from systems import aminyl, stretched_hydrogen, water

from ase_neuralxc import InvalidInputError, NeuralXC
from ase_neuralxc.functional import NeuralSemilocal, load_functional, save_checkpoint
from ase_neuralxc.records import units

FAST = {"basis": "6-31g", "grid_level": 1, "density_fit": True}


def test_every_property_of_water_is_filled():
    atoms = water()
    atoms.calc = NeuralXC("r2scan", basis="6-31g")
    assert atoms.get_potential_energy() == pytest.approx(-2077.4, abs=2.0)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    assert 0.4 < np.linalg.norm(atoms.get_dipole_moment()) < 0.7
    charges = atoms.get_charges()
    assert charges.sum() == pytest.approx(0.0, abs=1e-8)
    assert charges[0] < -0.3
    assert np.abs(atoms.get_forces().sum(axis=0)).max() < 1e-6
    with pytest.raises(PropertyNotImplementedError):
        atoms.get_stress()


def test_moments_sum_to_the_multiplicity():
    atoms = aminyl()
    atoms.calc = NeuralXC(**FAST)
    assert atoms.get_magnetic_moment() == 1.0
    assert atoms.get_magnetic_moments().sum() == pytest.approx(1.0, abs=1e-8)
    atoms.calc = NeuralXC(multiplicity=4, **FAST)
    assert atoms.get_magnetic_moment() == 3.0


def test_signed_initial_moments_start_broken_symmetry():
    atoms = stretched_hydrogen()
    atoms.calc = NeuralXC("pbe", **FAST)
    closed = atoms.get_potential_energy()
    atoms.set_initial_magnetic_moments([1, -1])
    assert atoms.get_potential_energy() < closed - 1.0
    moments = atoms.get_magnetic_moments()
    assert moments[0] > 0.9
    assert moments[1] == pytest.approx(-moments[0], abs=1e-4)


def test_forces_agree_with_ase_finite_differences():
    atoms = water()
    atoms.calc = NeuralXC("r2scan", dispersion="d4", conv_tol=1e-10, conv_tol_grad=1e-7, **FAST)
    forces = atoms.get_forces()
    numerical = calculate_numerical_forces(atoms, eps=1e-3, iatoms=[0, 1])
    np.testing.assert_allclose(forces[:2], numerical, atol=3e-5)


@pytest.mark.parametrize("optimiser", [BFGS, LBFGS])
def test_relaxation_reaches_the_known_geometry(optimiser):
    atoms = water()
    atoms.calc = NeuralXC("r2scan", **FAST)
    assert optimiser(atoms, logfile=None).run(fmax=0.01, steps=40)
    assert atoms.get_distance(0, 1) == pytest.approx(0.98, abs=0.02)
    assert atoms.get_angle(1, 0, 2) == pytest.approx(108, abs=4)


def test_nve_conserves_energy():
    atoms = water()
    atoms.calc = NeuralXC("pbe", **FAST)
    rng = np.random.default_rng(3)
    atoms.set_momenta(rng.normal(scale=0.3, size=(3, 3)))
    totals = []
    dynamics = VelocityVerlet(atoms, timestep=0.3 * fs)
    dynamics.attach(lambda: totals.append(atoms.get_total_energy()))
    dynamics.run(20)
    kinetic_scale = 0.5
    assert np.ptp(totals) < 0.02 * kinetic_scale


def test_langevin_moves_atoms():
    atoms = water()
    atoms.calc = NeuralXC("pbe", **FAST)
    start = atoms.positions.copy()
    rng = np.random.default_rng(1)
    Langevin(atoms, 0.5 * fs, temperature_K=300, friction=0.02, rng=rng, fixcm=False).run(3)
    assert np.abs(atoms.positions - start).max() > 1e-4


def test_neb_with_one_calculator_per_image():
    path = [Atoms("H3", [(0, 0, 0), (0, 0, 0.8 + x), (0, 0, 2.2)]) for x in (0.0, 0.3, 0.6)]
    for image in path:
        image.calc = NeuralXC("pbe", multiplicity=2, **FAST)
    band = NEB(path, method="improvedtangent")
    forces = band.get_forces()
    energies = [image.get_potential_energy() for image in path]
    assert np.isfinite(forces).all()
    assert energies[1] > energies[0] + 0.05
    assert energies[0] == pytest.approx(energies[2], abs=1e-4)


def test_database_and_extxyz_keep_the_results(tmp_path):
    atoms = water()
    atoms.calc = NeuralXC("pbe", **FAST)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    write(tmp_path / "w.xyz", atoms, format="extxyz")
    back = read(tmp_path / "w.xyz")
    assert back.get_potential_energy() == pytest.approx(energy, abs=1e-8)
    np.testing.assert_allclose(back.get_forces(), forces, atol=1e-7)
    with connect(tmp_path / "w.db") as database:
        database.write(atoms)
        assert database.get(1).energy == pytest.approx(energy, abs=1e-10)


def test_label_states_level_of_theory_and_survives_a_round_trip():
    atoms = aminyl()
    atoms.calc = NeuralXC("r2scan", dispersion="d4", **FAST)
    atoms.get_forces()
    label = atoms.calc.export_label()
    assert label.energy == atoms.get_potential_energy()
    assert label.spin_state.n_unpaired == 1
    assert label.fidelity.spin_treatment == "UKS"
    assert label.fidelity.dispersion == "d4(r2scan)"
    assert label.stress is None
    assert label.convergence["converged"] is True
    other = NeuralXC("pbe", **FAST)
    other.get_potential_energy(atoms)
    assert other.export_label().fidelity.digest != label.fidelity.digest


def test_warm_start_saves_cycles_and_changed_charge_resets():
    atoms = water()
    calc = atoms.calc = NeuralXC("pbe", **FAST)
    atoms.get_potential_energy()
    cold = calc.solution.cycles
    atoms.positions[1, 0] += 0.01
    atoms.get_potential_energy()
    assert calc.solution.cycles < cold
    calc.set(charge=1)
    assert atoms.get_potential_energy() == pytest.approx(
        NeuralXC("pbe", charge=1, **FAST).get_potential_energy(atoms), abs=1e-5
    )
    assert atoms.get_magnetic_moment() == 1.0


def test_nothing_is_recalculated_without_need():
    atoms = water()
    calc = atoms.calc = NeuralXC("pbe", **FAST)
    atoms.get_potential_energy()
    solution = calc.solution
    atoms.get_forces()
    atoms.get_dipole_moment()
    assert calc.solution is solution
    assert calc.set(charge=0) == {}
    assert calc.solution is solution


def test_two_calculators_do_not_disturb_each_other():
    first, second = water(), water()
    first.calc, second.calc = NeuralXC("pbe", **FAST), NeuralXC("r2scan", **FAST)
    energies = first.get_potential_energy(), second.get_potential_energy()
    assert abs(energies[0] - energies[1]) > 0.1
    assert (first.get_potential_energy(), second.get_potential_energy()) == energies


def test_pickles_into_another_process():
    atoms = water()
    atoms.calc = NeuralXC("pbe", **FAST)
    expected = atoms.get_potential_energy()
    copy = pickle.loads(pickle.dumps(atoms))
    assert copy.get_potential_energy() == expected
    np.testing.assert_allclose(copy.get_forces(), atoms.get_forces(), atol=1e-4)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        atoms.calc.reset()
        (elsewhere,) = pool.map(methodcaller("get_potential_energy"), [atoms])
    assert elsewhere == pytest.approx(expected, abs=1e-6)


def test_restart_from_label(tmp_path):
    label = tmp_path / "density"
    atoms = water()
    NeuralXC("pbe", label=label, **FAST).get_potential_energy(atoms)
    again = NeuralXC("pbe", label=label, **FAST)
    again.get_potential_energy(atoms)
    assert again.solution.cycles <= 3
    (tmp_path / "density.npz").write_bytes(b"PK\x03\x04 truncated")
    with pytest.raises(InvalidInputError, match="cannot read the density"):
        NeuralXC("pbe", label=label, **FAST).get_potential_energy(atoms)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"basi": "x"}, "unknown parameter 'basi'. Did you mean 'basis'?"),
     ({"xc": "r2scn"}, "'r2scn'. Did you mean 'r2scan'?"),
     ({"xc": "libxc:nonsense"}, "known to libxc after 'libxc:', got 'nonsense'"),
     ({"charge": 0.5}, "charge: expected an integer, got 0.5"),
     ({"multiplicity": 0}, "multiplicity: expected a positive integer"),
     ({"backend": "vasp"}, r"unknown backend 'vasp'\..* Valid: auto, gpaw, pyscf"),
     ({"solvent": "water", "kpts": (2, 2, 2)}, "no backend has all of kpts, solvent"),
     ({"backend": "pyscf", "smearing": 0.1}, "unknown parameter 'smearing'"),
     ({"smearing": -1.0}, "smearing: expected a positive number, got -1.0"),
     ({"dispersion": "d5"}, "unknown dispersion 'd5'"),
     ({"dispersion": "d4:foo"}, "no damping parameters for the functional 'foo'")],
)  # fmt: skip
def test_bad_arguments_are_refused_at_once(arguments, message):
    with pytest.raises(InvalidInputError, match=message):
        NeuralXC(**arguments)


def test_bad_structures_and_paths_are_refused(tmp_path):
    no_cell = Atoms("H2", [(0, 0, 0), (0, 0, 1)], pbc=True)
    with pytest.raises(InvalidInputError, match="cell: expected three independent lattice vectors"):
        NeuralXC(backend="pyscf-pbc").get_potential_energy(no_cell)
    with pytest.raises(InvalidInputError, match=r"unknown solvent 'watr'\. Did you mean 'water'"):
        NeuralXC(solvent="watr", **FAST).get_potential_energy(water())
    with pytest.raises(InvalidInputError, match="label: cannot write"):
        NeuralXC("lda", label=tmp_path / "no" / "where", **FAST).get_potential_energy(water())
    with pytest.raises(InvalidInputError, match="txt: cannot write"):
        NeuralXC("lda", txt=tmp_path / "no" / "where", **FAST).get_potential_energy(water())


def test_functional_object_and_log(tmp_path):
    atoms = water()
    atoms.calc = NeuralXC(load_functional("pbe"), txt=tmp_path / "log.txt", **FAST)
    energy = atoms.get_potential_energy()
    text = (tmp_path / "log.txt").read_text()
    assert "diis" in text
    assert f"{energy:.8f}" in text
    assert f"{energy / units.HARTREE_EV:.10f}" in text


def crystal():
    return Atoms("LiH", [(0, 0, 0), (0, 0, 1.7)], cell=[3.4, 3.5, 3.6], pbc=True)


def test_the_structure_chooses_the_host_and_the_reason_is_told():
    calc = NeuralXC("pbe", backend="pyscf-pbc", basis="gth-szv-molopt-sr", ecut=1500)
    assert repr(calc).endswith("backend='pyscf-pbc')")
    atoms = crystal()
    atoms.calc = calc
    assert np.isfinite(atoms.get_potential_energy())
    assert "backend='pyscf-pbc': asked for" in repr(calc)
    assert atoms.get_stress().shape == (6,)
    assert calc.export_label().fidelity.host == "pyscf-pbc"
    assert calc.export_label().stress is not None
    assert calc.get_band_gap() > 1.0
    assert calc.get_eigenvalues().shape == (calc.get_number_of_bands(),)
    with pytest.raises(PropertyNotImplementedError, match="dipole is not defined"):
        atoms.get_dipole_moment()
    bands = calc.band_structure("GX", npoints=3)
    assert bands.energies.shape == (1, 3, calc.get_number_of_bands())

    automatic = NeuralXC("pbe", **FAST)
    automatic.get_potential_energy(water())
    assert "backend='pyscf': no periodic direction" in repr(automatic)
    with pytest.raises(InvalidInputError, match=r"(basis|density_fit|grid_level): the backend"):
        automatic.get_potential_energy(crystal())
    with pytest.raises(InvalidInputError, match="backend: 'pyscf' takes molecules"):
        NeuralXC("pbe", backend="pyscf").get_potential_energy(crystal())


def test_a_trained_functional_brings_basis_grid_and_dispersion(tmp_path):
    path = tmp_path / "small.safetensors"
    functional = NeuralSemilocal(base="r2scan", width=4, depth=1, head_scale=0.0)
    card = {"name": "mine", "basis": "6-31g", "grid_level": 1, "dispersion": "d4:r2scan"}
    save_checkpoint(path, functional, card)
    calc = NeuralXC(path)
    energy = calc.get_potential_energy(water())
    same = NeuralXC("r2scan", dispersion="d4", basis="6-31g", grid_level=1)
    assert energy == pytest.approx(same.get_potential_energy(water()), abs=1e-6)
    tag = calc.export_label().fidelity
    assert (tag.functional, tag.basis, tag.dispersion) == ("mine", "6-31g", "d4(r2scan)")
    assert "xc='mine'" in repr(calc)
    assert "dispersion='d4(r2scan)'" in repr(calc)

    own = NeuralXC(path, basis="sto-3g", dispersion=None)
    own.get_potential_energy(water())
    tag = own.export_label().fidelity
    assert (tag.basis, tag.dispersion) == ("sto-3g", None)


def test_a_changed_cell_counts_for_crystals_and_not_for_molecules():
    atoms = water()
    calc = atoms.calc = NeuralXC("pbe", **FAST)
    atoms.get_potential_energy()
    solution = calc.solution
    atoms.set_cell([9, 9, 9])
    atoms.get_potential_energy()
    assert calc.solution is solution
    atoms = crystal()
    calc = atoms.calc = NeuralXC("pbe", backend="pyscf-pbc", basis="gth-szv-molopt-sr", ecut=1500)
    before = atoms.get_potential_energy()
    atoms.set_cell(atoms.cell * 1.02, scale_atoms=True)
    assert abs(atoms.get_potential_energy() - before) > 1e-3
