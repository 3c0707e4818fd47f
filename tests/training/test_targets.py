"""Reference values from extended XYZ files, written by ASE."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units
from ase_neuralxc.training.reactions import find_reactions
from ase_neuralxc.training.targets import reactions_of, read_targets

DIPOLE, FORCES = np.array([0.1, -0.2, 0.3]), np.arange(9.0).reshape(3, 3)


def labelled(atoms, info=None, **results):
    atoms.calc = SinglePointCalculator(atoms, **results)
    atoms.info.update(info or {})
    return atoms


@pytest.fixture
def frames():
    return [
        labelled(Atoms("H"), energy=-13.6),
        labelled(Atoms("O"), energy=-2040.0),
        labelled(molecule("H2O"), energy=-2077.0, dipole=DIPOLE, forces=FORCES),
        labelled(molecule("OH"), {"name": "hydroxyl", "ionisation_potential": 13.0}),
        labelled(molecule("CH4"), {"charge": 1, "multiplicity": 2}, energy=-1090.0),
        molecule("N2"),
    ]


@pytest.fixture
def path(frames, tmp_path):
    write(tmp_path / "small.xyz", frames, format="extxyz")
    return tmp_path / "small.xyz"


def test_values_are_read_and_converted(path):
    targets = {t.species.name: t for t in read_targets(path)}
    assert list(targets) == ["H", "O", "H2O", "hydroxyl", "CH4"]  # N2 has no values
    water = targets["H2O"]
    assert water.energy == pytest.approx(-2077.0 / units.HARTREE_EV)
    np.testing.assert_allclose(water.dipole, DIPOLE / units.BOHR_ANGSTROM, rtol=1e-7)
    np.testing.assert_allclose(
        water.forces, FORCES / units.HARTREE_EV * units.BOHR_ANGSTROM, rtol=1e-7
    )
    np.testing.assert_allclose(water.species.positions, molecule("H2O").positions, atol=1e-8)
    states = {n: (t.species.charge, t.species.multiplicity) for n, t in targets.items()}
    assert states == {"H": (0, 2), "O": (0, 3), "H2O": (0, 1), "hydroxyl": (0, 2), "CH4": (1, 2)}
    hydroxyl = targets["hydroxyl"]
    assert hydroxyl.energy is None
    assert (hydroxyl.cation.charge, hydroxyl.cation.multiplicity) == (1, 1)
    with pytest.raises(InvalidInputError, match="cation_multiplicity: expected one for 'H2O'"):
        _ = water.cation


def test_they_are_reactions_for_the_trainer(path):
    (one,) = find_reactions([path])
    assert one.name == "small"
    assert len(one.file_hash) == 64
    reactions = {r.name: r for r in one.reactions}
    assert set(reactions) == {"atomisation of H2O", "ionisation of hydroxyl", "energy of CH4"}
    water = reactions["atomisation of H2O"]
    assert dict(zip(water.species, water.coefficients, strict=True)) == {
        "O": 1.0, "H": 2.0, "H2O": -1.0,
    }  # fmt: skip
    assert water.reference == pytest.approx((-2040.0 - 27.2 + 2077.0) / units.KCALMOL_EV)
    potential = reactions["ionisation of hydroxyl"]
    assert potential.reference == pytest.approx(13.0 / units.KCALMOL_EV)
    assert one.species["hydroxyl+"].charge == 1
    assert reactions["energy of CH4"].reference == pytest.approx(-1090.0 / units.KCALMOL_EV)


def test_free_atoms_alone_are_total_energies_only_with_nothing_else(path):
    targets = [t for t in read_targets(path) if t.species.name == "hydroxyl"]
    assert [r.name for r in reactions_of(targets, "x").reactions] == ["ionisation of hydroxyl"]


def broken(frames, tmp_path):
    write(tmp_path / "broken.xyz", frames, format="extxyz")
    return tmp_path / "broken.xyz"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (labelled(Atoms("H2", [[0, 0, 0], [0, 0, 1]], cell=[5, 5, 5], pbc=True), energy=-1.0),
         "frame 0: pbc: expected a molecule"),
        (labelled(molecule("H2"), {"multiplicity": 2}, energy=-1.0),
         r"frame 0: multiplicity: expected 2S\+1 of 2 electrons, got 2"),
        (labelled(molecule("H2"), energy=float("nan")), "frame 0: energy: expected finite"),
        (molecule("H2"), "path: expected frames with energy"),
        (labelled(molecule("H2"), dipole=DIPOLE), "targets: expected energies or ionisation"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(frame, message, tmp_path):
    with pytest.raises(InvalidInputError, match=message):
        find_reactions([broken([frame], tmp_path)])


def test_names_are_unique_and_files_exist(tmp_path):
    twice = [labelled(molecule("H2"), {"name": "a"}, energy=-1.0) for _ in range(2)]
    with pytest.raises(InvalidInputError, match="frame 1: name: expected one that is new, got 'a'"):
        read_targets(broken(twice, tmp_path))
    with pytest.raises(InvalidInputError, match="path: cannot read"):
        read_targets(tmp_path / "missing.xyz")
