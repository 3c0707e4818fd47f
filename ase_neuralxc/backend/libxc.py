"""Functionals of libxc, run by the host itself: the peer of every comparison."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyscf.dft import libxc

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional

PREFIX = "libxc:"


@dataclass(frozen=True)
class LibxcFunctional:
    """A functional by its PySCF/libxc name, evaluated by the host without torch.

    Attributes:
        xc_code: PySCF's description, for example "pbe" or "b3lyp".

    Raises:
        InvalidInputError: libxc has no such functional.
    """

    xc_code: str

    def __post_init__(self) -> None:
        try:
            libxc.parse_xc(self.xc_code)
        except (KeyError, ValueError) as error:
            raise InvalidInputError(
                f"xc: expected a functional known to libxc after {PREFIX!r}, got {self.xc_code!r}"
            ) from error

    @property
    def name(self) -> str:
        """Name for reports and the fidelity tag."""
        return PREFIX + self.xc_code

    @property
    def exchange_fraction(self) -> float:
        """Fraction of exact exchange."""
        return float(libxc.hybrid_coeff(self.xc_code))


def find_functional(spec: Any) -> Any:
    """A functional of libxc or of torch, from what a user writes.

    Args:
        spec: "libxc:NAME" in any case, a `LibxcFunctional`, or whatever `load_functional` takes.

    Returns:
        The functional.

    Raises:
        InvalidInputError: there is no such functional.
    """
    if isinstance(spec, LibxcFunctional):
        return spec
    if isinstance(spec, str) and spec.lower().startswith(PREFIX):
        return LibxcFunctional(spec[len(PREFIX) :])
    return load_functional(spec)
