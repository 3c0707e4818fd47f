"""What a converged calculation leaves behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ase_neuralxc.backend.system import System


@dataclass(frozen=True)
class SCFAttempt:
    """One strategy of the ladder, tried once.

    Attributes:
        strategy: name of the strategy.
        converged: whether it met both tolerances.
        cycles: iterations (macro-iterations for second-order methods).
        energy: last energy in Hartree.
        gradient_norm: norm of the orbital gradient at the end.
        seconds: wall time.
    """

    strategy: str
    converged: bool
    cycles: int
    energy: float
    gradient_norm: float
    seconds: float


@dataclass(frozen=True)
class KSSolution:
    """A converged Kohn-Sham solution; there is no such object for an unconverged one.

    Attributes:
        system: atoms and resolved spin state.
        settings: the settings it was solved with, in the host's own record.
        reference: "rks", "uks" or "roks".
        energies: Hartree, itemised: "total", "nuclear", "core", "coulomb", "xc", "solvent" and one
            entry per additional term; "total" is their sum. With smearing, "free" is the Mermin
            free energy and "total" the extrapolation to zero smearing, with the sum of the parts
            and the "entropy" term -TS/2 in it.
        density_matrix: [nao, nao], or [2, nao, nao] for two spins; periodic hosts have an axis of
            k-points before the orbitals, and None where they keep no density matrix.
        mo_energy: orbital energies in Hartree.
        mo_coeff: orbital coefficients, or None where the host keeps none.
        mo_occ: occupations.
        history: every attempt of the ladder, the last one converged.
        host: the host's own object, for derivatives and response.
        sizes: resolved sizes for the provenance, for example "n_basis_functions".
    """

    system: System
    settings: Any
    reference: str
    energies: dict[str, float]
    density_matrix: Any
    mo_energy: NDArray
    mo_coeff: Any
    mo_occ: NDArray
    history: tuple[SCFAttempt, ...]
    host: Any = field(repr=False, compare=False)
    sizes: dict[str, int] = field(default_factory=dict)

    @property
    def energy(self) -> float:
        """Total energy in Hartree, extrapolated to zero smearing."""
        return self.energies["total"]

    @property
    def free_energy(self) -> float:
        """Mermin free energy in Hartree; forces and stress are its derivatives."""
        return self.energies.get("free", self.energies["total"])

    @property
    def restart(self) -> Any:
        """What the same host takes as `guess`: the density matrix, or else its own object."""
        return self.host if self.density_matrix is None else self.density_matrix

    @property
    def cycles(self) -> int:
        """SCF cycles over all attempts."""
        return sum(attempt.cycles for attempt in self.history)
