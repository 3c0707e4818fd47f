"""Labelled structures from files: extended XYZ, ASE databases, campaigns, any format of ASE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.db import connect

from ase_neuralxc.campaign import collect
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord, read_db, read_records
from ase_neuralxc.records.label import INFO_KEY
from mlip.data.structure import DataKeys, Structure, available_keys, from_atoms, from_record

_DATABASES = (".db", ".aselmdb")


def read_structures(
    paths: str | Path | Sequence[str | Path], keys: DataKeys | None = None
) -> Iterator[Structure]:
    """Structures of one or several files, one after the other, without holding a file in memory.

    Args:
        paths: files or folders of labelling campaigns.
        keys: names of the labels, for files that are not label records.

    Yields:
        The structures in the order of the files.

    Raises:
        InvalidInputError: a file that is missing, unreadable, empty or without an energy or forces
            under the names given.
    """
    keys = keys or DataKeys()
    for path in [paths] if isinstance(paths, str | Path) else paths:
        yield from _read(Path(path), keys)


def _read(path: Path, keys: DataKeys) -> Iterator[Structure]:
    if not path.exists():
        raise InvalidInputError(f"data: expected a file or a folder, {str(path)!r} does not exist")
    if path.suffix == ".npz":
        raise InvalidInputError(
            f"data: {str(path)!r} does not say its units; convert it with `mlip convert` first"
        )
    items = _items(path)
    try:
        first = next(items, None)
    except InvalidInputError:
        raise
    # Readers of foreign formats fail in every way there is, and none of it is our bug.
    except Exception as error:
        raise InvalidInputError(
            f"data: cannot read {str(path)!r}: {type(error).__name__}: {error}"
        ) from error
    if first is None:
        raise InvalidInputError(f"data: expected structures in {str(path)!r}, got none")
    for number, item in enumerate(chain([first], items)):
        source = f"{path}, frame {number}"
        if isinstance(item, LabelRecord):
            yield from_record(item, source)
            continue
        structure = from_atoms(item, keys, source)
        if number == 0 and not structure.labels:
            raise InvalidInputError(
                f"{source}: expected labels under the names {keys.energy}, {keys.forces}, ..., got "
                f"{available_keys(item)}; name them in `data.keys`"
            )
        yield structure


def _items(path: Path) -> Iterator[Any]:
    """Records where the file holds records, else atoms."""
    if path.is_dir():
        yield from collect(path)
    elif path.suffix in _DATABASES:
        yield from _rows(path)
    else:
        # iread alone would read all frames of an extended XYZ file lazily, but it forgets to say
        # that an unknown suffix is one
        kind = "extxyz" if path.suffix in (".xyz", ".extxyz") else None
        frames = ase.io.iread(path, index=":", format=kind)
        first = next(iter(frames), None)
        if first is None:
            return
        if isinstance(first.info.get(INFO_KEY), dict):
            yield from read_records(path)  # whose checksums tell truncated and altered files
            return
        yield first
        yield from frames


def _rows(path: Path) -> Iterator[Any]:
    with connect(path) as database:
        first = next(database.select(limit=1), None)
        if first is not None and INFO_KEY in first.data:
            yield from read_db(path)
            return
        for row in database.select():
            atoms: Atoms = row.toatoms()
            atoms.info = {**atoms.info, **row.key_value_pairs}
            atoms.info.update({k: v for k, v in row.data.items() if k not in atoms.info})
            yield atoms
