from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.optimize import BFGS

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
from ase_neuralxc.workflows import elastic, eos, relax


def curvature(atoms: Atoms, first, second, h: float = 2e-3) -> float:
    """Second derivative of the relaxed-ion energy by two strains, per volume, in GPa."""

    def energy(a: float, b: float) -> float:
        work = atoms.copy()
        work.calc = EMT()
        work.set_cell(atoms.cell @ (np.eye(3) + a * first + b * second), scale_atoms=True)
        BFGS(work, logfile=None).run(fmax=1e-6, steps=200)
        return work.get_potential_energy()

    mixed = energy(h, h) - energy(h, -h) - energy(-h, h) + energy(-h, -h)
    return mixed / (4 * h * h * atoms.get_volume()) * EV_ANGSTROM3_GPA


def tensor(i: int, j: int):
    out = np.zeros((3, 3))
    out[i, j] = out[j, i] = 1.0 if i == j else 0.5  # engineering strain of one
    return out


@pytest.fixture(scope="module")
def copper():
    atoms = bulk("Cu")
    relax(atoms, EMT(), cell="volume", fmax=1e-5)
    return atoms


def test_a_cubic_crystal_has_three_constants_that_are_curvatures_of_the_energy(copper):
    result = elastic(copper, EMT(), strain=2e-3)
    assert len(result.strains) == 2
    c = result.stiffness
    assert c[0, 0] == pytest.approx(curvature(copper, tensor(0, 0), tensor(0, 0)), rel=2e-3)
    assert c[0, 1] == pytest.approx(curvature(copper, tensor(0, 0), tensor(1, 1)), rel=2e-3)
    assert c[3, 3] == pytest.approx(curvature(copper, tensor(1, 2), tensor(1, 2)), rel=2e-3)
    cubic = np.zeros((6, 6))
    cubic[:3, :3] = c[0, 1]
    np.fill_diagonal(cubic, [c[0, 0]] * 3 + [c[3, 3]] * 3)
    np.testing.assert_allclose(c, cubic, atol=1e-6)
    voigt, reuss = result.bulk_moduli
    assert voigt == pytest.approx(reuss, rel=1e-6)
    assert voigt == pytest.approx(eos(copper, EMT(), strain=0.02).bulk_modulus, rel=0.01)
    upper, lower = result.shear_moduli
    assert upper > lower > 0
    assert result.stable
    assert abs(result.pressure) < 0.01


def test_atoms_relax_in_a_strained_cell_without_symmetry():
    atoms = bulk("Cu", "hcp", a=2.55, c=4.1) * (2, 1, 1)
    atoms.numbers[0] = 79
    relax(atoms, EMT(), cell="free", fmax=1e-5)
    relaxed = elastic(atoms, EMT(), fmax=1e-5, strain=2e-3)
    clamped = elastic(atoms, EMT(), relax_ions=False, strain=2e-3)
    assert len(relaxed.strains) > 2
    for i, j in ((0, 0), (1, 1), (0, 2)):
        expected = curvature(atoms, tensor(i, i), tensor(j, j))
        assert relaxed.stiffness[i, j] == pytest.approx(expected, rel=0.01)
    assert clamped.stiffness[0, 0] > relaxed.stiffness[0, 0] + 1  # relaxing costs stiffness
    assert relaxed.residual < 0.02


def test_symmetry_saves_strains_and_changes_nothing(copper):
    double = copper * (2, 1, 1)
    double.positions[1, 0] += 1e-3  # not seen by the constants, seen by the symmetry
    result = elastic(double, EMT(), fmax=1e-5, strain=2e-3, symprec=1e-6)
    assert len(result.strains) > 2
    reference = elastic(copper, EMT(), strain=2e-3)
    np.testing.assert_allclose(result.stiffness, reference.stiffness, atol=0.3)


def test_a_second_run_uses_the_cache_and_refuses_another_crystal(copper, tmp_path):
    class Once(EMT):
        calls = 0

        def calculate(self, *args, **kwargs):
            Once.calls += 1
            super().calculate(*args, **kwargs)

    first = elastic(copper, Once(), directory=tmp_path / "cu")
    assert Once.calls == 5
    again = elastic(copper, Once(), directory=tmp_path / "cu")
    assert Once.calls == 5
    np.testing.assert_allclose(first.stiffness, again.stiffness)
    with pytest.raises(InvalidInputError, match="other numbers, positions, cell"):
        elastic(bulk("Cu", cubic=True), Once(), directory=tmp_path / "cu")


def test_an_unstable_lattice_says_so(copper):
    atoms = bulk("Cu", "bcc", a=2.87)
    relax(atoms, EMT(), cell="volume", fmax=1e-5)
    result = elastic(atoms, EMT())
    assert not result.stable
    assert "UNSTABLE" in result.table()


def test_table_and_picture(copper, tmp_path):
    seen = []
    result = elastic(copper, EMT(), progress=lambda *a: seen.append(a))
    assert seen[-1][:2] == (5, 5)
    assert f"{result.stiffness[0, 0]:.2f}" in result.table()
    assert result.plot(tmp_path / "young.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("atoms", "keywords", "message"),
    [(molecule("H2O"), {}, "three periodic directions"),
     (bulk("Cu"), {"strain": 0.2}, "strain: expected at most 0.05"),
     (bulk("Cu"), {"stran": 0.01}, "Did you mean 'strain'"),
     (bulk("Cu"), {"steps": 0}, "steps: expected at least 1")],
)  # fmt: skip
def test_bad_input_is_refused(atoms, keywords, message):
    with pytest.raises(InvalidInputError, match=message):
        elastic(atoms, EMT(), **keywords)
