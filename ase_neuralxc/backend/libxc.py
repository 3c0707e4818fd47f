"""Functionals of libxc, run by the host itself: the peer of every comparison."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
        vv10: whether the nonlocal correlation (VV10) of a functional that has it is included.

    Raises:
        InvalidInputError: libxc has no such functional.
    """

    xc_code: str
    vv10: bool = True

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
        left_out = libxc.is_nlc(self.xc_code) and not self.vv10
        return PREFIX + self.xc_code + (" without VV10" if left_out else "")

    @property
    def exchange_fraction(self) -> float:
        """Fraction of exact exchange."""
        return float(libxc.hybrid_coeff(self.xc_code))

    @property
    def dispersion(self) -> str:
        """Name of the damping of D3 and D4: that of B97M-V, say, is published as that of b97m."""
        if not libxc.is_nlc(self.xc_code):
            return self.xc_code
        return self.xc_code.lower().replace("-", "").replace("_", "").removesuffix("v")

    @property
    def has_vv10(self) -> bool:
        """Whether nonlocal correlation is part of the energy."""
        return self.vv10 and bool(libxc.is_nlc(self.xc_code))

    def without_vv10(self) -> LibxcFunctional:
        """The semi-local part: what dispersion corrections like B97M-D3(BJ) are added to."""
        return replace(self, vv10=False) if self.has_vv10 else self

    def refuse_vv10(self, host: str) -> None:
        """Say that a host has no nonlocal correlation.

        Args:
            host: what to call it.

        Raises:
            InvalidInputError: the functional has VV10.
        """
        if self.has_vv10:
            raise InvalidInputError(
                f"xc: expected a functional without nonlocal correlation for {host}, got "
                f"{self.name!r}; with dispersion='d3bj' or 'd4' the correction takes its place"
            )


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
