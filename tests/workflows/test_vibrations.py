from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.morse import MorsePotential
from ase.constraints import FixAtoms
from ase.vibrations import Vibrations

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import relax, vibrations

EV_CM1 = 8065.543937


class ChargedSprings(Calculator):
    """Harmonic bonds between all atoms, and a dipole from fixed charges."""

    implemented_properties = ("energy", "forces", "dipole")
    default_parameters = {"k": 30.0, "length": 1.1, "charge": 0.3}
    calls = 0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        type(self).calls += 1
        k, length = self.parameters["k"], self.parameters["length"]
        positions = self.atoms.positions
        energy, forces = 0.0, np.zeros_like(positions)
        for i in range(len(positions)):
            for j in range(i):
                arm = positions[i] - positions[j]
                distance = np.linalg.norm(arm)
                energy += k / 2 * (distance - length) ** 2
                pull = -k * (distance - length) * arm / distance
                forces[i] += pull
                forces[j] -= pull
        charges = self.parameters["charge"] * (-1.0) ** np.arange(len(positions))
        self.results = {"energy": energy, "forces": forces, "dipole": charges @ positions}


def diatomic(calc: Calculator | None = None) -> Atoms:
    atoms = Atoms("CO", [[0.1, 0.2, 0.3], [0.1, 0.2, 1.4]])
    atoms.calc = calc or ChargedSprings()
    return atoms


def test_diatomic_has_its_analytic_frequency_and_intensity() -> None:
    atoms = diatomic()
    result = vibrations(atoms)
    m1, m2 = atoms.get_masses()
    mass = m1 * m2 / (m1 + m2)
    # sqrt(1 eV/A^2/dalton) is 521.4708 cm^-1; 974.88 km/mol is |d mu/dQ|^2 = 1 e^2/dalton.
    np.testing.assert_allclose(result.frequencies, [521.47083 * np.sqrt(30 / mass)], rtol=1e-6)
    np.testing.assert_allclose(result.intensities, [974.8801 * 0.3**2 / mass], rtol=1e-6)
    assert result.zero_point_energy == pytest.approx(result.frequencies[0] / EV_CM1 / 2, rel=1e-7)
    assert result.n_external == 5
    assert result.fmax < 1e-10


@pytest.mark.parametrize("nfree", [2, 4])
def test_frequencies_agree_with_ase(tmp_path, nfree: int) -> None:
    atoms = molecule("H2O")
    assert relax(atoms, EMT(), fmax=1e-5).converged
    ours = vibrations(atoms, nfree=nfree)
    ase_run = Vibrations(atoms, name=str(tmp_path / "ase"), nfree=nfree)
    ase_run.run()
    theirs = ase_run.get_frequencies()[6:].real
    assert len(ours.frequencies) == 3
    assert ours.intensities is None
    np.testing.assert_allclose(ours.frequencies, theirs, atol=0.01)
    # Projected or not is the only difference: the Hessian itself is the same.
    np.testing.assert_allclose(ours.hessian, ase_run.get_vibrations().get_hessian_2d(), atol=1e-8)


def test_four_displacements_are_more_accurate() -> None:
    atoms = Atoms("Ar2", [[0, 0, 0], [0, 0, 1.0]], calculator=MorsePotential(rho0=6.0))
    exact = vibrations(atoms, delta=0.001, nfree=4).frequencies[0]
    errors = [abs(vibrations(atoms, delta=0.05, nfree=n).frequencies[0] - exact) for n in (2, 4)]
    assert errors[0] > 1.0
    assert errors[1] < errors[0] / 10


def test_modes_are_orthonormal_and_leave_the_centre_of_mass() -> None:
    atoms = molecule("H2O")
    relax(atoms, EMT(), fmax=1e-3)
    result = vibrations(atoms)
    masses = atoms.get_masses()
    overlap = np.einsum("aix,i,bix->ab", result.modes, masses, result.modes)
    np.testing.assert_allclose(overlap, np.eye(3), atol=1e-10)
    np.testing.assert_allclose(np.einsum("i,aix->ax", masses, result.modes), 0, atol=1e-10)


def test_number_of_external_motions() -> None:
    chain = Atoms("OCO", [[0, 0, -1.1], [0, 0, 0], [0, 0, 1.1]], calculator=EMT())
    assert vibrations(chain).n_external == 5
    assert len(vibrations(chain).frequencies) == 4
    assert vibrations(bulk("Cu", cubic=True), EMT()).n_external == 3
    single = vibrations(Atoms("Cu"), EMT())
    assert single.n_external == 3
    assert len(single.frequencies) == 0
    assert single.zero_point_energy == 0


def test_fixed_atoms_do_not_move_and_the_model_is_harmonic() -> None:
    atoms = diatomic()
    atoms.set_constraint(FixAtoms([0]))
    result = vibrations(atoms)
    assert result.indices.tolist() == [1]
    stretch = 521.47083 * np.sqrt(30 / atoms.get_masses()[1])
    assert result.n_external == 0
    assert result.frequencies[-1] == pytest.approx(stretch, rel=1e-6)
    both = vibrations(diatomic(), indices=[1])
    np.testing.assert_allclose(both.frequencies, result.frequencies, atol=1e-6)


def test_imaginary_modes_are_flagged() -> None:
    # Three collinear atoms of equal bonds are a saddle between triangles.
    atoms = Atoms("O3", [[0, 0, 0], [0, 0, 1.0], [0, 0, 2.0]], calculator=ChargedSprings())
    result = vibrations(atoms)
    assert result.imaginary.sum() == 2
    assert result.energies[0] < 0
    assert "IMAGINARY modes: 2, not a minimum" in result.table()
    assert f"{-result.frequencies[0]:9.2f}i" in result.table()
    with pytest.raises(InvalidInputError, match="real frequencies only, got 2 imaginary"):
        result.thermochemistry()


def test_thermochemistry_of_a_gas() -> None:
    result = vibrations(diatomic())
    hot = result.thermochemistry(temperature=1000)
    assert hot.model == "ideal gas"
    assert hot.zero_point_energy == pytest.approx(result.zero_point_energy)
    # Rigid linear rotor: 7/2 kT plus the vibration.
    quantum, kt = result.energies[0], 8.617333e-5 * 1000
    enthalpy = 3.5 * kt + quantum / 2 + quantum / (np.exp(quantum / kt) - 1)
    assert hot.enthalpy == pytest.approx(enthalpy, rel=1e-5)
    assert hot.free_energy == pytest.approx(hot.enthalpy - 1000 * hot.entropy, rel=1e-10)
    triplet = result.thermochemistry(temperature=1000, multiplicity=3)
    assert triplet.entropy - hot.entropy == pytest.approx(8.617333e-5 * np.log(3), rel=1e-5)
    assert "Gibbs energy" in hot.table()


def test_harmonic_thermochemistry() -> None:
    copper = bulk("Cu", cubic=True)
    result = vibrations(copper, EMT(), indices=[0])
    thermo = result.thermochemistry(temperature=300)
    assert thermo.model == "harmonic"
    x = result.energies / (8.617333e-5 * 300)
    expected = result.zero_point_energy + (8.617333e-5 * 300 * np.log(1 - np.exp(-x))).sum()
    assert thermo.free_energy - thermo.potential_energy == pytest.approx(expected, rel=1e-5)


def test_an_interrupted_run_continues(tmp_path) -> None:
    class Interrupted(Exception):
        pass

    def stop(done: int, total: int, message: str) -> None:
        if done == 7:
            raise Interrupted

    atoms = diatomic()
    before = atoms.positions.copy()
    with pytest.raises(Interrupted):
        vibrations(atoms, directory=tmp_path / "vib", progress=stop)
    np.testing.assert_array_equal(atoms.positions, before)
    ChargedSprings.calls = 0
    seen: list[tuple[int, int, str]] = []
    result = vibrations(
        diatomic(), directory=tmp_path / "vib", progress=lambda *args: seen.append(args)
    )
    # Six of the thirteen points were kept; the seventh was interrupted before it was stored.
    assert ChargedSprings.calls == 7
    assert seen[0][:2] == (7, 13)
    assert seen[-1][:2] == (13, 13)
    np.testing.assert_allclose(result.frequencies, vibrations(diatomic()).frequencies, rtol=1e-12)


def test_a_directory_of_another_calculation_is_refused(tmp_path) -> None:
    vibrations(diatomic(), directory=tmp_path)
    with pytest.raises(InvalidInputError, match=r"directory: .* got other parameters"):
        vibrations(diatomic(ChargedSprings(k=31.0)), directory=tmp_path)
    moved = diatomic()
    moved.positions[0, 0] += 0.01
    with pytest.raises(InvalidInputError, match="got other positions"):
        vibrations(moved, directory=tmp_path)
    with pytest.raises(InvalidInputError, match="got other delta"):
        vibrations(diatomic(), directory=tmp_path, delta=0.02)


def test_table_and_picture(tmp_path) -> None:
    result = vibrations(diatomic())
    assert "IR km/mol" in result.table()
    assert f"{result.frequencies[0]:9.2f}" in result.table()
    assert result.plot(tmp_path / "ir.png").stat().st_size > 1000
    assert vibrations(Atoms("Cu"), EMT()).plot(tmp_path / "none.png").exists()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"nfree": 3}, "nfree: expected 2 or 4, got 3"),
        ({"delta": 0.0}, "delta: expected a positive number, got 0.0"),
        ({"indices": [0, 2]}, "indices: expected distinct atoms from 0 to 1, got [0, 2]"),
        ({"displacement": 0.1}, "unknown setting 'displacement'"),
        ({"calc": EMT(), "intensities": True}, "expected a calculator with dipoles, got EMT"),
    ],
)
def test_bad_settings_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        vibrations(diatomic(), **keywords)
    assert message in str(caught.value)


def test_all_atoms_fixed_is_an_error() -> None:
    atoms = diatomic()
    atoms.set_constraint(FixAtoms([0, 1]))
    with pytest.raises(InvalidInputError, match="all are fixed"):
        vibrations(atoms)
