"""Numerical settings of a Kohn-Sham calculation, in one frozen record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase_neuralxc.errors import InvalidInputError, unknown_name

REFERENCES = ("auto", "rks", "uks", "roks")


def check_grid_level(name: str, level: int) -> None:
    """Refuse what is none of PySCF's grid levels.

    Args:
        name: of the setting.
        level: its value.

    Raises:
        InvalidInputError: it is not an integer from 0 to 9.
    """
    if not isinstance(level, int) or not 0 <= level <= 9:
        raise InvalidInputError(f"{name}: expected an integer from 0 to 9, got {level!r}")


@dataclass(frozen=True)
class KSSettings:
    """How to solve the Kohn-Sham equations of a molecule.

    Attributes:
        basis: PySCF basis name, or a mapping element -> name.
        ecp: effective core potential, name or mapping; "auto" takes the one that belongs to the
            basis for every element that has one; None forbids it (all-electron).
        density_fit: expand the density in an auxiliary basis.
        auxbasis: auxiliary basis; None takes the one that belongs to the basis (J and K fitting).
        reference: "rks", "uks", "roks", or "auto": RKS without unpaired electrons or initial
            magnetic moments, else UKS.
        grid_level: PySCF's grid level, 0 to 9.
        grid_response: differentiate the quadrature grid in forces.
        conv_tol: energy convergence in Hartree.
        conv_tol_grad: orbital-gradient convergence; None means sqrt(conv_tol).
        max_cycle: cycles of each strategy of the SCF ladder.
        stability: follow internal instabilities: "auto" (where the start was hard or the system
            is open-shell with d electrons), "always", "never".
        solvent: implicit solvent by name for SMD, "pcm:EPS" for a continuum of dielectric
            constant EPS, or None.
        electric_field: homogeneous field in V/Angstrom, three numbers, or None.
        device: torch device on which the functional is evaluated.
        max_memory: PySCF's memory budget in MB.
    """

    basis: str | Mapping[str, str] = "def2-svp"
    ecp: str | Mapping[str, str] | None = "auto"
    density_fit: bool = False
    auxbasis: str | Mapping[str, str] | None = None
    reference: str = "auto"
    grid_level: int = 3
    grid_response: bool = True
    conv_tol: float = 1e-9
    conv_tol_grad: float | None = None
    max_cycle: int = 50
    stability: str = "auto"
    solvent: str | None = None
    electric_field: tuple[float, float, float] | None = None
    device: str = "cpu"
    max_memory: float = 4000.0

    def __post_init__(self) -> None:
        if self.reference not in REFERENCES:
            raise unknown_name("reference", str(self.reference), REFERENCES)
        if self.stability not in ("auto", "always", "never"):
            raise unknown_name("stability", str(self.stability), ("auto", "always", "never"))
        check_grid_level("grid_level", self.grid_level)
        if not self.conv_tol > 0:
            raise InvalidInputError(f"conv_tol: expected a positive energy, got {self.conv_tol!r}")
        if self.max_cycle < 1:
            raise InvalidInputError(f"max_cycle: expected at least 1, got {self.max_cycle!r}")
        if self.electric_field is not None and len(self.electric_field) != 3:
            raise InvalidInputError(
                f"electric_field: expected three numbers in V/Angstrom, got {self.electric_field!r}"
            )

    @property
    def gradient_tolerance(self) -> float:
        """Orbital-gradient tolerance that is used."""
        return self.conv_tol_grad if self.conv_tol_grad is not None else self.conv_tol**0.5

    def fidelity(self, functional: Any) -> dict[str, Any]:
        """Fields of the fidelity tag that these settings decide.

        Args:
            functional: the functional they are used with.

        Returns:
            Field name -> value.
        """
        auxbasis = rule(self.auxbasis or "basis default") if self.density_fit else None
        grid = f"pyscf level {self.grid_level}"
        return {
            "host": "pyscf",
            "basis": rule(self.basis),
            "ecp": rule(self.ecp or "none"),
            "auxbasis": auxbasis,
            "solvent": self.solvent,
            "grid": grid if self.grid_response else f"{grid}, no grid response",
            "external_field": self.electric_field,
        }

    @property
    def guess_key(self) -> tuple[str, str]:
        """What a density matrix of an earlier calculation must agree in to be a guess."""
        return str(self.basis), str(self.ecp)


def rule(value: str | Mapping[str, str]) -> str:
    """A choice as it was made, not what it resolves to for the elements of one structure."""
    return value if isinstance(value, str) else json.dumps(dict(value), sort_keys=True)
