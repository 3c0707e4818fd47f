"""Which bonds a search has broken or made: what a potential gets wrong most when it is lost."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from numpy.typing import NDArray

#: Atoms nearer than this multiple of the sum of their covalent radii (Cordero 2008, of ASE) are
#: bonded, those farther apart than the second are not; in between, what was stays.
BONDED, APART = 1.2, 1.6


class Bonds:
    """The bonds of a structure, against which others are compared.

    Args:
        atoms: the structure.
    """

    def __init__(self, atoms: Atoms) -> None:
        self._symbols = atoms.get_chemical_symbols()
        self._start = _relative_distances(atoms)

    def changes(self, atoms: Atoms) -> list[str]:
        """Bonds that are there in one of the structures and clearly not in the other.

        Args:
            atoms: the same atoms elsewhere.

        Returns:
            Such as "C0-O3 broken" and "O3-H5 made"; pairs of nearest images in a cell.
        """
        now = _relative_distances(atoms)
        found = []
        for first, second, what in (
            (self._start, now, "broken"),
            (now, self._start, "made"),
        ):
            pairs = np.argwhere(np.triu((first < BONDED) & (second > APART), 1))
            found += [f"{self._name(i)}-{self._name(j)} {what}" for i, j in pairs]
        return found

    def _name(self, index: int) -> str:
        return f"{self._symbols[index]}{index}"


def _relative_distances(atoms: Atoms) -> NDArray:
    """[n, n] distances over the sums of covalent radii."""
    radii = covalent_radii[atoms.numbers]
    distances: NDArray = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    return distances / (radii[:, None] + radii[None, :])
