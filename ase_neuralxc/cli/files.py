"""Structures in, calculators on them, results out, progress to standard error."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write
from tqdm import tqdm

from ase_neuralxc import __version__
from ase_neuralxc.cli.options import calculator_keywords
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import Progress


def read_structures(path: str, index: str) -> list[Atoms]:
    """Read frames of a file.

    Args:
        path: the file.
        index: ASE's index ("-1", ":", "3:8").

    Returns:
        At least one structure.

    Raises:
        InvalidInputError: for a file that is missing, unreadable or without such frames.
    """
    if not Path(path).is_file():
        raise InvalidInputError(f"structure: expected a file, got {path!r}, which does not exist")
    try:
        images = read(path, index=index)
    # Readers of foreign formats fail in every way there is, and none of it is our bug.
    except Exception as error:
        raise InvalidInputError(
            f"structure: cannot read frames {index!r} of {path!r}: {type(error).__name__}: {error}"
        ) from error
    images = [images] if isinstance(images, Atoms) else list(images)
    if not images:
        raise InvalidInputError(f"structure: expected frames {index!r} in {path!r}, got none")
    return images


def read_structure(path: str, index: str) -> Atoms:
    """Read one frame of a file.

    Args:
        path: the file.
        index: ASE's index of one frame.

    Returns:
        The structure.

    Raises:
        InvalidInputError: if the index selects several.
    """
    images = read_structures(path, index)
    if len(images) != 1:
        raise InvalidInputError(f"index: expected one frame of {path!r}, got {len(images)}")
    return images[0]


def check_writable(path: str | None) -> None:
    """Refuse, before any work is done, a path that cannot be written.

    Args:
        path: target file, or None.

    Raises:
        InvalidInputError: for a path that is a directory or whose directory cannot be made.
    """
    if path is None:
        return
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Opening for appending tells more than permission bits and changes nothing.
        existed = target.exists()
        with target.open("a"):
            pass
        if not existed:
            target.unlink()
    except OSError as error:
        raise InvalidInputError(f"out: cannot write {path!r}: {error.strerror}") from error


def write_structures(path: str, images: Sequence[Atoms]) -> None:
    """Write structures with their results.

    Args:
        path: target; .xyz and .extxyz are extended XYZ, other endings as ASE has them.
        images: the structures.

    Raises:
        InvalidInputError: for an ending that no format of ASE has.
    """
    extended = Path(path).suffix in (".xyz", ".extxyz")
    try:
        write(path, list(images), format="extxyz" if extended else None)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"out: cannot write {path!r}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")


def describe(atoms: Atoms) -> dict[str, Any]:
    """Geometry for JSON output.

    Args:
        atoms: the structure.

    Returns:
        Formula, symbols and positions in Angstrom.
    """
    return {
        "formula": atoms.get_chemical_formula(),
        "symbols": atoms.get_chemical_symbols(),
        "positions": atoms.positions,
    }


def emit(arguments: argparse.Namespace, results: dict[str, Any], table: str) -> None:
    """Write the outcome of a command to standard output.

    Args:
        arguments: the parsed command line.
        results: for `--json`; arrays are allowed.
        table: for people.
    """
    if arguments.json:
        document = {"command": arguments.command, "version": __version__, **results}
        sys.stdout.write(json.dumps(document, default=_plain, indent=1) + "\n")
    else:
        sys.stdout.write(table + "\n")


def calculator_for(arguments: argparse.Namespace, atoms: Atoms) -> Any:
    """Make a calculator with the settings of the command line.

    Args:
        arguments: the parsed command line.
        atoms: a structure; `charge` and `multiplicity` of its extxyz header count where the
            command line gives none.

    Returns:
        A new calculator.
    """
    from ase_neuralxc.calculator import NeuralXC

    keywords = calculator_keywords(arguments)
    for name in ("charge", "multiplicity"):
        if name in atoms.info:
            keywords.setdefault(name, int(atoms.info[name]))
    return NeuralXC(**keywords)


def attach(arguments: argparse.Namespace, atoms: Atoms) -> Any:
    """Put a calculator with the settings of the command line on a structure.

    Args:
        arguments: the parsed command line.
        atoms: the structure.

    Returns:
        The calculator.
    """
    atoms.calc = calculator_for(arguments, atoms)
    return atoms.calc


@contextmanager
def progress_bar(arguments: argparse.Namespace, unit: str) -> Iterator[Progress]:
    """Progress with time left on standard error.

    Args:
        arguments: the parsed command line.
        unit: what is counted.

    Yields:
        The function that workflows call.
    """
    with tqdm(file=sys.stderr, unit=unit, disable=arguments.quiet, leave=False) as bar:

        def report(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.set_postfix_str(message, refresh=False)
            bar.update(done - bar.n)

        yield report
