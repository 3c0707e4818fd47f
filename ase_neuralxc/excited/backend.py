"""Excited states of molecules by transition-based constrained DFT.

The orbitals between which electrons move are frozen at their shape in the ground state, with the
populations that the constraint demands; all others relax. That is the limit of a strong constraint
of Stella, Thapa, Genovese and Ratcliff, JCTC 18, 3027 (2022), reached without a multiplier. Unlike
a Delta-SCF calculation it cannot fall back to the ground state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from ase_neuralxc.backend.ladder import DIIS, EnergyDIIS
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend, converge, itemise
from ase_neuralxc.backend.protocol import EnergyTerm
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution, SCFAttempt
from ase_neuralxc.backend.system import System, build_mole
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.excited.transition import FrozenOrbitals, TransitionConstraint
from ase_neuralxc.functional.protocol import XCFunctional

#: Strategies that ask the host for orbitals, and do not rotate them on their own.
STRATEGIES = (
    DIIS("diis"),
    DIIS("damped", damp=0.5, space=12),
    DIIS("level-shift", level_shift=0.3, space=12),
    EnergyDIIS(),
)


@dataclass(frozen=True, kw_only=True)
class ExcitedSolution(KSSolution):
    """A constrained excited state, with the ground state from which its electrons moved.

    Orbitals and host are those of the determinant with one spin moved (of the triplet, if that is
    asked for). Energies and density of a singlet are twice those of that determinant less those of
    the triplet.

    Attributes:
        ground: solution of the ground state, without its host object.
    """

    ground: KSSolution

    @property
    def excitation_energy(self) -> float:
        """Vertical excitation energy in Hartree."""
        return self.energy - self.ground.energy

    @property
    def restart(self) -> Any:
        """Density of the ground state."""
        return self.ground.restart


class TransitionBackend:
    """`KSBackend` for the state that a constraint describes.

    Args:
        host: solves the ground state.
        constraint: which electrons have moved.
    """

    def __init__(self, host: MolecularBackend, constraint: TransitionConstraint) -> None:
        self.host = host
        self.constraint = constraint
        self.name = host.name

    def solve(
        self,
        system: System,
        functional: XCFunctional | LibxcFunctional,
        settings: KSSettings,
        terms: Sequence[EnergyTerm] = (),
        guess: NDArray | None = None,
    ) -> ExcitedSolution:
        """Converge the ground state, then the constrained determinants.

        Args:
            system: atoms and the spin state of the ground state.
            functional: any functional that the host takes.
            settings: basis, grid, tolerances.
            terms: additive energy terms.
            guess: density matrix of the ground state to start from, or None.

        Returns:
            The excited state.

        Raises:
            InvalidInputError: orbitals that do not fit, a solvent, ROKS, or a singlet or triplet
                of an open shell.
            SCFNotConverged: the ground state or a determinant did not converge.
        """
        if settings.solvent is not None:
            raise InvalidInputError(
                "solvent: expected None with an excitation; a solvent in equilibrium with the "
                f"excited state is not what a vertical transition sees, got {settings.solvent!r}"
            )
        ground = self.host.solve(system, functional, settings, terms, guess)
        wanted = self.constraint.multiplicity
        if ground.reference == "roks" or (ground.reference != "rks" and wanted != "mixed"):
            raise InvalidInputError(
                f"excitation: expected a closed-shell ground state (RKS) for a {wanted}, or UKS "
                f"for multiplicity='mixed', got {ground.reference.upper()}"
            )

        def determinant(triplet: bool) -> tuple[Any, tuple[SCFAttempt, ...], dict[str, float]]:
            return self._determinant(ground, functional, settings, terms, triplet)

        mf, history, energies = determinant(wanted == "triplet")
        density = np.asarray(mf.make_rdm1())
        if wanted == "singlet":
            other, more, theirs = determinant(True)
            history += more
            energies = {name: 2 * energies[name] - theirs[name] for name in energies}
            density = 2 * density.sum(axis=0) - np.asarray(other.make_rdm1()).sum(axis=0)
        unpaired = {"singlet": 0, "triplet": 2}.get(wanted, ground.system.spin_state.pyscf_spin)
        state = replace(ground.system.spin_state, n_unpaired=unpaired, target=self.constraint.name)
        return ExcitedSolution(
            system=replace(ground.system, spin_state=state),
            settings=settings,
            reference="rks" if wanted == "singlet" else "uks",
            energies=energies,
            density_matrix=density,
            mo_energy=np.asarray(mf.mo_energy),
            mo_coeff=np.asarray(mf.mo_coeff),
            mo_occ=np.asarray(mf.mo_occ),
            history=ground.history + history,
            host=mf,
            sizes=ground.sizes,
            ground=replace(ground, host=None),
        )

    def forces(self, solution: KSSolution) -> NDArray:
        """Refused: the frozen orbitals change with the geometry, and their response is not here.

        Args:
            solution: an excited state.

        Returns:
            Nothing.

        Raises:
            InvalidInputError: always.
        """
        raise InvalidInputError(
            "forces: not available with an excitation, whose frozen orbitals change with the "
            "geometry; only energies, dipoles and populations are"
        )

    def properties(self, solution: ExcitedSolution) -> dict[str, Any]:
        """What the host gives, and "excitation_energy" in Hartree."""
        return {
            **self.host.properties(solution),
            "excitation_energy": solution.excitation_energy,
        }

    def spectrum(self, solution: ExcitedSolution) -> dict[str, Any]:
        """Levels of the ground state, as the host gives them."""
        return self.host.spectrum(solution.ground)

    def _determinant(
        self,
        ground: KSSolution,
        functional: Any,
        settings: KSSettings,
        terms: Sequence[EnergyTerm],
        triplet: bool,
    ) -> tuple[Any, tuple[SCFAttempt, ...], dict[str, float]]:
        """One constrained determinant: its host object, history and energies."""
        frozen, electrons = self._frozen(ground, triplet)
        state = replace(ground.system.spin_state, n_unpaired=electrons[0] - electrons[1])
        mol = build_mole(replace(ground.system, spin_state=state), settings)
        template = self.host.mean_field(mol, functional, settings, "uks", terms)
        template.grids = ground.host.grids
        template = lib.set_class(template, (_WithFrozenOrbitals, template.__class__))
        template.frozen_orbitals = frozen

        start = []
        for space, count in zip(frozen, electrons, strict=True):
            # the others of the ground state are sorted by their energy in it
            orbitals = np.hstack([space.others, space.orbitals])
            start.append((orbitals * space.occupations(count)) @ orbitals.T)
        mf, history = converge(template, np.array(start), STRATEGIES)
        name = "triplet" if triplet else "mixed"
        history = tuple(replace(a, strategy=f"{name}: {a.strategy}") for a in history)
        density = np.asarray(mf.make_rdm1())
        return mf, history, itemise(mf, mol, density, terms)

    def _frozen(
        self, ground: KSSolution, triplet: bool
    ) -> tuple[tuple[FrozenOrbitals, FrozenOrbitals], tuple[int, int]]:
        """Frozen orbitals of both spins, and the electrons of each."""
        coefficients = np.asarray(ground.mo_coeff)
        spins = coefficients if coefficients.ndim == 3 else np.stack([coefficients] * 2)
        up, down = (int(n) for n in ground.host.mol.nelec)
        lose, gain = self.constraint.populations(up, spins.shape[2])
        kept = {i: 1 - part for i, part in lose.items()}
        if triplet:
            moved = (FrozenOrbitals.among(spins[0], gain), FrozenOrbitals.among(spins[1], kept))
            return moved, (up + 1, down - 1)
        moved = (
            FrozenOrbitals.among(spins[0], {**kept, **gain}),
            FrozenOrbitals.among(spins[1], {}),
        )
        return moved, (up, down)


class _WithFrozenOrbitals:
    """Mean-field mixin in which some orbitals keep their shape and population."""

    __name_mixin__ = "WithFrozenOrbitals"
    _keys = {"frozen_orbitals"}
    frozen_orbitals: tuple[FrozenOrbitals, FrozenOrbitals]

    def get_fock(
        self,
        h1e: NDArray | None = None,
        s1e: NDArray | None = None,
        vhf: NDArray | None = None,
        dm: NDArray | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> NDArray:
        """Fock matrices without the rotations that the constraint forbids."""
        mf: Any = self
        dm = mf.make_rdm1() if dm is None else dm
        h1e = mf.get_hcore() if h1e is None else h1e
        s1e = mf.get_ovlp() if s1e is None else s1e
        vhf = mf.get_veff(mf.mol, dm) if vhf is None else vhf
        allowed = [
            space.project(fock, s1e)
            for space, fock in zip(self.frozen_orbitals, h1e + np.asarray(vhf), strict=True)
        ]
        fock = super().get_fock(h1e, s1e, np.array(allowed) - h1e, dm, *args, **kwargs)  # type: ignore[misc]
        return np.asarray(fock)

    def eig(self, fock: NDArray, overlap: NDArray, *_: Any, **__: Any) -> tuple[NDArray, NDArray]:
        """Orbitals of both spins, the frozen ones last."""
        pairs = [s.diagonalise(f) for s, f in zip(self.frozen_orbitals, fock, strict=True)]
        return np.array([energy for energy, _ in pairs]), np.array([c for _, c in pairs])

    def get_occ(self, mo_energy: Any = None, mo_coeff: Any = None) -> NDArray:
        """Occupations in the order of `eig`."""
        electrons = self.mol.nelec  # type: ignore[attr-defined]
        return np.array(
            [s.occupations(n) for s, n in zip(self.frozen_orbitals, electrons, strict=True)]
        )
