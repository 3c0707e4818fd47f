"""Vertical excitations from time-dependent density-functional theory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records import units


@dataclass(frozen=True)
class ExcitationResult:
    """Excited states, lowest first.

    Attributes:
        energies: [n] excitation energies in eV.
        oscillator_strengths: [n] dipole oscillator strengths (length gauge); zero for triplets.
        method: "TDA" or "TDDFT".
        manifold: "singlet", "triplet" or "spin-conserving" (unrestricted reference).
    """

    energies: NDArray
    oscillator_strengths: NDArray
    method: str
    manifold: str

    def table(self) -> str:
        """A readable table: state, energy in eV and nm, oscillator strength."""
        lines = [f"{self.method}, {self.manifold}", "state      E/eV      nm        f"]
        for i, (e, f) in enumerate(zip(self.energies, self.oscillator_strengths, strict=True), 1):
            lines.append(f"{i:5d} {e:9.4f} {units.EV_NM / e:7.1f} {f:8.4f}")
        return "\n".join(lines)


def excitations(
    calc: Any, atoms: Atoms, n_states: int = 5, tda: bool = True, triplets: bool = False
) -> ExcitationResult:
    """Vertical excitations of a molecule.

    Args:
        calc: a `NeuralXC` calculator (RKS or UKS).
        atoms: the molecule; its ground state is calculated if it has not been.
        n_states: number of states.
        tda: Tamm-Dancoff approximation instead of full TDDFT.
        triplets: triplet states of a closed shell.

    Returns:
        The states that were asked for.

    Raises:
        InvalidInputError: ROKS, triplets of an open shell, or n_states below 1.
        NeuralXCError: a root did not converge.
    """
    if n_states < 1:
        raise InvalidInputError(f"n_states: expected at least 1, got {n_states}")
    calc.get_potential_energy(atoms)
    solution = calc.solution
    if solution.reference == "roks":
        raise InvalidInputError("reference: TDDFT needs 'rks' or 'uks', got 'roks'")
    if triplets and solution.reference != "rks":
        raise InvalidInputError(
            "triplets: expected a closed-shell (RKS) ground state, got "
            f"{solution.reference.upper()}"
        )
    mf = first_order(solution.host)
    engine = mf.TDA() if tda else mf.TDDFT()
    engine.verbose = 0
    engine.nstates = n_states
    if solution.reference == "rks":
        engine.singlet = not triplets
    engine.kernel()
    if not np.all(engine.converged):
        raise NeuralXCError(
            f"{int(np.sum(~np.asarray(engine.converged)))} of {n_states} "
            "excited states did not converge"
        )
    strengths = np.zeros(len(engine.e)) if triplets else np.asarray(engine.oscillator_strength())
    manifold = "triplet" if triplets else "singlet"
    return ExcitationResult(
        energies=np.asarray(engine.e) * units.HARTREE_EV,
        oscillator_strengths=strengths,
        method="TDA" if tda else "TDDFT",
        manifold=manifold if solution.reference == "rks" else "spin-conserving",
    )
