"""The spin state of a structure: one vocabulary for what hosts call spin, 2S or 2S+1."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.canonical import build, freeze

#: Collinear moments are numbers, noncollinear ones vectors, both in mu_B.
Magmoms = tuple[float, ...] | tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class SpinState:
    """Charge, unpaired electrons, initial magnetic moments and the state that is meant.

    Attributes:
        charge: total charge in e.
        n_unpaired: excess of spin-up over spin-down electrons (2S), or None where it follows from
            the moments or the electron count.
        magmoms: moment of each atom in mu_B, n signed numbers (collinear) or n vectors
            (noncollinear), or None.
        target: the state that is meant: "ground", or a name of an excited or constrained state.

    Raises:
        InvalidInputError: a value of the wrong type, a negative or fractional electron count.
    """

    charge: int = 0
    n_unpaired: int | None = None
    magmoms: Magmoms | None = None
    target: str = "ground"

    def __post_init__(self) -> None:
        object.__setattr__(self, "charge", _integer("charge", self.charge))
        if self.n_unpaired is not None:
            count = _integer("n_unpaired", self.n_unpaired)
            if count < 0:
                raise InvalidInputError(f"n_unpaired: expected at least 0, got {count}")
            object.__setattr__(self, "n_unpaired", count)
        if self.magmoms is not None:
            object.__setattr__(self, "magmoms", _moments(self.magmoms))
        if not isinstance(self.target, str) or not self.target:
            raise InvalidInputError(f"target: expected the name of a state, got {self.target!r}")

    @classmethod
    def from_multiplicity(cls, multiplicity: int, charge: int = 0) -> SpinState:
        """State with a given 2S+1.

        Args:
            multiplicity: 2S+1, at least 1.
            charge: total charge in e.

        Returns:
            A ground state without moments.

        Raises:
            InvalidInputError: the multiplicity is not a positive integer.
        """
        value = _integer("multiplicity", multiplicity)
        if value < 1:
            raise InvalidInputError(f"multiplicity: expected at least 1 (2S+1), got {value}")
        return cls(charge=charge, n_unpaired=value - 1)

    @property
    def multiplicity(self) -> int:
        """2S+1.

        Raises:
            InvalidInputError: the number of unpaired electrons was left open.
        """
        return self.pyscf_spin + 1

    @property
    def pyscf_spin(self) -> int:
        """2S, which is what PySCF calls spin.

        Raises:
            InvalidInputError: the number of unpaired electrons was left open; PySCF would read
                None as permission to guess.
        """
        if self.n_unpaired is None:
            raise InvalidInputError(
                "n_unpaired: expected a number of unpaired electrons, got None (not yet resolved)"
            )
        return self.n_unpaired

    @property
    def collinear(self) -> bool:
        """Whether the moments, if there are any, are signed numbers."""
        return not self.magmoms or not isinstance(self.magmoms[0], tuple)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> SpinState:
        """Inverse of `to_dict`; an unknown key raises, with the nearest valid name."""
        state: SpinState = build(cls, data, "SpinState field")
        return state


def _integer(name: str, value: Any) -> int:
    whole = isinstance(value, Integral) or (isinstance(value, Real) and float(value).is_integer())
    if isinstance(value, bool) or not whole:
        raise InvalidInputError(f"{name}: expected an integer, got {value!r}")
    return int(value)


def _moments(value: Any) -> Magmoms:
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.ndim != 1 and array.shape[1:] != (3,):
        raise InvalidInputError(
            f"magmoms: expected n numbers or n vectors in mu_B, got shape {array.shape}"
        )
    if array.size == 0 or array.dtype != float:
        raise InvalidInputError(f"magmoms: expected one moment per atom, got {value!r}")
    frozen: Magmoms = freeze("magmoms", array)
    return frozen
