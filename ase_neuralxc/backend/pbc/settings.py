"""Numerical settings of a periodic PySCF calculation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ase_neuralxc.backend.kpoints import KPoints, check_kpoints, describe_kpoints
from ase_neuralxc.backend.settings import rule
from ase_neuralxc.errors import InvalidInputError, unknown_name

REFERENCES = ("auto", "rks", "uks")
_POSITIVE = ("ecut", "vacuum", "conv_tol", "conv_tol_grad", "precision", "max_memory")


@dataclass(frozen=True)
class PeriodicSettings:
    """How to solve the Kohn-Sham equations of a crystal or slab with Gaussians and FFTs.

    Attributes:
        basis: family such as "gth-dzvp-molopt-sr", full CP2K name, or mapping element -> name.
        pseudo: family such as "gth-pbe", full CP2K name, or mapping element -> name; the number of
            valence electrons of a family is that of `pseudopotentials.VALENCE`.
        kpts: None for Gamma, three numbers, or a mapping with "density" (points per inverse
            Angstrom) or "size", and "gamma".
        smearing: k_B T of Fermi-Dirac occupations in eV, or None.
        ecut: kinetic-energy cutoff of the density grid in eV. What it has to be is set by the
            sharpest pseudopotential and basis function; a grid that misses electrons is an error.
        mesh: points of the grid along the lattice vectors instead of those that follow from
            `ecut`. Set it where the cell is strained: `ecut` would change the grid in jumps.
        reference: "rks", "uks", or "auto": UKS with unpaired electrons or initial magnetic
            moments, else RKS.
        vacuum: Angstrom on each side of a molecule that comes without a cell.
        conv_tol: energy convergence in Hartree.
        conv_tol_grad: orbital-gradient convergence. Crystals are soft: at 3e-5 the charges of Si
            are still wrong by 2e-4 e, and forces are of first order in that error.
        max_cycle: cycles of each strategy of the SCF ladder.
        precision: of lattice sums, as in PySCF.
        device: torch device on which the functional is evaluated.
        max_memory: PySCF's memory budget in MB.
    """

    basis: str | Mapping[str, str] = "gth-dzvp-molopt-sr"
    pseudo: str | Mapping[str, str] = "gth-pbe"
    kpts: KPoints = None
    smearing: float | None = None
    ecut: float = 5000.0
    mesh: tuple[int, int, int] | None = None
    reference: str = "auto"
    vacuum: float = 5.0
    conv_tol: float = 1e-9
    conv_tol_grad: float = 1e-6
    max_cycle: int = 50
    precision: float = 1e-8
    device: str = "cpu"
    max_memory: float = 4000.0

    def __post_init__(self) -> None:
        check_kpoints(self.kpts)
        for name in _POSITIVE:
            _positive(name, getattr(self, name))
        if self.smearing is not None:
            _positive("smearing", self.smearing)
        if self.reference not in REFERENCES:
            hint = " (PySCF's restricted open shells have no correct k-point forces)"
            error = unknown_name("reference", str(self.reference), REFERENCES)
            raise InvalidInputError(f"{error}{hint if self.reference == 'roks' else ''}")
        if self.max_cycle < 1:
            raise InvalidInputError(f"max_cycle: expected at least 1, got {self.max_cycle!r}")
        if self.mesh is not None:
            whole = all(isinstance(n, int) and n > 0 for n in self.mesh)
            if len(self.mesh) != 3 or not whole:
                raise InvalidInputError(
                    f"mesh: expected three positive integers, got {self.mesh!r}"
                )

    def fidelity(self, functional: Any) -> dict[str, Any]:
        """Fields of the fidelity tag that these settings decide.

        Args:
            functional: the functional they are used with.

        Returns:
            Field name -> value.
        """
        sampling, density = describe_kpoints(self.kpts)
        mesh = f"cutoff {self.ecut:g} eV" if self.mesh is None else f"mesh {tuple(self.mesh)}"
        return {
            "host": "pyscf-pbc",
            "basis": rule(self.basis),
            "ecp": rule(self.pseudo),
            "grid": f"{mesh}, k-points {sampling}",
            "kpoint_density": density,
            "smearing_ev": self.smearing,
        }

    @property
    def guess_key(self) -> tuple[str, ...]:
        """What a density matrix of an earlier calculation must agree in to be a guess."""
        return str(self.basis), str(self.pseudo), str(self.kpts), self.reference


def _positive(name: str, value: Any) -> None:
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise InvalidInputError(f"{name}: expected a positive number, got {value!r}")
