"""Adsorbates on slabs: at sites in chosen orientations, or anywhere at random.

An adsorbate is lowered until the first of its atoms touches an atom of the slab, at the sum of the
covalent radii; over a hole it stops at the height of the highest atom.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.collections import g2
from ase.data import atomic_numbers, covalent_radii
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows.sites import Site, contact_heights, normal

#: Hydrogen counts as this large (Angstrom), or it would start inside wide hollows.
_SMALLEST = 0.6
#: Directions closer than this (sine of the angle) are the same.
_PARALLEL = 1e-3


@dataclass(frozen=True)
class Placement:
    """An adsorbate on a slab, not relaxed.

    Attributes:
        atoms: slab, then adsorbate.
        origin: site and orientation, or "random N".
        site: name of the site, None for a random placement.
    """

    atoms: Atoms
    origin: str
    site: str | None = None


def as_adsorbate(adsorbate: str | Atoms) -> Atoms:
    """Structure of an adsorbate.

    Args:
        adsorbate: a structure, a chemical symbol, or a name in `ase.collections.g2` ("CO").

    Returns:
        A copy without cell, periodicity and calculator.

    Raises:
        InvalidInputError: an unknown name or an empty structure.
    """
    if isinstance(adsorbate, Atoms):
        made = adsorbate.copy()
        made.set_constraint()
    elif adsorbate in atomic_numbers:
        made = Atoms(adsorbate)
    elif adsorbate in g2.names:
        made = molecule(adsorbate)
    else:
        raise unknown_name("adsorbate", str(adsorbate), [*g2.names, *atomic_numbers])
    if len(made) == 0:
        raise InvalidInputError("adsorbate: expected at least one atom, got an empty structure")
    made.pbc = False
    made.cell = None
    return made


def orientations(
    adsorbate: Atoms, anchors: Sequence[int] | None, tilts: Sequence[float], azimuths: int
) -> list[tuple[str, Atoms]]:
    """An adsorbate turned in all ways asked for, with the binding atom at the origin.

    Args:
        adsorbate: the molecule.
        anchors: atoms that bind; None means every atom other than hydrogen, or every atom where
            there is nothing else.
        tilts: angles in degrees between the normal (z) and the direction from the anchor to the
            centre of the molecule: 0 is upright, 90 lying.
        azimuths: number of angles about the normal, evenly spread over a turn. Where turning
            changes nothing (atoms, upright linear molecules) there is one.

    Returns:
        Descriptions and molecules.

    Raises:
        InvalidInputError: an anchor that is no atom of the molecule.
    """
    if anchors is None:
        heavy = np.flatnonzero(adsorbate.numbers > 1)
        anchors = (heavy if len(heavy) else np.arange(len(adsorbate))).tolist()
    for anchor in anchors:
        if not 0 <= anchor < len(adsorbate):
            raise InvalidInputError(
                f"anchors: expected atoms from 0 to {len(adsorbate) - 1}, got {anchor}"
            )
    if len(adsorbate) == 1:
        return [("", _moved(adsorbate, adsorbate.positions - adsorbate.positions[0]))]
    made = []
    for anchor in anchors:
        arms = adsorbate.positions - adsorbate.positions[anchor]
        axis = arms.mean(axis=0)
        if np.linalg.norm(axis) < _PARALLEL:  # the anchor is the centre: any neighbour will do
            axis = arms[np.argmax(np.linalg.norm(arms, axis=1))]
        upright = Rotation.align_vectors([[0.0, 0.0, 1.0]], [axis])[0].apply(arms)
        for tilt in tilts:
            tilted = Rotation.from_euler("y", tilt, degrees=True).apply(upright)
            turns = azimuths if np.abs(tilted[:, :2]).max() > _PARALLEL else 1
            for turn in range(turns):
                angle = 360.0 * turn / turns
                positions = Rotation.from_euler("z", angle, degrees=True).apply(tilted)
                text = f"{adsorbate.symbols[anchor]}{anchor} down"
                text += f", tilt {tilt:g}" if tilt else ""
                text += f", turn {angle:g}" if turns > 1 else ""
                made.append((text, _moved(adsorbate, positions)))
    return made


def _moved(atoms: Atoms, positions: NDArray) -> Atoms:
    copy = atoms.copy()
    copy.set_positions(positions)
    return copy


def place(slab: Atoms, adsorbate: Atoms, position: NDArray, scale: float = 1.0) -> Atoms:
    """Lower an adsorbate onto a slab.

    Args:
        slab: the slab; its constraints and moments are kept. The adsorbate starts without moments.
        adsorbate: with its reference point (the anchor) at the origin, turned as wanted with
            respect to z, which becomes the normal of the slab.
        position: [3] point above which the reference point goes; its height does not count.
        scale: of the sums of covalent radii at which atoms touch.

    Returns:
        Slab and adsorbate, whose atoms come last. A slab without a third cell vector gets one.

    Raises:
        InvalidInputError: not a slab, or no room above it.
    """
    up = normal(slab)
    first = slab.cell[0] / np.linalg.norm(slab.cell[0])
    frame = np.array([first, np.cross(up, first), up])
    arms = adsorbate.positions @ frame
    lateral = np.asarray(position) - (np.asarray(position) @ up) * up + arms
    shifts = [
        contact_heights(slab, point, max(covalent_radii[number], _SMALLEST), scale)[0][0] - arm @ up
        for point, number, arm in zip(lateral, adsorbate.numbers, arms, strict=True)
    ]
    height = max(shifts)
    if not np.isfinite(height):  # over a hole: no atom is near, at whatever height
        height = (slab.positions @ up).max() - (arms @ up).min()
    added = adsorbate.copy()
    base = np.asarray(position) - (np.asarray(position) @ up) * up + height * up
    added.set_positions(base + arms)
    added.set_initial_magnetic_moments(None)
    added.set_tags(0)
    both = slab.copy()
    both += added
    return _with_vacuum(both, up)


def _with_vacuum(atoms: Atoms, up: NDArray) -> Atoms:
    """Make sure that an adsorbate does not stick out of its cell into the next slab."""
    heights = atoms.positions @ up
    if atoms.cell.rank < 3:
        cell = atoms.cell.array.copy()
        cell[2] = (np.ptp(heights) + 15.0) * up
        atoms.set_cell(cell)
        return atoms
    gap = atoms.cell[2] @ up - np.ptp(heights)
    if atoms.pbc[2] and gap < 4.0:
        raise InvalidInputError(
            f"slab: expected at least 4 A of vacuum above the adsorbate, got {gap:.1f} A; make "
            "the cell higher"
        )
    return atoms


def site_placements(
    slab: Atoms,
    sites: Iterable[Site],
    turned: Iterable[tuple[str, Atoms]],
    scale: float = 1.0,
) -> list[Placement]:
    """Every orientation at every site.

    Args:
        slab: the slab.
        sites: where.
        turned: descriptions and molecules, from `orientations`.
        scale: of the sums of covalent radii.

    Returns:
        The placements.
    """
    turned = list(turned)
    return [
        Placement(
            place(slab, adsorbate, np.array(site.position), scale),
            f"{site.name}, {text}" if text else site.name,
            site.name,
        )
        for site in sites
        for text, adsorbate in turned
    ]


def random_placements(
    slab: Atoms, adsorbate: Atoms, number: int, seed: int, scale: float = 1.0
) -> list[Placement]:
    """An adsorbate anywhere in the cell, in any orientation.

    Args:
        slab: the slab.
        adsorbate: the molecule.
        number: of placements.
        seed: of the random numbers.
        scale: of the sums of covalent radii.

    Returns:
        The placements.
    """
    rng = np.random.default_rng(seed)
    made = []
    for count in range(number):
        u, v = rng.random(2)
        turn = Rotation.random(rng=rng)
        centred = adsorbate.positions - adsorbate.positions.mean(axis=0)
        point = u * slab.cell[0] + v * slab.cell[1]
        atoms = place(slab, _moved(adsorbate, turn.apply(centred)), point, scale)
        made.append(Placement(atoms, f"random {count}"))
    return made
