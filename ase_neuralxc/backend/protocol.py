"""Contracts between hosts, energy terms and everything that uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.functional.protocol import XCFunctional


class EnergyTerm(Protocol):
    """An additive contribution E_t to the total energy, with its Fock operator dE_t/dD.

    `forces` is the explicit part, -dE_t/dR at fixed density-matrix coefficients; the response of
    the orbitals is covered by the energy-weighted density because the operator is in the Fock
    matrix. Terms without an operator are functions of the geometry alone.
    """

    name: str

    def energy(self, mol: Any, density_matrix: NDArray) -> float:
        """Energy in Hartree; `density_matrix` is [nao, nao] or [2, nao, nao]."""
        ...

    def ao_operator(self, mol: Any, density_matrix: NDArray) -> NDArray | None:
        """dE/dD, [nao, nao] or [2, nao, nao], or None for a term of the geometry alone."""
        ...

    def forces(self, mol: Any, density_matrix: NDArray) -> NDArray:
        """Explicit forces, [n_atoms, 3] in Hartree/Bohr."""
        ...


class KSBackend(Protocol):
    """A host that solves the Kohn-Sham equations."""

    def solve(
        self,
        system: System,
        functional: XCFunctional,
        settings: KSSettings,
        terms: Sequence[EnergyTerm] = (),
        guess: NDArray | None = None,
    ) -> KSSolution:
        """Converge the SCF or raise `SCFNotConverged`; `guess` is a density matrix."""
        ...

    def forces(self, solution: KSSolution) -> NDArray:
        """Analytic forces, [n_atoms, 3] in Hartree/Bohr."""
        ...
