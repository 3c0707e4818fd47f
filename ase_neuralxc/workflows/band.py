"""The two ends of a reaction path, the images between them, and the file they are kept in."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation
from ase.geometry import find_mic
from ase.io import Trajectory
from ase.io.ulm import InvalidULMFileError
from ase.mep import NEB, interpolate
from ase.mep.neb import idpp_interpolate
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from ase_neuralxc.errors import InvalidInputError

#: Smallest displacement (Angstrom) of the atom that moves most between two different minima.
DISTINCT = 0.1
#: An exchange of equal atoms is suspected where it shortens the path by this much (Angstrom).
_SHORTER = 0.5
#: The way that the positions describe is kept if it is at most so many times the shortest one.
_CLEARLY = 1.25
#: Atoms closer than this (Angstrom) in the first guess of an image cannot be computed.
_OVERLAP = 0.4


def displacement(initial: Atoms, final: Atoms) -> NDArray:
    """Shortest way of every atom from one structure to the other.

    An atom that moves by about half a lattice vector has two ways; the one that the positions
    describe is kept unless another is clearly shorter. So a molecule stays whole whose atoms, each
    by itself, would go to different images of where it ends.

    Args:
        initial: start.
        final: end, with the same atoms in the same order, in the same cell.

    Returns:
        [n_atoms, 3] in Angstrom.
    """
    given = final.positions - initial.positions
    if not initial.pbc.any():
        return given
    nearest, lengths = find_mic(given, initial.cell, initial.pbc)
    keep = np.linalg.norm(given, axis=1) <= _CLEARLY * lengths + 0.01
    return np.where(keep[:, None], given, nearest)


def check_ends(initial: Atoms, final: Atoms, keep_order: bool) -> tuple[Atoms, Atoms]:
    """Refuse ends that no path of atoms connects, and bring the final one next to the initial one.

    Args:
        initial: start of the path.
        final: end of the path.
        keep_order: take the order of the atoms as it is, also where exchanging equal atoms would
            make the path shorter.

    Returns:
        Copies. The final one has its atoms at the images nearest to the start; a free molecule is
        turned and moved onto the start.

    Raises:
        InvalidInputError: different composition, order of atoms, cell or periodicity, fixed atoms
            that move, ends that are the same, or atoms that are probably interchanged.
    """
    _check_same_system(initial, final)
    first, last = initial.copy(), final.copy()
    last.set_constraint(first.constraints)
    if not first.pbc.any() and not first.constraints and len(first) > 1:
        minimize_rotation_and_translation(first, last)
    moves = displacement(first, last)
    last.set_positions(first.positions + moves, apply_constraint=False)
    _check_fixed(first, last)
    check_distinct(first, last)
    if not keep_order:
        _check_assignment(first, last)
    return first, last


def _check_same_system(initial: Atoms, final: Atoms) -> None:
    """Same elements in the same order, same cell, same periodicity."""
    if len(initial) == 0:
        raise InvalidInputError("initial: expected at least one atom, got an empty structure")
    formulas = [atoms.get_chemical_formula() for atoms in (initial, final)]
    if formulas[0] != formulas[1]:
        raise InvalidInputError(
            f"final: expected the composition of initial, {formulas[0]}, got {formulas[1]}"
        )
    if not np.array_equal(initial.numbers, final.numbers):
        place = int(np.flatnonzero(initial.numbers != final.numbers)[0])
        raise InvalidInputError(
            f"final: expected the atoms in the order of initial, got {final.symbols[place]} for "
            f"{initial.symbols[place]} at index {place}"
        )
    if not np.array_equal(initial.pbc, final.pbc):
        raise InvalidInputError(
            f"final: expected pbc = {initial.pbc.tolist()} as initial, got {final.pbc.tolist()}"
        )
    along = initial.pbc
    if not np.allclose(initial.cell[along], final.cell[along], atol=1e-6):
        raise InvalidInputError(
            f"final: expected the cell of initial, {initial.cell[along].tolist()}, got "
            f"{final.cell[along].tolist()}"
        )


def _check_fixed(initial: Atoms, final: Atoms) -> None:
    """A constraint must not be at odds with the way from one end to the other."""
    held = initial.copy()
    held.set_positions(final.positions, apply_constraint=True)
    off = np.linalg.norm(held.positions - final.positions, axis=1)
    if off.max() > 1e-3:
        raise InvalidInputError(
            f"final: expected fixed atoms where initial has them, atoms "
            f"{np.flatnonzero(off > 1e-3).tolist()} differ by up to {off.max():.3f} A"
        )


def check_distinct(initial: Atoms, final: Atoms) -> None:
    """Refuse ends that are one and the same structure.

    Args:
        initial: start, as given or relaxed.
        final: end.

    Raises:
        InvalidInputError: no atom moves.
    """
    most = np.linalg.norm(displacement(initial, final), axis=1).max()
    if most < DISTINCT:
        raise InvalidInputError(
            f"final: expected another minimum than initial, got the same one (no atom moves more "
            f"than {most:.3f} A)"
        )


def _check_assignment(initial: Atoms, final: Atoms) -> None:
    """Find out whether exchanging equal atoms would shorten the path."""
    order = np.arange(len(initial))
    for number in np.unique(initial.numbers):
        group = np.flatnonzero(initial.numbers == number)
        between = final.positions[None, group] - initial.positions[group, None]
        if initial.pbc.any():
            lengths = find_mic(between.reshape(-1, 3), initial.cell, initial.pbc)[1]
        else:
            lengths = np.linalg.norm(between.reshape(-1, 3), axis=1)
        squared = lengths.reshape(len(group), len(group)) ** 2
        rows, columns = linear_sum_assignment(squared)
        gain = np.sqrt(np.trace(squared)) - np.sqrt(squared[rows, columns].sum())
        if gain > _SHORTER:
            order[group] = group[columns]
    if moved := np.flatnonzero(order != np.arange(len(order))).tolist():
        raise InvalidInputError(
            f"final: expected each atom at the index it has in initial, got atoms {moved} probably "
            f"interchanged (the path is shorter in the order {order[moved].tolist()}); reorder "
            "final, or set keep_order if they do change places"
        )


def first_guess(initial: Atoms, final: Atoms, n_images: int, method: str) -> list[Atoms]:
    """Images between two ends, by interpolation.

    Args:
        initial: start, with its results.
        final: end, with its results.
        n_images: images between the two.
        method: "idpp" (distances change evenly: Smidstrup et al., J. Chem. Phys. 140, 214106
            (2014)) or "linear".

    Returns:
        The ends and the images between them, without calculators.

    Raises:
        InvalidInputError: for atoms on top of each other.
    """
    images = [initial, *(initial.copy() for _ in range(n_images)), final]
    interpolate(images, apply_constraint=True)
    if method == "idpp":
        # With the image convention, or distances across the boundary would be wrong.
        bare = [image.copy() for image in images]
        path = NEB(bare, method="improvedtangent")
        idpp_interpolate(path, traj=None, log=None, mic=bool(initial.pbc.any()), steps=200)
        for image, guess in zip(images[1:-1], bare[1:-1], strict=True):
            image.set_positions(guess.positions, apply_constraint=False)
    for number, image in enumerate(images[1:-1], start=1):
        distances = image.get_all_distances(mic=True) + 1e3 * np.eye(len(image))
        if distances.min() < _OVERLAP:
            pair = np.unravel_index(distances.argmin(), distances.shape)
            raise InvalidInputError(
                f"initial, final: expected a path on which atoms keep apart, got atoms "
                f"{[int(i) for i in pair]} {distances.min():.2f} A apart in image {number}"
            )
    return images


def write_band(path: Path, images: Iterable[Atoms]) -> None:
    """Replace the file of a band at once, so that a kill leaves the old one or the new one.

    Args:
        path: ASE trajectory.
        images: with their results.
    """
    partial = path.with_name(f".{path.name}.partial")
    with Trajectory(str(partial), "w") as trajectory:
        for image in images:
            trajectory.write(image)
    os.replace(partial, path)


def read_band(path: Path, like: Atoms, n_images: int) -> list[Atoms] | None:
    """Band of an earlier run.

    Args:
        path: ASE trajectory.
        like: a structure of the system.
        n_images: images expected, ends included.

    Returns:
        The images, or None if there is no file.

    Raises:
        InvalidInputError: a file of another system, with another number of images, or damaged.
    """
    if not path.exists():
        return None
    try:
        with Trajectory(str(path)) as trajectory:
            images = list(trajectory)
    except (InvalidULMFileError, OSError) as error:
        raise InvalidInputError(f"directory: cannot read the band {path}: {error}") from error
    if len(images) != n_images or not np.array_equal(images[0].numbers, like.numbers):
        raise InvalidInputError(
            f"directory: expected {n_images} images of {like.get_chemical_formula()} in {path}, "
            f"got {len(images)} of {images[0].get_chemical_formula() if images else 'nothing'}"
        )
    return images
