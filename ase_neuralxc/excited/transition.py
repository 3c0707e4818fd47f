"""Which electrons an excited state has moved: the constraint of T-CDFT.

Stella, Thapa, Genovese and Ratcliff, JCTC 18, 3027 (2022): the constraint is a transition between
orbitals of the ground state, or a combination of transitions, instead of a region of space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name

MULTIPLICITIES = ("singlet", "triplet", "mixed")
#: How far the weights may be from one in sum.
TOLERANCE = 1e-6
_NAME = re.compile(r"(?P<edge>HOMO|LUMO)(?P<shift>[+-]\d+)?$")

Orbital = str | int


@dataclass(frozen=True)
class TransitionConstraint:
    """Electrons that have gone from occupied to empty orbitals of the ground state.

    Attributes:
        transitions: (from, to, weight): orbitals by name ("HOMO", "HOMO-1", "LUMO", "LUMO+2") or
            by index from 0, and the part of one electron that takes this way. The weights, those
            of a response calculation squared for example, are positive and have the sum one.
        multiplicity: "singlet" (twice the energy of the determinant with one spin moved, less that
            of the triplet: Ziegler, Rauk and Baerends, Theor. Chim. Acta 43, 261 (1977)),
            "triplet", or "mixed", the determinant itself, for open-shell ground states too.

    Raises:
        InvalidInputError: no transition, a name that is none, the same orbital emptied and
            filled, weights that are not positive or have another sum.
    """

    transitions: Sequence[tuple[Orbital, Orbital, float]]
    multiplicity: str = "singlet"

    def __post_init__(self) -> None:
        if self.multiplicity not in MULTIPLICITIES:
            raise unknown_name("multiplicity", str(self.multiplicity), MULTIPLICITIES)
        try:
            moves = tuple((a, b, float(w)) for a, b, w in self.transitions)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                "transitions: expected (from, to, weight) for each, such as "
                f"('HOMO', 'LUMO', 1.0), got {self.transitions!r}"
            ) from error
        object.__setattr__(self, "transitions", moves)
        for first, second, weight in moves:
            if not 0 < weight <= 1 + TOLERANCE:
                raise InvalidInputError(f"transitions: expected weights from 0 to 1, got {weight}")
            for name in (first, second):
                _offset(name, 0)
        total = sum(weight for _, _, weight in moves)
        if abs(total - 1) > TOLERANCE:
            raise InvalidInputError(
                f"transitions: expected weights with the sum 1, one electron, got {total:g}"
            )

    @property
    def name(self) -> str:
        """In words, for the state of a label: "singlet HOMO->LUMO"."""
        moves = [
            f"{a}->{b}" + ("" if len(self.transitions) == 1 else f" {w:g}")
            for a, b, w in self.transitions
        ]
        return f"{self.multiplicity} {', '.join(moves)}"

    def populations(
        self, occupied: int, orbitals: int
    ) -> tuple[dict[int, float], dict[int, float]]:
        """How much of an electron leaves and enters each orbital.

        Args:
            occupied: number of occupied orbitals of the ground state.
            orbitals: number of orbitals.

        Returns:
            Index -> part of an electron, for those that lose and those that gain.

        Raises:
            InvalidInputError: an orbital that does not exist, or is not occupied (from), or not
                empty (to).
        """
        lose: dict[int, float] = {}
        gain: dict[int, float] = {}
        for first, second, weight in self.transitions:
            i, a = _offset(first, occupied), _offset(second, occupied)
            if not 0 <= i < occupied:
                raise InvalidInputError(
                    f"transitions: expected to leave an occupied orbital (0 to {occupied - 1}), "
                    f"got {first!r}"
                )
            if not occupied <= a < orbitals:
                raise InvalidInputError(
                    f"transitions: expected to enter an empty orbital ({occupied} to "
                    f"{orbitals - 1}), got {second!r}"
                )
            lose[i] = lose.get(i, 0.0) + weight
            gain[a] = gain.get(a, 0.0) + weight
        return lose, gain


@dataclass(frozen=True)
class FrozenOrbitals:
    """Orbitals of one spin that keep their shape and population, and the space of the others.

    Attributes:
        orbitals: [nao, k] coefficients.
        populations: [k] electrons in each.
        others: [nao, m] orthonormal coefficients of the rest.
    """

    orbitals: NDArray
    populations: NDArray
    others: NDArray

    @classmethod
    def among(cls, coefficients: NDArray, populations: Mapping[int, float]) -> FrozenOrbitals:
        """Freeze some of a complete set of orbitals.

        Args:
            coefficients: [nao, nmo] orthonormal orbitals.
            populations: index -> electrons.

        Returns:
            The frozen orbitals, with the others as the space of the rest.
        """
        index = sorted(populations)
        rest = np.setdiff1d(np.arange(coefficients.shape[1]), index)
        values = np.array([populations[i] for i in index], dtype=float)
        return cls(coefficients[:, index], values, coefficients[:, rest])

    def diagonalise(self, fock: NDArray) -> tuple[NDArray, NDArray]:
        """Orbitals of the rest by energy, and behind them the frozen ones.

        Args:
            fock: [nao, nao] in Hartree.

        Returns:
            Energies [m + k] (expectation values of the frozen ones) and coefficients.
        """
        energies, turn = np.linalg.eigh(self.others.T @ fock @ self.others)
        expected = np.einsum("pk,pq,qk->k", self.orbitals, fock, self.orbitals)
        coefficients = np.hstack([self.others @ turn, self.orbitals])
        return np.concatenate([energies, expected]), coefficients

    def occupations(self, electrons: int) -> NDArray:
        """Electrons of the orbitals of `diagonalise`: the lowest of the rest are filled.

        Args:
            electrons: of this spin.

        Returns:
            [m + k].
        """
        filled = np.zeros(self.others.shape[1])
        filled[: round(electrons - self.populations.sum())] = 1.0
        return np.concatenate([filled, self.populations])

    def project(self, fock: NDArray, overlap: NDArray) -> NDArray:
        """The Fock matrix without what would turn frozen orbitals into others.

        Args:
            fock: [nao, nao] in Hartree.
            overlap: [nao, nao].

        Returns:
            [nao, nao].
        """
        energies, coefficients = self.diagonalise(fock)
        dual = overlap @ coefficients
        return (dual * energies) @ dual.T


def _offset(name: Orbital, occupied: int) -> int:
    """Index of an orbital."""
    if isinstance(name, (int, np.integer)) and not isinstance(name, bool):
        return int(name)
    match = _NAME.match(name) if isinstance(name, str) else None
    if match is None:
        raise InvalidInputError(
            "transitions: expected an orbital such as 'HOMO', 'HOMO-1', 'LUMO+2' or an index, "
            f"got {name!r}"
        )
    edge = occupied - 1 if match["edge"] == "HOMO" else occupied
    return edge + int(match["shift"] or 0)
