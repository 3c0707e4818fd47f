"""Reference reactions: the JSON-lines files that functionals are trained and validated on.

One JSON object per line: `{"type": "meta", "set": ...}` first, then species and the reactions
between them, with `ref = sum_i coeffs[i] * E(species[i])` in kcal/mol, electronic energies without
zero point. A proton has no electrons, energy zero, and is never listed.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.canonical import digest

#: Positions that agree to this many decimals (Angstrom) are the same geometry: 1e-6 Angstrom moves
#: an energy by less than 1e-9 Hartree near a minimum.
_DECIMALS = 6
#: Sets of absolute energies, whose reference values contain relativity and the Lamb shift.
ABSOLUTE_ENERGY_SETS = ("AE11", "AE18")

_SPECIES_FIELDS = {
    "type", "name", "charge", "multiplicity", "symbols", "positions", "efield_au", "basis_hint",
    "cell",
}  # fmt: skip


@dataclass(frozen=True)
class Species:
    """A molecule, atom, ion or crystal of a reaction.

    Attributes:
        name: unique within its set.
        symbols: chemical symbols.
        positions: one (x, y, z) per atom, in Angstrom.
        charge: total charge in e.
        multiplicity: 2S+1.
        field: homogeneous electric field F in atomic units, H = H0 - mu . F, or None.
        basis_hint: basis set that the reference values ask for, or None.
        cell: lattice vectors of a crystal as rows, in Angstrom, or None.
    """

    name: str
    symbols: tuple[str, ...]
    positions: tuple[tuple[float, float, float], ...]
    charge: int = 0
    multiplicity: int = 1
    field: tuple[float, float, float] | None = None
    basis_hint: str | None = None
    cell: tuple[tuple[float, float, float], ...] | None = None

    @cached_property
    def content_hash(self) -> str:
        """Sixteen digits that name and set do not change: the same species in two sets is one."""
        content: dict[str, Any] = {
            "symbols": self.symbols,
            # a single atom is the same wherever it sits, unless a field acts on its charge
            "positions": [[0.0, 0.0, 0.0]]
            if len(self.symbols) == 1 and self.field is None and self.cell is None
            else [[round(x, _DECIMALS) + 0.0 for x in row] for row in self.positions],
            "charge": self.charge,
            "multiplicity": self.multiplicity,
        }
        if self.field is not None:
            content["field"] = self.field
        if self.cell is not None:
            content["cell"] = [[round(x, _DECIMALS) + 0.0 for x in row] for row in self.cell]
        return digest(content)

    @property
    def n_electrons(self) -> int:
        """Number of electrons, core electrons included."""
        return sum(atomic_numbers[s] for s in self.symbols) - self.charge


@dataclass(frozen=True)
class Reaction:
    """An energy difference between species, with its reference value.

    Attributes:
        name: unique within its set.
        species: names of species of the same set.
        coefficients: one per species, negative for those on the left.
        reference: sum of coefficient times electronic energy, in kcal/mol.
        multireference: whether the source marks it as beyond single-reference methods; None if
            it says nothing.
    """

    name: str
    species: tuple[str, ...]
    coefficients: tuple[float, ...]
    reference: float
    multireference: bool | None = None


@dataclass(frozen=True)
class ReactionSet:
    """All reactions of one file.

    Attributes:
        name: of the set.
        species: by name.
        reactions: in the order of the file.
        meta: the first line, with source, licence and citation.
        file_hash: SHA-256 of the file, for model cards; "" for a set made in memory.
    """

    name: str
    species: Mapping[str, Species]
    reactions: tuple[Reaction, ...]
    meta: Mapping[str, Any] = field(default_factory=dict)
    file_hash: str = ""

    def species_of(self, reaction: Reaction) -> tuple[Species, ...]:
        """Species of one of the reactions, in its order."""
        return tuple(self.species[name] for name in reaction.species)


def read_reactions(path: str | Path) -> ReactionSet:
    """Read one JSON-lines file of species and reactions.

    Args:
        path: the file.

    Returns:
        The set; every reaction refers to species that are there.

    Raises:
        InvalidInputError: a file that cannot be read or is malformed; the error names the line, the
            field and its value.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        lines = content.decode().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"path: cannot read {str(path)!r}: {error}") from error
    meta: dict[str, Any] = {}
    species: dict[str, Species] = {}
    reactions: dict[str, Reaction] = {}
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        line = _Line(f"{path.name}, line {number}", text)
        kind = line.take("type", str)
        if kind == "meta":
            meta = line.data
            line.take("set", str)
        elif kind == "species":
            one = _species(line)
            line.require(one.name not in species, "name", "one that is new in this file")
            species[one.name] = one
        elif kind == "reaction":
            reaction = _reaction(line, species)
            line.require(reaction.name not in reactions, "id", "one that is new in this file")
            reactions[reaction.name] = reaction
        else:
            line.fail("type", "'meta', 'species' or 'reaction'")
    if not meta:
        raise InvalidInputError(f"{path.name}: expected a line of type 'meta', got none")
    return ReactionSet(
        name=meta["set"],
        species=species,
        reactions=tuple(reactions.values()),
        meta=meta,
        file_hash=hashlib.sha256(content).hexdigest(),
    )


def find_reactions(paths: Iterable[str | Path]) -> list[ReactionSet]:
    """Read files, and folders as all their .jsonl files in the order of their names.

    Args:
        paths: files and folders; extended XYZ files are read as `training.targets` says.

    Returns:
        One set per file.

    Raises:
        InvalidInputError: a path that does not exist, a folder without such files, or a malformed
            file.
    """
    from ase_neuralxc.training.targets import SUFFIXES, read_target_reactions

    sets = []
    for path in map(Path, paths):
        if path.suffix in SUFFIXES:
            sets.append(read_target_reactions(path))
            continue
        files = sorted(path.glob("*.jsonl")) if path.is_dir() else [path]
        if not files:
            raise InvalidInputError(f"path: expected .jsonl files in {str(path)!r}, got none")
        sets += [read_reactions(file) for file in files]
    return sets


def select_reactions(sets: Sequence[ReactionSet], basis: str) -> list[ReactionSet]:
    """Keep what a calculation in one basis can be compared with.

    Absolute energies (`ABSOLUTE_ENERGY_SETS`) are left out, and reactions with a species whose
    reference asks for another basis than the one in use.

    Args:
        sets: as read.
        basis: name of the basis of the calculation.

    Returns:
        The sets that have reactions left, with the species of these reactions.
    """
    selected = []
    for one in sets:
        if one.name in ABSOLUTE_ENERGY_SETS:
            continue
        kept = tuple(
            r
            for r in one.reactions
            if all(s.basis_hint in (None, basis) for s in one.species_of(r))
        )
        if kept:
            names = dict.fromkeys(name for r in kept for name in r.species)
            species = {name: one.species[name] for name in names}
            selected.append(replace(one, species=species, reactions=kept))
    return selected


def unique_species(sets: Iterable[ReactionSet]) -> dict[str, Species]:
    """Species of all sets by content hash, each once, in the order of their appearance."""
    found: dict[str, Species] = {}
    for one in sets:
        for species in one.species.values():
            found.setdefault(species.content_hash, species)
    return found


class _Line:
    """One object of the file; errors say where it is."""

    def __init__(self, where: str, text: str) -> None:
        self.where = where
        try:
            self.data = json.loads(text)
        except ValueError as error:
            raise InvalidInputError(f"{where}: expected JSON, got {text[:60]!r}: {error}") from None
        if not isinstance(self.data, dict):
            raise InvalidInputError(f"{where}: expected a JSON object, got {text[:60]!r}")

    def fail(self, name: str, expected: str) -> None:
        got = repr(self.data[name])[:80] if name in self.data else "nothing"
        raise InvalidInputError(f"{self.where}: {name}: expected {expected}, got {got}")

    def require(self, condition: bool, name: str, expected: str) -> None:
        if not condition:
            self.fail(name, expected)

    def take(self, name: str, kind: type) -> Any:
        value = self.data.get(name)
        # bool is an int in Python, and no charge
        wrong = not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)
        self.require(not wrong, name, f"a value of type {kind.__name__}")
        return value

    def numbers(self, name: str, count: int | None = None) -> tuple[float, ...]:
        value = self.take(name, list)
        self.require(all(map(_is_number, value)), name, "finite numbers")
        self.require(count is None or len(value) == count, name, f"{count} numbers")
        return tuple(float(x) for x in value)


def _species(line: _Line) -> Species:
    for name in line.data:
        if name not in _SPECIES_FIELDS:
            raise InvalidInputError(
                f"{line.where}: {unknown_name('species field', name, _SPECIES_FIELDS)}"
            )
    symbols = line.take("symbols", list)
    line.require(bool(symbols), "symbols", "at least one atom")
    line.require(all(s in atomic_numbers and s != "X" for s in symbols), "symbols", "elements")
    multiplicity = line.take("multiplicity", int)
    species = Species(
        name=line.take("name", str),
        symbols=tuple(symbols),
        positions=_rows(line, "positions", len(symbols)),
        charge=line.take("charge", int),
        multiplicity=multiplicity,
        field=_field(line),
        basis_hint=line.take("basis_hint", str) if "basis_hint" in line.data else None,
        cell=_rows(line, "cell", 3) if "cell" in line.data else None,
    )
    electrons = species.n_electrons
    line.require(electrons >= 1, "charge", "one that leaves electrons (a proton is not listed)")
    line.require(
        1 <= multiplicity <= electrons + 1
        and (species.cell is not None or (electrons + multiplicity) % 2 == 1),
        "multiplicity",
        f"2S+1 of {electrons} electrons",
    )
    return species


def _rows(line: _Line, name: str, count: int) -> tuple[tuple[float, float, float], ...]:
    rows = line.take(name, list)
    line.require(
        len(rows) == count
        and all(isinstance(r, list) and len(r) == 3 and all(map(_is_number, r)) for r in rows),
        name,
        f"{count} rows of three finite numbers",
    )
    return tuple((float(x), float(y), float(z)) for x, y, z in rows)


def _field(line: _Line) -> tuple[float, float, float] | None:
    if "efield_au" not in line.data:
        return None
    x, y, z = line.numbers("efield_au", 3)
    return (x, y, z) if any((x, y, z)) else None


def _reaction(line: _Line, species: Mapping[str, Species]) -> Reaction:
    names = line.take("species", list)
    line.require(bool(names), "species", "at least one name")
    for name in names:
        if name not in species:
            close = unknown_name("species", str(name), species)
            raise InvalidInputError(f"{line.where}: {close}")
    line.require(_is_number(line.data.get("ref")), "ref", "a finite number in kcal/mol")
    flag = line.take("multireference", bool) if "multireference" in line.data else None
    return Reaction(
        name=line.take("id", str),
        species=tuple(names),
        coefficients=line.numbers("coeffs", len(names)),
        reference=float(line.data["ref"]),
        multireference=flag,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
