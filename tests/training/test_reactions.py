import json
from dataclasses import replace

import pytest

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.training.reactions import (
    Species,
    find_reactions,
    read_reactions,
    select_reactions,
    unique_species,
)

META = {"type": "meta", "set": "tiny", "licence": "CC0"}
H = {
    "type": "species", "name": "h", "charge": 0, "multiplicity": 2,
    "symbols": ["H"], "positions": [[0, 0, 1.5]],
}  # fmt: skip
H2 = {
    "type": "species", "name": "h2", "charge": 0, "multiplicity": 1,
    "symbols": ["H", "H"], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 0.74]],
}  # fmt: skip
BOND = {"type": "reaction", "id": "bond", "species": ["h", "h2"], "coeffs": [2, -1], "ref": 109.5}


def write(path, *lines):
    path.write_text("\n".join(json.dumps(line) for line in lines) + "\n")
    return path


def test_a_file_is_read(tmp_path):
    one = read_reactions(write(tmp_path / "tiny.jsonl", META, H, H2, BOND))
    assert one.name == "tiny"
    assert one.meta["licence"] == "CC0"
    (bond,) = one.reactions
    assert (bond.coefficients, bond.reference) == ((2.0, -1.0), 109.5)
    assert bond.multireference is None
    atom, molecule = one.species_of(bond)
    assert (atom.n_electrons, molecule.multiplicity) == (1, 1)
    assert molecule.positions[1] == (0.0, 0.0, 0.74)


def test_the_hash_of_a_file_follows_its_content(tmp_path):
    first = read_reactions(write(tmp_path / "a.jsonl", META, H, H2, BOND))
    same = read_reactions(write(tmp_path / "b.jsonl", META, H, H2, BOND))
    other = read_reactions(write(tmp_path / "c.jsonl", META, H, H2, {**BOND, "ref": 109.6}))
    assert first.file_hash == same.file_hash != other.file_hash


def test_multireference_flag_field_and_basis(tmp_path):
    reaction = {**BOND, "multireference": True}
    path = write(
        tmp_path / "a.jsonl", META, {**H, "basis_hint": "def2-QZVPPD"},
        {**H2, "efield_au": [0, 0, 0.01]}, reaction,
    )  # fmt: skip
    one = read_reactions(path)
    assert one.reactions[0].multireference is True
    assert one.species["h"].basis_hint == "def2-QZVPPD"
    assert one.species["h2"].field == (0.0, 0.0, 0.01)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({**H, "charge": 0.5}, "charge: expected a value of type int, got 0.5"),
        ({**H, "charge": True}, "charge: expected a value of type int, got True"),
        ({**H, "charge": 1}, "charge: expected one that leaves electrons"),
        ({**H, "multiplicity": 1}, "multiplicity: expected 2S.1 of 1 electrons, got 1"),
        ({**H, "symbols": ["Hh"]}, "symbols: expected elements"),
        ({**H, "symbols": []}, "symbols: expected at least one atom"),
        ({**H, "positions": [[0, 0]]}, "positions: expected 1 rows of three"),
        ({**H, "positions": [[0, 0, float("nan")]]}, "positions: expected 1 rows of three"),
        ({**H, "efield_au": [0, 1]}, "efield_au: expected 3 numbers"),
        ({**H, "multiplicty": 2}, "unknown species field 'multiplicty'. Did you mean"),
        ({**H, "name": "h2"}, "name: expected one that is new in this file, got 'h2'"),
        ({"type": "specie"}, "type: expected 'meta', 'species' or 'reaction', got 'specie'"),
        ({"name": "h"}, "type: expected a value of type str, got nothing"),
        ({**BOND, "species": ["h2", "hh"]}, "unknown species 'hh'"),
        ({**BOND, "species": ["h2"], "coeffs": [1, 2]}, "coeffs: expected 1 numbers"),
        ({**BOND, "species": ["h2"], "coeffs": ["1"]}, "coeffs: expected finite numbers"),
        ({**BOND, "species": ["h2"], "coeffs": [1], "ref": None}, "ref: expected a finite number"),
        ([], "expected a JSON object"),
    ],
)
def test_malformed_lines_name_line_field_and_value(tmp_path, line, message):
    path = write(tmp_path / "bad.jsonl", META, H2, line)
    with pytest.raises(InvalidInputError, match=f"bad.jsonl, line 3.*{message}"):
        read_reactions(path)


def test_other_damage(tmp_path):
    (tmp_path / "bad.jsonl").write_text(json.dumps(META) + '\n{"type": "spec')
    with pytest.raises(InvalidInputError, match=r"bad.jsonl, line 2: expected JSON, got '{\"type"):
        read_reactions(tmp_path / "bad.jsonl")
    with pytest.raises(InvalidInputError, match="expected a line of type 'meta', got none"):
        read_reactions(write(tmp_path / "bad.jsonl", H))
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_reactions(tmp_path / "none.jsonl")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match=r"expected \.jsonl files"):
        find_reactions([tmp_path / "empty"])


def test_the_same_species_has_the_same_hash():
    molecule = Species("h2", ("H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.0, 0.74)))
    assert replace(molecule, name="other").content_hash == molecule.content_hash
    noise = ((0.0, 0.0, -0.0), (0.0, 0.0, 0.74 + 1e-8))
    assert replace(molecule, positions=noise).content_hash == molecule.content_hash
    different = [
        {"positions": ((0.0, 0.0, 0.0), (0.0, 0.0, 0.75))},
        {"charge": 1, "multiplicity": 2},
        {"multiplicity": 3},
        {"symbols": ("H", "Li")},
        {"field": (0.0, 0.0, 0.01)},
    ]
    hashes = {replace(molecule, **change).content_hash for change in different}
    assert len(hashes | {molecule.content_hash}) == len(different) + 1


def test_an_atom_is_the_same_wherever_it_sits():
    atom = Species("h", ("H",), ((0.0, 0.0, 0.0),), multiplicity=2)
    moved = replace(atom, positions=((1.0, 2.0, 3.0),))
    assert moved.content_hash == atom.content_hash
    field = (0.0, 0.0, 0.01)
    assert replace(atom, field=field).content_hash != replace(moved, field=field).content_hash


def test_selection_by_set_and_basis(tmp_path):
    hinted = {**H, "name": "hq", "basis_hint": "def2-QZVPPD"}
    other = {**BOND, "id": "hinted", "species": ["hq", "h2"]}
    write(tmp_path / "a.jsonl", META, H, hinted, H2, BOND, other)
    write(tmp_path / "b.jsonl", {**META, "set": "AE18"}, H, {**BOND, "species": ["h", "h"]})
    sets = find_reactions([tmp_path])
    assert [s.name for s in sets] == ["tiny", "AE18"]
    (kept,) = select_reactions(sets, "def2-tzvpp")
    assert [r.name for r in kept.reactions] == ["bond"]
    assert set(kept.species) == {"h", "h2"}
    (kept,) = select_reactions(sets, "def2-QZVPPD")
    assert [r.name for r in kept.reactions] == ["bond", "hinted"]
    assert len(unique_species(sets)) == 2
