"""The SCF ladder: strategies tried in order until one converges, each attempt on record.

A strategy that comes close hands its density to the next one; one that strays does not. What is
converged by the host's own judgement must also have a small orbital gradient.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pyscf import scf

from ase_neuralxc.backend.minimise import DirectMinimisation, minimise, orbitals_of
from ase_neuralxc.backend.orbital_gradient import gradient_norm
from ase_neuralxc.backend.solution import SCFAttempt
from ase_neuralxc.backend.stability import (
    LOWER,
    aufbau_violated,
    coarse_newton,
    downhill,
    has_second_derivatives,
)
from ase_neuralxc.errors import SCFNotConverged

#: Fermi-Dirac widths (Hartree) of the annealing strategy.
ANNEALING = (0.04, 0.015, 0.005)
#: Largest number of instabilities that are followed.
MAX_DESCENTS = 6
#: Orbital gradient below which an unconverged density is a better start than the initial guess.
CLOSE = 0.03
#: PySCF's kernels allow this factor over `conv_tol_grad` after their last diagonalisation.
GRADIENT_ALLOWANCE = 3.0


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
        """A few ADIIS cycles to reach the basin, then plain DIIS with the cycles that are left."""
        far = mf.copy()
        far.diis = scf.diis.ADIIS(far)
        far.max_cycle = max(1, min(20, mf.max_cycle // 2))
        far.conv_tol, far.conv_tol_grad = 1e-4, 1e-1
        far.kernel(dm0=guess)
        mf.max_cycle = max(1, mf.max_cycle - far.cycles)
        mf.kernel(dm0=far.make_rdm1())
        return mf, far.cycles + mf.cycles


@dataclass(frozen=True)
class SecondOrder:
    """Co-iterative augmented Hessian (Sun, arXiv:1610.08423), response on a coarse grid.

    Energies and gradients are those of the full grid, so that the grid of the Hessian changes the
    way but not the end.
    """

    name: str = "second-order"

    def applies(self, mf: Any) -> bool:
        """Whether the functional has second derivatives."""
        return has_second_derivatives(mf)

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Newton-Raphson macro-iterations from the orbitals of the guess."""
        newton = coarse_newton(mf)
        macro: list[int] = []
        newton.callback = lambda environment: macro.append(environment["imacro"])
        newton.kernel(*orbitals_of(mf, guess))
        newton.callback = None
        result = newton.undo_newton()
        if hasattr(mf, "grids"):
            result.grids = mf.grids
        return result, len(set(macro))


@dataclass(frozen=True)
class Annealing:
    """Fermi-Dirac smearing lowered in steps, then direct minimisation with integer occupations."""

    name: str = "annealing"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Anneal the density, then converge without smearing, half of the cycles each."""
        density = guess
        cycles = 0
        allowed = mf.max_cycle
        for width in ANNEALING:
            warm = self._warm(mf, width)
            warm.max_cycle = max(1, allowed // (2 * len(ANNEALING)))
            warm.conv_tol, warm.conv_tol_grad = 1e-5, 1e-2
            closed = warm.istype("RHF") and np.ndim(density) == 3
            warm.kernel(dm0=density[0] + density[1] if closed else density)
            density = np.asarray(warm.make_rdm1())
            cycles += warm.cycles
        mf.max_cycle = max(1, allowed - cycles)
        return mf, cycles + minimise(mf, *orbitals_of(mf, density))

    def _warm(self, mf: Any, width: float) -> Any:
        """The number of electrons of each spin is kept, except in ROKS, which anneals as RKS."""
        fixed = mf.istype("UHF")
        return scf.addons.smearing(mf.copy(), sigma=width, method="fermi", fix_spin=fixed)


DEFAULT_LADDER: tuple[Strategy, ...] = (
    DIIS("diis"),
    DirectMinimisation(),
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
        The converged host object and the history, whose last attempt gave it.

    Raises:
        SCFNotConverged: with the history, if no strategy converged.
    """
    history: list[SCFAttempt] = []
    start, closest = guess, CLOSE
    for strategy in ladder:
        fresh = make()
        if not strategy.applies(fresh):
            continue
        mf = _attempt(strategy, fresh, start, history)
        if history[-1].converged:
            if follow_instabilities(mf, len(history)):
                mf = _descend(mf, make, history)
            return mf, tuple(history)
        if history[-1].gradient_norm < closest:
            start, closest = np.asarray(mf.make_rdm1()), history[-1].gradient_norm
    tried = "; ".join(
        f"{a.strategy}: {a.cycles} cycles, E = {a.energy:.8f} Ha, |g| = {a.gradient_norm:.1e}"
        for a in history
    )
    raise SCFNotConverged(f"the SCF did not converge with any strategy ({tried})", history)


def _attempt(strategy: Strategy, mf: Any, guess: NDArray, history: list[SCFAttempt]) -> Any:
    start = time.perf_counter()
    # strategies spend the cycles of the host object that they are given
    allowed = GRADIENT_ALLOWANCE * (mf.conv_tol_grad or mf.conv_tol**0.5)
    mf.scf_summary = {}  # copies share it, and this attempt may not be the one that is kept
    mf, cycles = strategy.run(mf, guess)
    gradient = gradient_norm(mf)
    history.append(
        SCFAttempt(
            strategy=strategy.name,
            converged=bool(mf.converged) and gradient <= allowed,
            cycles=cycles,
            energy=float(mf.e_tot),
            gradient_norm=gradient,
            seconds=time.perf_counter() - start,
        )
    )
    return mf


def _descend(mf: Any, make: Callable[[], Any], history: list[SCFAttempt]) -> Any:
    """Follow internal instabilities downhill; the attempt that gave the result becomes the last."""
    best = len(history) - 1
    for _ in range(MAX_DESCENTS):
        for density in _ways_down(mf):
            lower = _minimise_from(density, make, history)
            if history[-1].converged and lower.e_tot < mf.e_tot - LOWER:
                mf, best = lower, len(history) - 1
                break
        else:
            break
    history.append(history.pop(best))
    return mf


def _ways_down(mf: Any) -> Iterator[NDArray]:
    """Densities from which the energy may fall below that of a converged solution."""
    if aufbau_violated(mf):
        yield np.asarray(mf.make_rdm1(mf.mo_coeff, mf.get_occ(mf.mo_energy, mf.mo_coeff)))
    if has_second_derivatives(mf):
        density = downhill(mf)
        if density is not None:
            yield density


def _minimise_from(density: NDArray, make: Callable[[], Any], history: list[SCFAttempt]) -> Any:
    lower = _attempt(DirectMinimisation("stability"), make(), density, history)
    if not history[-1].converged and has_second_derivatives(lower):
        density = np.asarray(lower.make_rdm1())
        lower = _attempt(SecondOrder("stability"), make(), density, history)
    return lower
