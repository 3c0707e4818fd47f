"""Labels as extended XYZ and as ASE databases, without loss and checked on the way back.

ASE writes extended XYZ with eight decimals. Here floats are written so that they read back
exactly, and each frame carries a checksum and its place in the file: a truncated, hand-edited or
rounded file is refused, not trained on. Any program that reads extended XYZ reads these files.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.db import connect
from ase.io.extxyz import read_xyz

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.records.label import INFO_KEY, RESULTS, LabelRecord

_PER_ATOM = tuple(name for name, shapes in RESULTS.items() if "n" in shapes[0])
_PER_FRAME = tuple(name for name in RESULTS if name not in _PER_ATOM)


def write_records(path: str | Path, records: Iterable[LabelRecord]) -> None:
    """Write labels to one extended XYZ file, atomically.

    Args:
        path: the file; replaced if it exists.
        records: labels, at least one, in this order.

    Raises:
        InvalidInputError: no label, or the path cannot be written.
    """
    text = format_records(records)
    if not text:
        raise InvalidInputError(f"records: expected at least one label for {str(path)!r}, got none")
    atomic_write(path, text.encode())


def read_records(path: str | Path) -> list[LabelRecord]:
    """Read the labels of a file that `write_records` wrote.

    Args:
        path: the file.

    Returns:
        The labels in the order of the file; files that were concatenated read as one.

    Raises:
        InvalidInputError: the file is missing, truncated, altered or has no labels.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"path: cannot read {str(path)!r}: {error}") from error
    return parse_records(text, str(path))


def format_records(records: Iterable[LabelRecord]) -> str:
    """The text of an extended XYZ file of labels."""
    frames = list(records)
    return "".join(_frame(record, i, len(frames)) for i, record in enumerate(frames))


def parse_records(text: str, source: str) -> list[LabelRecord]:
    """Labels from the text of an extended XYZ file.

    Args:
        text: the whole text.
        source: what it is called in errors.

    Returns:
        The labels, each equal to its checksum.

    Raises:
        InvalidInputError: truncated, altered, or without labels.
    """
    if text and not text.endswith("\n"):
        raise _damaged(source, "the last line is incomplete")
    if not text:
        raise _damaged(source, "it is empty")
    records: list[LabelRecord] = []
    expected, count = 0, 0
    try:
        for atoms in read_xyz(StringIO(text), index=slice(None)):
            stored = atoms.info.get(INFO_KEY)
            if not isinstance(stored, dict) or "checksum" not in stored:
                raise InvalidInputError(
                    f"path: expected frames with a {INFO_KEY!r} entry (labels written by "
                    f"write_records), got none in frame {len(records)} of {source!r}"
                )
            checksum, index = stored.pop("checksum"), stored.pop("frame")
            if index[0] != expected:
                raise _damaged(source, f"frame {expected} of {count} is missing")
            record = LabelRecord.from_atoms(atoms)
            if record.checksum != checksum:
                raise _damaged(source, f"frame {len(records)} is not what was written")
            records.append(record)
            count = index[1]
            expected = (index[0] + 1) % count
    except InvalidInputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        # RuntimeError: a frame without a comment line ends ASE's generator from within
        raise _damaged(source, f"frame {len(records)} cannot be read ({error})") from error
    if expected:
        raise _damaged(source, f"it ends after frame {expected} of {count}")
    return records


def write_db(path: str | Path, records: Iterable[LabelRecord]) -> None:
    """Append labels to an ASE database, all of them or none.

    Rows can be selected by `fidelity` (the digest, after "digest-"), `functional`, `total_charge`
    and everything that ASE selects by.

    Args:
        path: database file (.db or .json).
        records: labels, in this order.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    try:
        with connect(path) as database:
            for record in records:
                pairs: dict[str, Any] = {
                    # a bare digest may look like a number, which ASE refuses as text
                    "fidelity": f"digest-{record.fidelity.digest}",
                    "total_charge": record.spin_state.charge,  # ASE has a column "charge"
                }
                if record.fidelity.functional:
                    pairs["functional"] = f"xc-{record.fidelity.functional}"
                data = {INFO_KEY: {**record.to_dict(), "checksum": record.checksum}}
                database.write(_viewable(record), data=data, **pairs)
    except (OSError, sqlite3.Error) as error:
        raise InvalidInputError(
            f"path: expected a writable database, got {str(path)!r}: {error}"
        ) from error


def read_db(path: str | Path, selection: str | None = None) -> list[LabelRecord]:
    """Read labels from an ASE database.

    Args:
        path: database file.
        selection: ASE's selection syntax, for example "natoms<10,total_charge=0".

    Returns:
        The labels in the order of their rows, each equal to its checksum.

    Raises:
        InvalidInputError: the file is missing, damaged or holds rows that are not labels.
    """
    if not Path(path).is_file():
        raise InvalidInputError(f"path: expected a database, got {str(path)!r}: no such file")
    return list(_rows(str(path), selection))


def _rows(path: str, selection: str | None) -> Iterator[LabelRecord]:
    try:
        with connect(path) as database:
            for row in database.select(selection, include_data=True):
                stored = row.data.get(INFO_KEY)
                if stored is None:
                    raise InvalidInputError(
                        f"path: expected rows written by write_db, got row {row.id} of {path!r} "
                        "without a label"
                    )
                checksum = stored.pop("checksum")
                record = LabelRecord.from_dict(stored)
                if record.checksum != checksum:
                    raise _damaged(path, f"row {row.id} is not what was written")
                yield record
    except InvalidInputError:
        raise
    except (OSError, ValueError, KeyError, TypeError, sqlite3.Error) as error:
        raise _damaged(path, str(error)) from error


def _viewable(record: LabelRecord) -> Atoms:
    """What ASE's own columns can hold; the label itself is in the row's data."""
    atoms = record.to_atoms()
    if not record.spin_state.collinear:
        atoms.set_initial_magnetic_moments(None)  # ASE flattens vectors and cannot read them back
    if record.magmoms is not None and record.magmoms.ndim == 2:
        del atoms.calc.results["magmoms"]
    return atoms


def _frame(record: LabelRecord, index: int, count: int) -> str:
    columns = [record.positions]
    properties = "species:S:1:pos:R:3"
    for name in _PER_ATOM:
        values = getattr(record, name)
        if values is not None:
            columns.append(values.reshape(len(record.numbers), -1))
            properties += f":{name}:R:{columns[-1].shape[1]}"
    header = []
    if record.cell.any():
        header.append(f'Lattice="{_numbers(record.cell)}"')
    header.append(f"Properties={properties}")
    for name in _PER_FRAME:
        value = getattr(record, name)
        if value is None:
            continue
        if name == "stress":  # extended XYZ has the full matrix
            xx, yy, zz, yz, xz, xy = value
            value = np.array([xx, xy, xz, xy, yy, yz, xz, yz, zz])
        header.append(f'{name}="{_numbers(value)}"')
    metadata = {**record.metadata(), "checksum": record.checksum, "frame": [index, count]}
    # backslashes and quotes are undone by the reader, so that what remains is the JSON text
    text = json.dumps(metadata).replace("\\", "\\\\").replace('"', '\\"')
    header.append(f'{INFO_KEY}="_JSON {text}"')
    header.append('pbc="{}"'.format(" ".join("T" if p else "F" for p in record.pbc)))
    lines = [str(len(record.numbers)), " ".join(header)]
    table = np.hstack(columns).tolist()
    for number, row in zip(record.numbers, table, strict=True):
        lines.append(f"{chemical_symbols[number]:2s} " + " ".join(map(repr, row)))
    return "\n".join(lines) + "\n"


def _numbers(value: Any) -> str:
    return " ".join(repr(number) for number in np.ravel(value).tolist())


def _damaged(source: str, what: str) -> InvalidInputError:
    return InvalidInputError(
        f"path: expected a complete file of labels, got {source!r}, which is truncated or altered: "
        f"{what}"
    )
