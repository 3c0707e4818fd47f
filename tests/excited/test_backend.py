"""Constrained excited states: the constraint holds, everything else is relaxed, and no more."""

import pickle

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from pyscf import scf

from ase_neuralxc import InvalidInputError, NeuralXC, TransitionConstraint
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.records import units
from ase_neuralxc.response.excitations import excitations
from ase_neuralxc.response.polarizability import polarizability

BASIS = {"basis": "6-31g", "dispersion": None, "conv_tol": 1e-10, "grid_level": 2}
FORWARD = [("HOMO", "LUMO", 1.0)]


def solved(atoms, multiplicity="mixed", transitions=FORWARD, xc="pbe", **settings):
    excitation = TransitionConstraint(transitions, multiplicity)
    atoms.calc = NeuralXC(xc, excitation=excitation, **{**BASIS, **settings})
    atoms.get_potential_energy()
    return atoms.calc.solution


@pytest.fixture(scope="module")
def formaldehyde():
    return {m: solved(molecule("H2CO"), m) for m in ("singlet", "triplet", "mixed")}


def populations(solution, density):
    """Electrons of each ground-state orbital, [nmo]."""
    orbitals = np.asarray(solution.ground.mo_coeff)
    dual = solution.host.get_ovlp() @ orbitals
    return np.einsum("pi,pq,qi->i", dual, density, dual)


def test_electrons_are_where_the_constraint_wants_them(formaldehyde):
    homo = 7
    up, down = (populations(formaldehyde["mixed"], d) for d in formaldehyde["mixed"].density_matrix)
    assert (up[homo], up[homo + 1]) == (pytest.approx(0, abs=1e-10), pytest.approx(1, abs=1e-10))
    assert (up.sum(), down.sum()) == (pytest.approx(8, abs=1e-9), pytest.approx(8, abs=1e-9))
    assert down[homo] > 0.9  # free to relax
    assert abs(down[homo] - 1) > 1e-6
    up, down = (
        populations(formaldehyde["triplet"], d) for d in formaldehyde["triplet"].density_matrix
    )
    assert (up[homo + 1], down[homo]) == (pytest.approx(1), pytest.approx(0, abs=1e-10))
    assert (up.sum(), down.sum()) == (pytest.approx(9), pytest.approx(7))
    # twice the one less the other
    parts = [formaldehyde[m].density_matrix.sum(axis=0) for m in ("mixed", "triplet")]
    singlet = formaldehyde["singlet"].density_matrix
    np.testing.assert_allclose(singlet, 2 * parts[0] - parts[1], atol=1e-6)
    assert populations(formaldehyde["singlet"], singlet).sum() == pytest.approx(16)


def test_weights_are_populations():
    moves = [("HOMO", "LUMO", 0.7), ("HOMO-1", "LUMO", 0.1), ("HOMO-1", "LUMO+2", 0.2)]
    solution = solved(molecule("H2CO"), "triplet", moves)
    up, down = (populations(solution, d) for d in solution.density_matrix)
    np.testing.assert_allclose(up[[8, 10]], [0.8, 0.2], atol=1e-9)
    np.testing.assert_allclose(down[[7, 6]], [0.3, 0.7], atol=1e-9)
    assert solution.energy == pytest.approx(sum(v for k, v in solution.energies.items()
                                                if k != "total"), abs=1e-9)  # fmt: skip


def turned(mf, spin, first, second, angle):
    """Energy after two orbitals of one spin have been turned into each other."""
    orbitals = np.array(mf.mo_coeff)
    pair = orbitals[spin][:, [first, second]]
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    orbitals[spin][:, [first, second]] = pair @ turn
    return mf.energy_tot(mf.make_rdm1(orbitals, mf.mo_occ))


def test_energy_is_stationary_in_allowed_directions_alone(formaldehyde):
    mf = formaldehyde["mixed"].host
    filled, empty, hole, particle = 6, 10, mf.mo_occ.shape[1] - 2, mf.mo_occ.shape[1] - 1
    assert mf.mo_occ[0][[filled, empty, hole, particle]].tolist() == [1, 0, 0, 1]
    step = 1e-3

    def slope(spin, first, second):
        ends = [turned(mf, spin, first, second, sign * step) for sign in (1, -1)]
        return (ends[0] - ends[1]) / (2 * step)

    for first, second in ((filled, empty), (5, 9), (4, 12)):
        assert abs(slope(0, first, second)) < 1e-5
        assert abs(slope(1, first, second)) < 1e-5
    forbidden = [abs(slope(0, i, particle)) for i in range(7, 16)]
    assert max(forbidden) > 1e-3


def test_one_electron_stays_in_its_orbital():
    solution = solved(Atoms("H"), transitions=[(0, 1, 1.0)], basis="6-31g**")
    orbital = np.asarray(solution.ground.mo_coeff)[0][:, 1]
    density = np.array([np.outer(orbital, orbital), np.zeros((len(orbital), len(orbital)))])
    assert solution.energy == pytest.approx(solution.host.energy_tot(density), abs=1e-9)
    assert solution.excitation_energy > 0.3


def test_above_a_free_determinant_and_not_far(formaldehyde):
    solution = formaldehyde["mixed"]
    ground = solution.ground
    free = MolecularBackend().mean_field(
        solution.host.mol, NeuralXC("pbe").functional, solution.settings, "uks", ()
    )
    orbitals = np.stack([np.asarray(ground.mo_coeff)] * 2)
    occupations = np.stack([np.asarray(ground.mo_occ) / 2] * 2)
    occupations[0][[7, 8]] = 0, 1
    free = scf.addons.mom_occ(free, orbitals, occupations)
    free.kernel(dm0=free.make_rdm1(orbitals, occupations))
    assert free.converged
    above = (solution.energy - free.e_tot) * units.HARTREE_EV
    assert 0 < above < 0.5


def test_singlet_is_purified_and_near_the_best_estimates(formaldehyde):
    energies = {m: s.excitation_energy * units.HARTREE_EV for m, s in formaldehyde.items()}
    assert energies["singlet"] == pytest.approx(2 * energies["mixed"] - energies["triplet"])
    # best estimates of Schreiber, Silva-Junior, Sauer and Thiel, JCP 128, 134110 (2008)
    assert energies["singlet"] == pytest.approx(3.88, abs=0.5)
    assert energies["triplet"] == pytest.approx(3.50, abs=0.5)
    assert energies["triplet"] < energies["singlet"]


@pytest.mark.parametrize("xc", ["libxc:pbe0", "nxc-h4"])
def test_functionals_with_exchange(xc):
    solution = solved(molecule("H2O"), "singlet", xc=xc, basis="sto-3g", conv_tol=1e-9)
    assert 0.2 < solution.excitation_energy < 0.7


def test_calculator_results_label_and_another_geometry():
    atoms = molecule("H2CO")
    solution = solved(atoms, "triplet")
    results = atoms.calc.results
    assert results["excitation_energy"] == pytest.approx(
        solution.excitation_energy * units.HARTREE_EV
    )
    assert (results["magmom"], results["magmoms"].sum()) == (2, pytest.approx(2))
    assert "excitation=TransitionConstraint" in repr(atoms.calc)
    label = atoms.calc.export_label()
    assert label.spin_state.target == "triplet HOMO->LUMO"
    # another surface than the ground state's: labels of both are never mixed unnoticed
    assert label.fidelity.constraint == "triplet HOMO->LUMO"
    assert label.energy == pytest.approx(results["energy"])
    assert [a.strategy.split(":")[0] for a in solution.history] == ["diis", "triplet"]
    assert 1 < atoms.calc.get_band_gap() < 10  # of the ground state
    before = results["excitation_energy"]
    atoms.positions[0, 2] += 0.1  # a longer C-O bond
    atoms.get_potential_energy()
    assert atoms.calc.results["excitation_energy"] < before - 0.05
    with pytest.raises(PropertyNotImplementedError, match="forces of an excited state"):
        atoms.get_forces()
    with pytest.raises(InvalidInputError, match="frozen orbitals"):
        excitations(atoms.calc, atoms)
    with pytest.raises(InvalidInputError, match="frozen orbitals"):
        polarizability(atoms.calc.solution)
    again = pickle.loads(pickle.dumps(atoms.calc))
    assert again.results["excitation_energy"] == atoms.calc.results["excitation_energy"]
    atoms.calc.set(excitation=None)
    assert atoms.get_potential_energy() < label.energy
    assert "excitation_energy" not in atoms.calc.results
    assert atoms.get_forces().shape == (4, 3)


def test_bad_input():
    excitation = TransitionConstraint(FORWARD)
    with pytest.raises(InvalidInputError, match="expected a TransitionConstraint"):
        NeuralXC("pbe", excitation="HOMO-LUMO")
    with pytest.raises(InvalidInputError, match="solvent: expected None"):
        solved(molecule("H2O"), solvent="water")
    with pytest.raises(InvalidInputError, match="closed-shell ground state"):
        solved(molecule("OH"), "singlet")
    atoms = bulk("Si")
    atoms.calc = NeuralXC("pbe", excitation=excitation)
    with pytest.raises(InvalidInputError, match="expected a molecule in PySCF"):
        atoms.get_potential_energy()
