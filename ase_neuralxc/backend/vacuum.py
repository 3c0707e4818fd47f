"""Vacuum along the directions in which a structure is not periodic, the same for every host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError

#: Least distance (Angstrom) between a slab or molecule and its image.
MINIMUM_VACUUM = 4.0
#: Steps (Angstrom) of the edges of a box: small displacements leave the box, and with it the grid
#: or the plane waves, as they are.
BOX_STEP = 0.5


def box_around(positions: NDArray, vacuum: float) -> NDArray:
    """Cuboid around a molecule.

    Args:
        positions: [n_atoms, 3] in Angstrom.
        vacuum: Angstrom on each side.

    Returns:
        [3, 3] lattice vectors as rows in Angstrom.
    """
    edges = np.ptp(positions, axis=0) + 2 * vacuum
    return np.diag(np.ceil(edges / BOX_STEP) * BOX_STEP)


def cell_heights(cell: NDArray) -> tuple[NDArray, NDArray]:
    """Unit normals of the faces of a cell, and its heights along them.

    Args:
        cell: [3, 3] lattice vectors as rows in Angstrom.

    Returns:
        Normals [3, 3] as rows, and heights [3] in Angstrom.
    """
    reciprocal = np.linalg.inv(cell).T
    lengths = np.linalg.norm(reciprocal, axis=1)
    return reciprocal / lengths[:, None], 1 / lengths


def check_vacuum(system: System, cell: NDArray) -> None:
    """Refuse a slab or molecule that is too near to its own images.

    Args:
        system: atoms and periodic directions.
        cell: [3, 3] lattice vectors as rows in Angstrom.

    Raises:
        InvalidInputError: less than `MINIMUM_VACUUM` along a direction that is not periodic.
    """
    normals, heights = cell_heights(cell)
    for axis, periodic in enumerate(system.pbc):
        gap = heights[axis] - np.ptp(system.positions @ normals[axis])
        if not periodic and gap < MINIMUM_VACUUM:
            raise InvalidInputError(
                f"cell: expected at least {MINIMUM_VACUUM:g} Angstrom of vacuum along direction "
                f"{axis}, which is not periodic (pbc = {list(system.pbc)}), got {gap:.2f}; use "
                "atoms.center(vacuum=..., axis=...)"
            )
