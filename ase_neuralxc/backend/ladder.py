"""The SCF ladder: strategies tried in order until one converges, each attempt on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

from ase_neuralxc.backend.solution import SCFAttempt
from ase_neuralxc.errors import SCFNotConverged

#: Fermi-Dirac widths (Hartree) of the annealing strategy.
ANNEALING = (0.04, 0.015, 0.005)
#: Largest number of instabilities that are followed.
MAX_DESCENTS = 4


class Strategy(Protocol):
    """One way to run the self-consistent field."""

    @property
    def name(self) -> str:
        """Name in the history."""
        ...

    def applies(self, mf: Any) -> bool:
        """Whether the host can run this strategy for this kind of calculation."""
        ...

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Run on a fresh host object; return the object that holds the result, and the cycles."""
        ...


@dataclass(frozen=True)
class DIIS:
    """Pulay's DIIS, with optional damping and level shift (Hartree) before or during it."""

    name: str
    damp: float = 0.0
    level_shift: float = 0.0
    start_cycle: int = 1
    space: int = 8

    def applies(self, mf: Any) -> bool:
        """PySCF has no damping for restricted open shells."""
        return not (self.damp and isinstance(mf, scf.rohf.ROHF))

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Run DIIS; the final diagonalisation is free of shift and damping."""
        mf.level_shift = self.level_shift
        mf.diis_space = self.space
        mf.diis_start_cycle = self.start_cycle
        if self.damp:
            mf.damp = self.damp
            mf.diis_start_cycle = max(self.start_cycle, 6)
        mf.kernel(dm0=guess)
        mf.level_shift = 0.0
        return mf, mf.cycles


@dataclass(frozen=True)
class EnergyDIIS:
    """ADIIS (Hu and Yang, JCP 132, 054109 (2010)), robust far from convergence."""

    name: str = "adiis"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """A few ADIIS cycles to reach the basin, then plain DIIS."""
        far = mf.copy()
        far.diis = scf.diis.ADIIS(far)
        far.max_cycle, far.conv_tol, far.conv_tol_grad = 20, 1e-4, 1e-1
        far.kernel(dm0=guess)
        mf.kernel(dm0=far.make_rdm1())
        return mf, far.cycles + mf.cycles


@dataclass(frozen=True)
class SecondOrder:
    """Co-iterative augmented Hessian (Sun, arXiv:1610.08423)."""

    name: str = "second-order"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Newton-Raphson macro-iterations from the orbitals of the guess."""
        newton = mf.newton()
        newton.max_cycle = max(mf.max_cycle, 60)
        macro = []
        newton.callback = lambda environment: macro.append(1)
        newton.kernel(dm0=guess)
        newton.callback = None
        return newton, len(macro)


@dataclass(frozen=True)
class Annealing:
    """Fermi-Dirac smearing lowered in steps, then second order with integer occupations."""

    name: str = "annealing"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Anneal the density, then converge without smearing."""
        density = guess
        cycles = 0
        for width in ANNEALING:
            warm = scf.addons.smearing(mf.copy(), sigma=width, method="fermi")
            warm.max_cycle, warm.conv_tol, warm.conv_tol_grad = 25, 1e-5, 1e-2
            warm.kernel(dm0=density)
            density = np.asarray(warm.make_rdm1())
            cycles += warm.cycles
        cold, macro = SecondOrder().run(mf, density)
        return cold, cycles + macro


DEFAULT_LADDER: tuple[Strategy, ...] = (
    DIIS("diis"),
    DIIS("damped", damp=0.5, space=12),
    DIIS("level-shift", level_shift=0.3, space=12),
    EnergyDIIS(),
    SecondOrder(),
    Annealing(),
)


def climb(
    make: Callable[[], Any],
    guess: NDArray,
    ladder: Sequence[Strategy] = DEFAULT_LADDER,
    follow_instabilities: Callable[[Any, int], bool] = lambda mf, attempts: False,
) -> tuple[Any, tuple[SCFAttempt, ...]]:
    """Try strategies until one converges.

    Args:
        make: builds a fresh host object.
        guess: starting density matrix.
        ladder: strategies, cheapest first.
        follow_instabilities: given the converged host object and the number of attempts, whether
            to test the internal stability and descend along an unstable mode.

    Returns:
        The converged host object and the history.

    Raises:
        SCFNotConverged: with the history, if no strategy converged.
    """
    history: list[SCFAttempt] = []
    for strategy in ladder:
        fresh = make()
        if not strategy.applies(fresh):
            continue
        mf = _attempt(strategy, fresh, guess, history)
        if mf.converged:
            if follow_instabilities(mf, len(history)):
                mf = _descend(mf, make, history)
            return mf, tuple(history)
    tried = "; ".join(
        f"{a.strategy}: {a.cycles} cycles, E = {a.energy:.8f} Ha, |g| = {a.gradient_norm:.1e}"
        for a in history
    )
    raise SCFNotConverged(f"the SCF did not converge with any strategy ({tried})", history)


def _attempt(strategy: Strategy, mf: Any, guess: NDArray, history: list[SCFAttempt]) -> Any:
    start = time.perf_counter()
    mf, cycles = strategy.run(mf, guess)
    gradient = mf.get_grad(mf.mo_coeff, mf.mo_occ)
    history.append(
        SCFAttempt(
            strategy=strategy.name,
            converged=bool(mf.converged),
            cycles=cycles,
            energy=float(mf.e_tot),
            gradient_norm=float(np.linalg.norm(gradient)),
            seconds=time.perf_counter() - start,
        )
    )
    return mf


def _descend(mf: Any, make: Callable[[], Any], history: list[SCFAttempt]) -> Any:
    """Follow internal instabilities downhill; keeps the last converged solution."""
    for _ in range(MAX_DESCENTS):
        orbitals, _, stable, _ = mf.stability(internal=True, external=False, return_status=True)
        if stable:
            break
        density = mf.make_rdm1(orbitals, mf.mo_occ)
        lower = _attempt(SecondOrder("stability"), make(), np.asarray(density), history)
        if not lower.converged or lower.e_tot > mf.e_tot - 1e-7:
            break
        mf = lower
    return mf
