"""Strategies for the self-consistent field of solids, cheapest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.ladder import DIIS, Strategy

#: Widths (Hartree) that the annealing passes through on its way to the one asked for.
ANNEALING = (0.05, 0.02, 0.008)


@dataclass(frozen=True)
class LevelShift:
    """DIIS with the empty levels moved up, which keeps nearly degenerate bands from swapping.

    Only with whole occupations: shifted levels would get other Fermi-Dirac occupations.
    """

    name: str = "level-shift"
    shift: float = 0.3

    def applies(self, mf: Any) -> bool:
        """Without smearing."""
        return not mf.sigma

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Converge, then take the shift out of the levels without mixing occupied and empty."""
        mf, cycles = DIIS(self.name, level_shift=self.shift, space=12).run(mf, guess)
        mf.mo_energy, mf.mo_coeff = mf.canonicalize(mf.mo_coeff, mf.mo_occ)
        # a shift also holds on to states that are not the lowest
        mf.converged = mf.converged and np.array_equal(mf.get_occ(mf.mo_energy), mf.mo_occ)
        return mf, cycles


@dataclass(frozen=True)
class WidthAnnealing:
    """Start hot: wide Fermi-Dirac occupations, lowered to those that were asked for."""

    name: str = "annealing"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Anneal the density with damping, then converge."""
        density, cycles = guess, 0
        for width in ANNEALING:
            if width <= (mf.sigma or 0.0):
                continue
            warm = mf.copy()
            warm.sigma, warm.damp, warm.diis_start_cycle = width, 0.5, 4
            warm.max_cycle, warm.conv_tol, warm.conv_tol_grad = 25, 1e-5, 1e-2
            warm.kernel(dm0=density)
            density = np.asarray(warm.make_rdm1())
            cycles += warm.cycles
        cold, more = DIIS(self.name, damp=0.3, space=12).run(mf, density)
        return cold, cycles + more


SOLID_LADDER: tuple[Strategy, ...] = (
    DIIS("diis"),
    DIIS("damped", damp=0.6, space=12),
    LevelShift(),
    WidthAnnealing(),
)
