"""From the `kpts` setting to a Monkhorst-Pack grid, the same for every periodic host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.dft.kpoints import monkhorst_pack
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name

#: What users give: None (Gamma), three numbers, or a mapping with "density" or "size", "gamma".
KPoints = None | Sequence[int] | Mapping[str, Any]

KEYS = ("density", "size", "gamma")


@dataclass(frozen=True)
class KPointGrid:
    """A regular grid of k-points (Monkhorst and Pack, PRB 13, 5188 (1976)).

    Attributes:
        size: points along the three reciprocal vectors.
        offset: shift of all points in units of the reciprocal vectors. Without a shift odd sizes
            contain Gamma and even ones do not, which is ASE's and GPAW's convention.
    """

    size: tuple[int, int, int]
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def scaled(self) -> NDArray:
        """[n, 3] points in units of the reciprocal vectors."""
        return np.asarray(monkhorst_pack(self.size)) + self.offset

    def density(self, cell: NDArray, pbc: Sequence[bool]) -> float | None:
        """Points per inverse Angstrom along the direction that is sampled worst.

        Args:
            cell: [3, 3] lattice vectors as rows in Angstrom.
            pbc: periodic directions.

        Returns:
            The density, or None without a periodic direction.
        """
        lengths = 2 * np.pi * _reciprocal_lengths(cell)
        sampled = [n / b for n, b, p in zip(self.size, lengths, pbc, strict=True) if p]
        return float(min(sampled)) if sampled else None


def check_kpoints(kpts: Any) -> None:
    """Check the setting as far as that is possible without a cell.

    Args:
        kpts: what the user gave.

    Raises:
        InvalidInputError: neither None, nor three positive integers, nor a mapping with either a
            positive density or a size.
    """
    if kpts is None:
        return
    if not isinstance(kpts, Mapping):
        _size(kpts)
        return
    for key in kpts:
        if key not in KEYS:
            raise unknown_name("key of kpts", str(key), KEYS)
    if ("density" in kpts) == ("size" in kpts):
        raise InvalidInputError(
            f"kpts: expected either 'density' or 'size' in the mapping, got {dict(kpts)}"
        )
    if "size" in kpts:
        _size(kpts["size"])
    elif not (isinstance(kpts["density"], (int, float)) and kpts["density"] > 0):
        raise InvalidInputError(
            f"kpts: expected a positive density (points per inverse Angstrom), got "
            f"{kpts['density']!r}"
        )
    if kpts.get("gamma") not in (None, True, False):
        raise InvalidInputError(
            f"kpts: expected True or False for 'gamma' (whether the grid contains it), got "
            f"{kpts['gamma']!r}"
        )


def resolve_kpoints(
    kpts: KPoints, cell: NDArray | None = None, pbc: Sequence[bool] = (False, False, False)
) -> KPointGrid:
    """Grid for a cell.

    A molecule in a box is sampled at Gamma whatever was asked for, so that the settings of a slab
    also serve for its gas-phase references. A density gives one point along directions that are
    not periodic, and ceil(2 pi |b_i| density) along the others. A grid that follows from a density
    may change from one cell to the next: fix the size where the cell is strained.

    Args:
        kpts: None for Gamma; (n1, n2, n3); or {"density": points per inverse Angstrom} or
            {"size": (n1, n2, n3)}, both with an optional "gamma": whether the grid must (True, the
            default of a density) or must not (False) contain Gamma.
        cell: [3, 3] lattice vectors as rows in Angstrom; None for a molecule.
        pbc: periodic directions.

    Returns:
        Size and offset; `.scaled` are the points.

    Raises:
        InvalidInputError: a malformed setting, or more than one point along a direction that is
            not periodic (other than for a molecule).
    """
    check_kpoints(kpts)
    if kpts is None or cell is None or not any(pbc):
        return KPointGrid((1, 1, 1))
    gamma = wants_gamma(kpts)
    if isinstance(kpts, Mapping):
        size = _size(kpts["size"]) if "size" in kpts else _from_density(kpts["density"], cell, pbc)
    else:
        size = _size(kpts)
    for axis, (n, periodic) in enumerate(zip(size, pbc, strict=True)):
        if n > 1 and not periodic:
            raise InvalidInputError(
                f"kpts: expected 1 point along direction {axis}, which is not periodic "
                f"(pbc = {list(pbc)}), got {list(size)}"
            )
    shift = [
        0.5 / n if gamma is not None and periodic and n % 2 != int(gamma) else 0.0
        for n, periodic in zip(size, pbc, strict=True)
    ]
    return KPointGrid(size, (shift[0], shift[1], shift[2]))


def wants_gamma(kpts: KPoints) -> bool | None:
    """Whether a grid must contain Gamma, must not, or (None) does for odd sizes.

    Even grids without Gamma lack the symmetry of face-centred and hexagonal lattices, and forces of
    displaced atoms, which no symmetry of the crystal cleans any more, then show the [111] direction
    of the grid: a density, whose sizes the user does not see, contains Gamma.

    Args:
        kpts: as in the settings.

    Returns:
        True, False or None.
    """
    if not isinstance(kpts, Mapping):
        return None
    gamma = kpts.get("gamma")
    return True if gamma is None and "density" in kpts else gamma


def _size(value: Any) -> tuple[int, int, int]:
    try:
        numbers = [int(n) for n in value]
        exact = all(int(n) == n for n in value)
    except (TypeError, ValueError):
        numbers, exact = [], False
    if len(numbers) != 3 or not exact or min(numbers) < 1:
        raise InvalidInputError(f"kpts: expected three positive integers, got {value!r}")
    return numbers[0], numbers[1], numbers[2]


def _from_density(density: float, cell: NDArray, pbc: Sequence[bool]) -> tuple[int, int, int]:
    # the small number keeps round-off of a relaxed cell from adding a plane of points
    points = np.ceil(2 * np.pi * _reciprocal_lengths(cell) * density - 1e-6).astype(int)
    n = [max(int(k), 1) if p else 1 for k, p in zip(points, pbc, strict=True)]
    return n[0], n[1], n[2]


def _reciprocal_lengths(cell: NDArray) -> NDArray:
    """Lengths of the reciprocal vectors without 2 pi, [3] in 1/Angstrom."""
    return np.linalg.norm(np.linalg.inv(np.asarray(cell, dtype=float)), axis=0)


def describe_kpoints(kpts: KPoints) -> tuple[str, float | None]:
    """Rule of the k-points as it was given: what it resolves to depends on the cell.

    Args:
        kpts: as in the settings.

    Returns:
        The rule in words, and the density in points per inverse Angstrom if that is the rule.
    """
    if kpts is None:
        return "Gamma", None
    if not isinstance(kpts, Mapping):
        return "x".join(str(int(n)) for n in kpts), None
    gamma = {None: "", True: " with Gamma", False: " without Gamma"}[wants_gamma(kpts)]
    if "density" in kpts:
        return f"density{gamma}", float(kpts["density"])
    return "x".join(str(int(n)) for n in kpts["size"]) + gamma, None
