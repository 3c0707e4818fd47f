"""The same structures from every kind of file."""

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.db import connect
from ase.io import write

from ase_neuralxc.campaign import EMTLabeller, label_structures
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState, write_db, write_records
from ase_neuralxc.records.units import KCALMOL_EV
from mlip.data.convert import convert_npz
from mlip.data.files import read_structures
from mlip.data.structure import DataKeys


@pytest.fixture
def frames(rng):
    found = []
    for atoms in (bulk("Cu") * 2, molecule("CO"), bulk("Au")):
        atoms.rattle(0.05, rng=rng)
        atoms.calc = EMT()
        atoms.get_potential_energy(), atoms.get_forces()
        found.append(atoms)
    return found


@pytest.fixture
def records(frames):
    return [EMTLabeller().label(atoms, SpinState(charge=0)) for atoms in frames]


def check(structures, frames):
    structures = list(structures)
    assert len(structures) == len(frames) > 1
    for found, atoms in zip(structures, frames, strict=True):
        np.testing.assert_array_equal(found.numbers, atoms.numbers)
        np.testing.assert_allclose(found.positions, atoms.positions, atol=1e-7)
        np.testing.assert_allclose(found.cell, atoms.cell.array, atol=1e-7)
        assert found.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-7)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-7)


@pytest.mark.parametrize("name", ["a.xyz", "a.extxyz", "a.traj", "a.json"])
def test_formats_of_ase(tmp_path, frames, name):
    write(tmp_path / name, frames)
    check(read_structures(tmp_path / name), frames)


def test_database_of_atoms(tmp_path, frames):
    with connect(tmp_path / "a.db") as database:
        for atoms in frames:
            database.write(atoms, config_type="a")
    found = list(read_structures(tmp_path / "a.db"))
    check(found, frames)
    assert {s.config_type for s in found} == {"a"}


def test_records_in_all_their_files(tmp_path, frames, records):
    write_records(tmp_path / "a.xyz", records)
    write_db(tmp_path / "a.db", records)
    for name in ("a.xyz", "a.db"):
        found = list(read_structures(tmp_path / name))
        check(found, frames)
        assert {s.fidelity for s in found} == {records[0].fidelity.digest}


def test_folder_of_a_campaign(tmp_path, frames):
    label_structures(frames, EMTLabeller(), tmp_path / "labels")
    found = sorted(read_structures(tmp_path / "labels"), key=lambda s: -len(s.numbers))
    check(found, frames)


def test_several_files_follow_one_another(tmp_path, frames):
    write(tmp_path / "a.xyz", frames[:1])
    write(tmp_path / "b.xyz", frames[1:])
    found = list(read_structures([tmp_path / "a.xyz", tmp_path / "b.xyz"]))
    check(found, frames)
    assert found[2].source.endswith("b.xyz, frame 1")


def test_kcal_per_mol_become_electronvolts(tmp_path, rng):
    positions, forces = rng.normal(size=(2, 4, 3, 3))
    energies = rng.normal(size=4) - 1000.0
    archive = {"nuclear_charges": [8, 1, 1], "coords": positions, "forces": forces}
    np.savez(tmp_path / "a.npz", energies=energies, **archive)
    assert convert_npz(tmp_path / "a.npz", tmp_path / "a.xyz") == 4
    found = list(read_structures(tmp_path / "a.xyz"))
    for structure, e, f in zip(found, energies, forces, strict=True):
        assert structure.energy == pytest.approx(e * KCALMOL_EV, abs=1e-7)
        np.testing.assert_allclose(structure.forces, f * KCALMOL_EV, atol=1e-7)
    with pytest.raises(InvalidInputError, match="does not say its units; convert it"):
        list(read_structures(tmp_path / "a.npz"))


def test_files_that_cannot_be_read(tmp_path, frames):
    for atoms in frames:
        atoms.calc = None
    write(tmp_path / "bare.xyz", frames)
    with pytest.raises(InvalidInputError, match="expected labels under the names"):
        list(read_structures(tmp_path / "bare.xyz", DataKeys()))
    (tmp_path / "empty.xyz").write_text("")
    (tmp_path / "broken.xyz").write_text("3\nnothing\n")
    (tmp_path / "broken.npz").write_bytes(b"PK")
    with pytest.raises(InvalidInputError, match="does not exist"):
        list(read_structures(tmp_path / "none.xyz"))
    for name in ("empty.xyz", "broken.xyz"):
        with pytest.raises(InvalidInputError, match=r"cannot read|got none"):
            list(read_structures(tmp_path / name))
    with pytest.raises(InvalidInputError, match="expected an archive with"):
        convert_npz(tmp_path / "broken.npz", tmp_path / "out.xyz")
