import ase.io
import numpy as np
import pytest
from ase.build import molecule
from ase.db import connect

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import (
    FidelityTag,
    LabelRecord,
    SpinState,
    read_db,
    read_records,
    write_db,
    write_records,
)

NASTY = {"note": 'a "quoted" \\backslash\\\n[x]={y} é', "number": "123", "flag": "T", "none": None}


def records():
    rng = np.random.default_rng(7)
    tag = FidelityTag(functional="r2scan", basis={"H": "def2-svp"}, external_field=(0, 0, 0.1))
    full = LabelRecord(
        numbers=[26, 8, 1],
        positions=rng.normal(size=(3, 3)) / 3,
        cell=rng.normal(size=(3, 3)),
        pbc=[True, False, True],
        spin_state=SpinState(charge=-1, n_unpaired=5, magmoms=[4.0, 1 / 3, -1e-3], target="T1"),
        fidelity=tag,
        energy=-1234.567890123456,
        free_energy=-1234.567890123457,
        forces=rng.normal(size=(3, 3)) * 1e-7,
        stress=rng.normal(size=6),
        magmoms=rng.normal(size=3),
        charges=rng.normal(size=3),
        dipole=rng.normal(size=3),
        convergence={"converged": True, "gradient": 1e-9},
        provenance=NASTY,
    )
    vectors = LabelRecord(
        numbers=[26, 26],
        positions=rng.normal(size=(2, 3)),
        spin_state=SpinState(magmoms=rng.normal(size=(2, 3))),
        fidelity=FidelityTag(),
        energy=-1.0,
        magmoms=rng.normal(size=(2, 3)),
        convergence={"converged": True},
    )
    bare = LabelRecord(
        numbers=[1],
        positions=[[0.1, 0.2, 0.3]],
        spin_state=SpinState(),
        fidelity=tag,
        convergence={"converged": True},
    )
    single = LabelRecord(  # one atom: shapes [1], [1, 3] must not collapse
        numbers=[2],
        positions=[[0, 0, 0]],
        spin_state=SpinState(magmoms=[0.5]),
        fidelity=tag,
        forces=[[1, 2, 3]],
        magmoms=[0.5],
        charges=[0.0],
        convergence={"converged": True},
    )
    return [full, vectors, bare, single]


@pytest.fixture
def files(tmp_path):
    write_records(tmp_path / "labels.extxyz", records())
    write_db(tmp_path / "labels.db", records())
    write_db(tmp_path / "labels.json", records())
    return tmp_path


@pytest.mark.parametrize("name", ["labels.extxyz", "labels.db", "labels.json"])
def test_round_trip_is_exact(files, name):
    path = files / name
    read = read_records(path) if name.endswith("extxyz") else read_db(path)
    assert len(read) == 4
    for there, back in zip(records(), read, strict=True):
        assert np.abs(there.positions - back.positions).max() <= 1e-12
        assert back.to_dict() == there.to_dict()  # exact, and None only where None was
        assert back.fidelity.digest == there.fidelity.digest
        assert back.spin_state == there.spin_state
    assert read[1].magmoms.shape == (2, 3)
    assert read[3].magmoms.shape == (1,)
    assert read[2].energy is None


def test_other_readers_see_the_results(files):
    there = records()
    images = ase.io.iread(files / "labels.extxyz", index=":", format="extxyz")
    for record, atoms in zip(there, images, strict=True):
        for name in atoms.calc.results if atoms.calc else ():
            assert np.array_equal(atoms.calc.results[name], getattr(record, name))
    with connect(files / "labels.db") as database:
        assert database.get_atoms(id=1).get_potential_energy() == there[0].energy
        assert len(database.get_atoms(id=2)) == 2
        assert database.count(functional="xc-r2scan") == 3
    assert len(read_db(files / "labels.db", "natoms=1")) == 2
    digest = there[0].fidelity.digest
    assert len(read_db(files / "labels.db", f"fidelity=digest-{digest},total_charge=-1")) == 1


def test_concatenated_files_read_as_one(files):
    text = (files / "labels.extxyz").read_text()
    (files / "two.extxyz").write_text(text + text)
    assert len(read_records(files / "two.extxyz")) == 8


def test_any_truncation_is_noticed(files):
    text = (files / "labels.extxyz").read_text()
    path = files / "cut.extxyz"
    cuts = [0, 1, 2, 50, len(text) // 3, len(text) // 2, len(text) - 1, len(text) - 3]
    cuts += [i + 1 for i, c in enumerate(text[:-1]) if c == "\n"]  # whole lines and whole frames
    for cut in cuts:
        path.write_text(text[:cut])
        with pytest.raises(InvalidInputError, match=r"cut\.extxyz'.*truncated or altered"):
            read_records(path)


def test_altered_numbers_are_noticed(files):
    path = files / "labels.extxyz"
    path.write_text(path.read_text().replace("-1234.567890123456", "-1234.567890123455", 1))
    with pytest.raises(InvalidInputError, match="frame 0 is not what was written"):
        read_records(path)


def test_missing_frame_is_noticed(files):
    path = files / "labels.extxyz"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:5] + lines[9:]))  # the second frame has four lines
    with pytest.raises(InvalidInputError, match="frame 1 of 4 is missing"):
        read_records(path)


def test_files_without_labels(tmp_path):
    ase.io.write(tmp_path / "plain.extxyz", molecule("H2O"))
    with pytest.raises(InvalidInputError, match=r"got none in frame 0 of .*plain\.extxyz"):
        read_records(tmp_path / "plain.extxyz")
    with connect(tmp_path / "plain.db") as database:
        database.write(molecule("H2O"))
    with pytest.raises(InvalidInputError, match=r"got row 1 of .*plain\.db"):
        read_db(tmp_path / "plain.db")
    with pytest.raises(InvalidInputError, match=r"cannot read .*nothing\.extxyz"):
        read_records(tmp_path / "nothing.extxyz")
    with pytest.raises(InvalidInputError, match=r"nothing\.db'"):
        read_db(tmp_path / "nothing.db")
    (tmp_path / "noise.db").write_bytes(b"not a database at all" * 50)
    with pytest.raises(InvalidInputError, match=r"noise\.db'.*truncated or altered"):
        read_db(tmp_path / "noise.db")


def test_unwritable_paths_are_named_and_nothing_is_lost(tmp_path):
    (tmp_path / "file").write_text("kept")
    for write, name in ((write_records, "a.extxyz"), (write_db, "a.db")):
        with pytest.raises(InvalidInputError, match=rf"file/{name}"):
            write(tmp_path / "file" / name, records())
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match="folder"):
        write_records(tmp_path / "folder", records())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


def test_nothing_to_write(tmp_path):
    with pytest.raises(InvalidInputError, match="records: expected at least one label"):
        write_records(tmp_path / "a.extxyz", [])
