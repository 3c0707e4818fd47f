from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import add_adsorbate, fcc100, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.mep import NEB, NEBTools
from ase.optimize import BFGS

from ase_neuralxc.errors import InvalidInputError, MissingDependencyError
from ase_neuralxc.workflows import UnconvergedWarning, neb, saddle
from ase_neuralxc.workflows.band import displacement


def gold_on_aluminium() -> tuple[Atoms, Atoms]:
    """Neighbouring hollow sites of Al(100), the system of ASE's tutorial."""
    slab = fcc100("Al", size=(2, 2, 3))
    add_adsorbate(slab, "Au", 1.7, "hollow")
    slab.center(axis=2, vacuum=4.0)
    slab.set_constraint(FixAtoms(mask=[atom.tag > 1 for atom in slab]))
    final = slab.copy()
    final.positions[-1, 0] += slab.cell[0, 0] / 2
    return slab, final


class Counting(EMT):
    """EMT that counts, and fails when it has had enough."""

    calls = 0
    most = 10**9

    def calculate(self, *args, **kwargs):
        Counting.calls += 1
        if Counting.calls > Counting.most:
            raise KeyboardInterrupt
        super().calculate(*args, **kwargs)


@pytest.fixture
def counting():
    Counting.calls, Counting.most = 0, 10**9
    return Counting


class DoubleWell(Calculator):
    """E = height ((x/a)^2 - 1)^2 + k/2 (y - b (x^2 - a^2))^2 + k/2 z^2 for atom 0: a bent path
    over a barrier of exactly `height` at (0, -b a^2, 0)."""

    implemented_properties = ["energy", "forces"]
    height, a, k, b = 0.7, 1.1, 9.0, 0.5

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        x, y, z = atoms.positions[0]
        u, w = (x / self.a) ** 2 - 1, y - self.b * (x**2 - self.a**2)
        forces = np.zeros((len(atoms), 3))
        forces[0] = (
            -4 * self.height * u * x / self.a**2 + 2 * self.k * self.b * w * x,
            -self.k * w,
            -self.k * z,
        )
        energy = self.height * u**2 + self.k / 2 * (w**2 + z**2)
        self.results = {"energy": energy, "forces": forces}


def well(x: float) -> Atoms:
    valley = DoubleWell.b * (x**2 - DoubleWell.a**2)
    return Atoms("HAr", [(x, valley, 0.0), (0, 0, 9.0)], constraint=FixAtoms([1]))


def test_analytic_barrier_saddle_and_imaginary_frequency() -> None:
    result = neb(well(-1.0), well(1.0), DoubleWell, n_images=5, refine="dimer", fmax=0.02)
    assert result.converged
    assert result.barrier == pytest.approx(DoubleWell.height, abs=1e-4)
    assert result.reaction_energy == pytest.approx(0, abs=1e-4)
    expected = (0.0, -DoubleWell.b * DoubleWell.a**2, 0.0)
    np.testing.assert_allclose(result.saddle.atoms.positions[0], expected, atol=5e-3)
    assert result.saddle.verified
    # curvature along x at the saddle: -4 h / a^2 of the quartic
    from ase.units import _amu, _c, _e

    curvature = 4 * DoubleWell.height / DoubleWell.a**2
    wavenumber = np.sqrt(curvature * _e * 1e20 / (1.008 * _amu)) / (2 * np.pi * _c * 100)
    assert result.saddle.imaginary == pytest.approx([-wavenumber], rel=2e-3)
    assert result.saddle.overlap > 0.99


def test_gold_on_aluminium_agrees_with_ase(counting) -> None:
    initial, final = gold_on_aluminium()
    before = initial.positions.copy()
    result = neb(initial, final, counting, n_images=3)
    np.testing.assert_array_equal(initial.positions, before)
    # what ASE's tutorial does
    ends = gold_on_aluminium()
    for atoms in ends:
        atoms.calc = EMT()
        BFGS(atoms, logfile=None).run(fmax=0.02)
    images = [ends[0], *(ends[0].copy() for _ in range(3)), ends[1]]
    for image in images[1:-1]:
        image.calc = EMT()
    band = NEB(images, method="improvedtangent", climb=True)
    band.interpolate()
    BFGS(band, logfile=None).run(fmax=0.02)
    barrier, change = NEBTools(images).get_barrier(fit=False)
    assert 0.35 < barrier < 0.38  # the tutorial's value
    assert result.barrier == pytest.approx(barrier, abs=0.002)
    assert result.reverse_barrier == pytest.approx(barrier, abs=0.002)
    assert result.reaction_energy == pytest.approx(change, abs=1e-3)
    assert result.converged
    assert result.saddle.method == "climbing image"
    assert result.saddle.verified
    assert result.saddle.overlap > 0.9
    assert result.intermediates == []
    held = initial.constraints[0].index
    for image in (*result.images, result.saddle.atoms):
        np.testing.assert_array_equal(image.positions[held], before[held])
        np.testing.assert_array_equal(image.constraints[0].index, held)


def test_shared_calculator_gives_the_same_path() -> None:
    own = neb(*gold_on_aluminium(), EMT, n_images=3, verify=False)
    initial, final = gold_on_aluminium()
    initial.calc = EMT()
    shared = neb(initial, final, n_images=3, verify=False)
    np.testing.assert_allclose(own.energies, shared.energies, atol=1e-9)
    for a, b in zip(own.images, shared.images, strict=True):
        np.testing.assert_allclose(a.get_forces(), b.get_forces(), atol=1e-9)
        np.testing.assert_allclose(a.positions, b.positions, atol=1e-9)


def test_atoms_in_other_periodic_images_are_brought_back() -> None:
    initial, final = gold_on_aluminium()
    reference = neb(initial, final, EMT, n_images=1, verify=False)
    final.positions[[3, -1]] += final.cell[1]
    np.testing.assert_allclose(
        np.linalg.norm(displacement(initial, final), axis=1).max(), initial.cell[0, 0] / 2
    )
    result = neb(initial, final, EMT, n_images=1, verify=False)
    assert result.barrier == pytest.approx(reference.barrier, abs=1e-6)


def test_a_run_that_was_stopped_continues(counting, tmp_path) -> None:
    options = {"n_images": 3, "refine": "dimer", "directory": tmp_path / "neb"}
    whole = neb(*gold_on_aluminium(), counting, **{**options, "directory": None})
    total = counting.calls
    counting.calls, runs = 0, 0
    limits = [12, 30, 40, 30]  # in the ends, the band, the band again, the vibrations
    for limit in limits:
        counting.calls, counting.most = 0, limit
        try:
            neb(*gold_on_aluminium(), counting, **options)
        except KeyboardInterrupt:
            runs += 1
    assert runs >= 3
    counting.calls, counting.most = 0, 10**9
    result = neb(*gold_on_aluminium(), counting, **options)
    assert counting.calls < total / 2
    assert result.barrier == pytest.approx(whole.barrier, abs=1e-4)
    assert result.saddle.verified
    # complete: nothing but the band and the vibrations' forces at the end is asked again
    counting.calls = 0
    again = neb(*gold_on_aluminium(), counting, **options)
    assert counting.calls <= 3
    assert again.n_steps == 0
    np.testing.assert_array_equal(again.saddle.modes.frequencies, result.saddle.modes.frequencies)
    with pytest.raises(InvalidInputError, match="got other n_images"):
        neb(*gold_on_aluminium(), counting, **{**options, "n_images": 4})


def test_unconverged_paths_say_so() -> None:
    with pytest.warns(UnconvergedWarning, match="path of Al12Au not converged"):
        result = neb(*gold_on_aluminium(), EMT, n_images=3, steps=2, relax_ends=False)
    assert not result.converged
    assert result.saddle.modes is None  # no vibrations of what is no stationary point
    assert "NOT CONVERGED" in result.table()


def test_downhill_paths_have_no_saddle() -> None:
    initial, final = well(-0.3), well(-1.05)
    result = neb(initial, final, DoubleWell, relax_ends=False, n_images=3, climb=False)
    assert result.saddle is None
    assert result.barrier == pytest.approx(0, abs=1e-6)
    assert "no maximum between the ends" in result.table()


def test_sella_or_its_absence_is_told(monkeypatch) -> None:
    if saddle.Sella is not None:
        result = neb(*gold_on_aluminium(), EMT, n_images=3, refine="sella")
        assert result.saddle.method == "sella"
        assert result.saddle.fmax < 0.01
        assert result.saddle.verified
    monkeypatch.setattr(saddle, "Sella", None)
    monkeypatch.setattr(saddle, "_no_sella", ImportError("none here"))
    with pytest.raises(MissingDependencyError, match="pip install sella"):
        neb(*gold_on_aluminium(), EMT, n_images=1, refine="sella")


def test_table_and_picture(tmp_path) -> None:
    result = neb(*gold_on_aluminium(), EMT, n_images=3)
    table = result.table()
    assert "forward barrier      0.37" in table
    assert "a first-order saddle" in table
    assert table.count("\n") >= 9
    assert result.plot(tmp_path / "new" / "neb.png").stat().st_size > 1000


def test_a_turned_molecule_is_turned_back() -> None:
    initial = molecule("CH3CH2OH")
    final = initial.copy()
    final.set_dihedral(1, 0, 2, 3, 60.0, indices=[3])
    turned = final.copy()
    turned.rotate(70, (1, 2, 3))
    turned.translate((1, 2, 3))
    options = {"n_images": 1, "relax_ends": False, "steps": 0, "verify": False}
    with pytest.warns(UnconvergedWarning):
        straight = neb(initial, final, EMT, **options)
    with pytest.warns(UnconvergedWarning):
        result = neb(initial, turned, EMT, **options)
    np.testing.assert_allclose(result.energies, straight.energies, atol=1e-6)


def swapped(initial, final):
    final.positions[[0, 1]] = final.positions[[1, 0]]


def another_element(initial, final):
    final.symbols[-1] = "Ag"


def another_order(initial, final):
    final.symbols[[0, -1]] = ["Au", "Al"]


def another_cell(initial, final):
    final.set_cell(final.cell * 1.01)


def another_boundary(initial, final):
    final.pbc = False


def fixed_atom_moves(initial, final):
    final.positions[0, 2] -= 0.2


def the_same(initial, final):
    final.positions[:] = initial.positions


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (another_element, "expected the composition of initial, Al12Au, got AgAl12"),
        (another_order, "expected the atoms in the order of initial, got Au for Al at index 0"),
        (another_cell, "final: expected the cell of initial"),
        (another_boundary, "final: expected pbc = [True, True, False] as initial"),
        (fixed_atom_moves, "expected fixed atoms where initial has them, atoms [0] differ"),
        (the_same, "expected another minimum than initial, got the same one"),
    ],
)
def test_ends_that_do_not_belong_together(change, message) -> None:
    initial, final = gold_on_aluminium()
    change(initial, final)
    with pytest.raises(InvalidInputError) as caught:
        neb(initial, final, EMT)
    assert message in str(caught.value)


def test_interchanged_atoms_are_found_and_may_be_meant() -> None:
    initial, final = gold_on_aluminium()
    for atoms in (initial, final):
        atoms.set_constraint()
    swapped(initial, final)
    with pytest.raises(InvalidInputError, match=r"atoms \[0, 1\] probably interchanged"):
        neb(initial, final, EMT)
    with pytest.raises(InvalidInputError, match="a path on which atoms keep apart"):
        neb(initial, final, EMT, keep_order=True, guess="linear", n_images=1, relax_ends=False)


def test_ends_that_relax_to_one_minimum() -> None:
    initial, final = gold_on_aluminium()
    final.positions[-1] = initial.positions[-1] + (0.3, 0.0, 0.1)
    with pytest.raises(InvalidInputError, match="expected another minimum than initial"):
        neb(initial, final, EMT)


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"n_image": 3}, "Did you mean 'n_images'?"),
        ({"n_images": 0}, "n_images: expected an integer >= 1, got 0"),
        ({"guess": "idp"}, "Did you mean 'idpp'?"),
        ({"optimizer": "GPMin"}, "unknown optimizer 'GPMin'"),
        ({"refine": "dimmer"}, "Did you mean 'dimer'?"),
        ({"spring": -1.0}, "spring: expected a positive number, got -1.0"),
        ({"calc": 3}, "calc: expected an ASE calculator or a function that makes one, got 3"),
    ],
)
def test_bad_settings_are_named(keywords, message) -> None:
    with pytest.raises(InvalidInputError) as caught:
        neb(*gold_on_aluminium(), **{"calc": EMT, **keywords})
    assert message in str(caught.value)
