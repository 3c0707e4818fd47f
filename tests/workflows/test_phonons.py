from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.lj import LennardJones
from phonopy import Phonopy
from phonopy.structure.atoms import PhonopyAtoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import BornCharges, phonons

FAST = {"supercell": (2, 2, 2), "mesh": 20.0, "points": 11}


class Counting(EMT):
    """EMT that remembers what it was asked."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        self.seen.append(atoms.copy())
        super().calculate(atoms, list(properties), system_changes)


def test_frequencies_equal_phonopys_own_route():
    copper = bulk("Cu", a=3.6)
    result = phonons(copper, EMT(), **FAST)
    own = Phonopy(
        PhonopyAtoms(
            symbols=["Cu"], cell=np.array(copper.cell), scaled_positions=[[0.0, 0.0, 0.0]]
        ),
        supercell_matrix=2 * np.eye(3, dtype=int),
        primitive_matrix=np.eye(3),
    )
    own.generate_displacements(distance=0.01)
    sets = []
    for cell in own.supercells_with_displacements:
        atoms = copper.copy() * (1, 1, 1)
        atoms = type(copper)("Cu8", scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=1)
        atoms.calc = EMT()
        sets.append(atoms.get_forces())
    own.forces = np.array(sets)
    own.produce_force_constants()
    own.symmetrize_force_constants()
    for q, frequencies in zip(result.qpoints, result.bands, strict=True):
        expected = np.asarray(own.run_qpoints(q).frequencies)
        assert expected.max() > 1.0
        np.testing.assert_allclose(frequencies, expected, atol=1e-6)


def test_copper_is_stable_and_obeys_the_sum_rules(tmp_path):
    result = phonons(bulk("Cu", a=3.6), EMT(), **FAST)
    assert result.stable
    assert result.acoustic.max() < 1e-4
    assert result.drift < 1e-6
    step = result.dos_frequencies[1] - result.dos_frequencies[0]
    assert result.dos.sum() * step == pytest.approx(3.0, rel=0.05)
    assert result.heat_capacities[-1] == pytest.approx(3 * 8.314, rel=0.03)  # Dulong and Petit
    assert "no imaginary modes" in result.table()
    assert result.labels[0][0] == "Γ"
    assert result.plot(tmp_path / "bands.png").stat().st_size > 10000


def test_imaginary_modes_are_reported():
    # Lennard-Jones atoms on a simple cubic lattice fall into a closer packing.
    argon = bulk("Ar", "sc", a=3.75)
    result = phonons(argon, LennardJones(sigma=3.4, epsilon=0.01, rc=10.0), **FAST)
    assert not result.stable
    assert "IMAGINARY MODES" in result.table()
    assert result.lowest[0] < -0.1


def test_random_displacements_agree_with_single_ones():
    single = phonons(bulk("Cu", a=3.6), EMT(), **FAST)
    random = phonons(bulk("Cu", a=3.6), EMT(), snapshots=3, **FAST)
    assert 0 < single.difference(random) < 0.02
    with pytest.raises(InvalidInputError, match="bands on the same path"):
        single.difference(phonons(bulk("Cu", a=3.6), EMT(), **{**FAST, "points": 5}))


def test_a_second_run_uses_the_cache_and_refuses_another_structure(tmp_path):
    first = Counting()
    result = phonons(bulk("Cu", a=3.6), first, directory=tmp_path / "ph", **FAST)
    assert len(first.seen) == 2  # the perfect supercell and one displacement
    (tmp_path / "ph" / "cache.displaced-0001.json").write_text("")  # killed while writing
    again = Counting()
    repeated = phonons(bulk("Cu", a=3.6), again, directory=tmp_path / "ph", **FAST)
    assert len(again.seen) == 1
    assert result.difference(repeated) < 1e-6  # rounding of the stored forces
    with pytest.raises(InvalidInputError, match="got other cell"):
        phonons(bulk("Cu", a=3.7), Counting(), directory=tmp_path / "ph", **FAST)


def test_moments_travel_to_the_supercells_and_lower_the_symmetry():
    chain = bulk("Cu", cubic=True)
    plain, magnetic = Counting(), Counting()
    phonons(chain, plain, **FAST)
    chain.set_initial_magnetic_moments([2, 1, -1, -2])
    phonons(chain, magnetic, **FAST)
    assert len(magnetic.seen) > len(plain.seen)
    for atoms in magnetic.seen:
        moments = atoms.get_initial_magnetic_moments()
        assert sorted(set(moments)) == [-2.0, -1.0, 1.0, 2.0]
        assert moments.sum() == 0
        assert len(atoms) == 32


class PointCharges(Calculator):
    """Springs between unlike neighbours: all that matters is that there are optical modes."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, list(properties), system_changes)
        forces = np.zeros((len(atoms), 3))
        vectors = atoms.get_all_distances(mic=True, vector=True)
        lengths = np.linalg.norm(vectors, axis=-1)
        rest = 2.0
        near = (lengths > 0.1) & (lengths < 2.5)
        pull = np.where(near, 2.0 * (lengths - rest), 0.0)[..., None]
        with np.errstate(invalid="ignore", divide="ignore"):
            forces = np.nan_to_num(pull * vectors / lengths[..., None]).sum(axis=1)
        self.results = {"energy": 0.0, "forces": forces}


def test_born_charges_split_longitudinal_from_transverse_modes():
    salt = bulk("NaCl", "rocksalt", a=4.0)
    born = BornCharges(np.array([np.eye(3), -np.eye(3)]), 2.0 * np.eye(3))
    plain = phonons(salt, PointCharges(), **FAST)
    polar = phonons(salt, PointCharges(), born=born, **FAST)
    assert plain.bands[0][1].max() == pytest.approx(plain.bands[0][0].max(), rel=0.02)
    assert polar.bands[0][1].max() > 1.1 * plain.bands[0][1].max()


@pytest.mark.parametrize(
    ("atoms", "keywords", "message"),
    [(molecule("H2O"), {}, "three periodic directions"),
     (bulk("Cu"), {"supercell": (2, 2)}, "supercell: expected three integers"),
     (bulk("Cu"), {"supercell": (2.0, 2.0, 2.0)}, "supercell: expected three integers"),
     (bulk("Cu"), {"distance": -0.1}, "distance: expected a positive number"),
     (bulk("Cu"), {"supercel": (2, 2, 2)}, "Did you mean 'supercell'")],
)  # fmt: skip
def test_bad_input_is_refused(atoms, keywords, message):
    with pytest.raises(InvalidInputError, match=message):
        phonons(atoms, EMT(), **keywords)
