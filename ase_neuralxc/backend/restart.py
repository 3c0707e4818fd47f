"""Density matrices on disk, to start a later calculation from."""

from __future__ import annotations

import hashlib
import os
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError


def write_density(label: str | Path, key: tuple, density_matrix: NDArray) -> None:
    """Write `label.npz` atomically.

    Args:
        label: path without suffix.
        key: what the density belongs to (elements, spin state, basis).
        density_matrix: [nao, nao] or [2, nao, nao].

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = _path(label)
    partial = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open(partial, "wb") as stream:
            np.savez_compressed(stream, density_matrix=density_matrix, key=_digest(key))
        os.replace(partial, path)
    except OSError as error:
        raise InvalidInputError(f"label: cannot write {str(path)!r}: {error}") from error


def read_density(label: str | Path, key: tuple) -> NDArray | None:
    """Read the density matrix of `label.npz`.

    Args:
        label: path without suffix.
        key: what the density must belong to.

    Returns:
        [nao, nao] or [2, nao, nao], or None if there is none for this system.

    Raises:
        InvalidInputError: the file is there but cannot be read.
    """
    path = _path(label)
    if not path.exists():
        return None
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as data:
            return data["density_matrix"] if str(data["key"]) == _digest(key) else None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InvalidInputError(
            f"label: cannot read the density in {str(path)!r}: {error}"
        ) from error


def _path(label: str | Path) -> Path:
    return Path(f"{label}.npz")


def _digest(key: tuple) -> str:
    return hashlib.sha256(repr(key).encode()).hexdigest()
