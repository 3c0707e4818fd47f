"""Numerical settings of a plane-wave calculation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ase_neuralxc.backend.clamps import DensityClamps
from ase_neuralxc.backend.gpaw.radial import RULE
from ase_neuralxc.backend.kpoints import KPoints, check_kpoints, describe_kpoints
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.settings import rule
from ase_neuralxc.errors import InvalidInputError, unknown_name

REFERENCES = ("auto", "rks", "uks")
_POSITIVE = ("ecut", "conv_tol", "conv_tol_density", "conv_tol_eigenstates", "vacuum")


@dataclass(frozen=True)
class GPAWSettings:
    """How GPAW solves the Kohn-Sham equations: plane waves and PAW.

    Attributes:
        ecut: plane-wave cutoff in eV.
        kpts: None for Gamma, three numbers, or a mapping with "density" (points per inverse
            Angstrom) or "size", and "gamma".
        smearing: k_B T of Fermi-Dirac occupations in eV, or None.
        reference: "rks", "uks", or "auto": spin-polarised with unpaired electrons or initial
            magnetic moments.
        setups: PAW data by GPAW's name, or a mapping element -> name.
        clamps: bounds of the density that the functional sees, or None; "auto": the default
            bounds for torch functionals, none for functionals of libxc.
        symmetry: reduce the k-points, and symmetrise density and forces, by the symmetry of the
            initial structure with its moments.
        dipole_layer: cancel the dipole of a slab that is not periodic along z only. Molecules,
            which have no such direction, ignore it.
        vacuum: Angstrom on each side of a molecule that comes without a cell.
        nbands: number of bands, or None for GPAW's choice.
        conv_tol: energy convergence in Hartree.
        conv_tol_density: density convergence in electrons per valence electron.
        conv_tol_eigenstates: squared residual of the orbitals in eV^2 per valence electron.
        max_cycle: cycles of each strategy of the SCF ladder.
        device: torch device on which the functional is evaluated.
    """

    ecut: float = 400.0
    kpts: KPoints = None
    smearing: float | None = None
    reference: str = "auto"
    setups: str | Mapping[str, str] = "paw"
    clamps: DensityClamps | str | None = "auto"
    symmetry: bool = True
    dipole_layer: bool = False
    vacuum: float = 5.0
    nbands: int | None = None
    conv_tol: float = 1e-6
    conv_tol_density: float = 3e-6
    conv_tol_eigenstates: float = 2e-8
    max_cycle: int = 100
    device: str = "cpu"

    #: For the provenance of labels.
    packages: ClassVar[tuple[str, ...]] = ("gpaw", "gpaw-data")

    def __post_init__(self) -> None:
        check_kpoints(self.kpts)
        for name in _POSITIVE:
            _positive(name, getattr(self, name))
        if self.smearing is not None:
            _positive("smearing", self.smearing)
        if self.reference not in REFERENCES:
            raise unknown_name("reference", str(self.reference), REFERENCES)
        if self.max_cycle < 1:
            raise InvalidInputError(f"max_cycle: expected at least 1, got {self.max_cycle!r}")
        if self.nbands is not None and self.nbands < 1:
            raise InvalidInputError(f"nbands: expected at least 1, got {self.nbands!r}")
        if not (self.clamps in ("auto", None) or isinstance(self.clamps, DensityClamps)):
            raise InvalidInputError(
                f"clamps: expected DensityClamps, None or 'auto', got {self.clamps!r}"
            )

    def fidelity(self, functional: Any) -> dict[str, Any]:
        """Fields of the fidelity tag that these settings decide.

        Args:
            functional: the functional they are used with.

        Returns:
            Field name -> value.
        """
        sampling, density = describe_kpoints(self.kpts)
        clamps = self.clamps_for(functional)
        native = clamps is None and isinstance(functional, LibxcFunctional)
        grid = f"k-points {sampling}" + (", dipole layer" if self.dipole_layer else "")
        return {
            "host": "gpaw",
            "basis": f"plane waves {self.ecut:g} eV",
            "ecp": f"PAW PBE {rule(self.setups)}",
            "grid": grid if native else f"{grid}, one-centre points {RULE}",
            "kpoint_density": density,
            "density_clamps": None if clamps is None else clamps.rule,
            "smearing_ev": self.smearing,
        }

    def clamps_for(self, functional: Any) -> DensityClamps | None:
        """The bounds that hold for a functional: those asked for, or the default of its kind."""
        if isinstance(self.clamps, str):
            return None if isinstance(functional, LibxcFunctional) else DensityClamps()
        return self.clamps

    @property
    def guess_key(self) -> tuple[str, ...]:
        """What an earlier calculation must agree in to be continued."""
        return (str(self.ecut), str(self.setups), self.reference)


def _positive(name: str, value: Any) -> None:
    if not (isinstance(value, (int, float)) and 0 < value < math.inf):
        raise InvalidInputError(f"{name}: expected a positive number, got {value!r}")
