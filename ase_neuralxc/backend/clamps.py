"""Bounds on the density that a functional sees in a plane-wave host.

The density of a plane-wave calculation rings around zero in vacuum, and its kinetic-energy density
need not be that of any orbitals there: PAW pseudo-densities obey neither n >= 0 nor tau >= tau_W
point by point. Meta-GGAs divide by both. The bounds are part of the model (they move energies by
micro-electronvolts), so they belong to the fidelity of a label.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError

#: Spin densities are not smaller than this part of the smallest total density: a fully polarised
#: region has an empty channel, in which nothing should divide by zero.
CHANNEL = 1e-4
#: The energy is whole from this many times the least density on.
FADE = 10.0
#: tau is raised smoothly where it is within this part of tau_W around it: of dense places, and of
#: those where there is next to nothing; the density (electrons/Bohr^3) between both. Where one
#: orbital alone makes the density, tau is tau_W up to noise, and in vacuum it may settle there:
#: with a corner, derivatives jump between two cycles, and a nitrogen atom does not converge.
BAND, WIDEST, THIN = 1e-2, 0.5, 1e-3

#: (density, sigma, tau) and whether they have two spins -> energy density and first derivatives,
#: as `pointwise.evaluate_invariants` has them.
Evaluator = Callable[[Sequence[NDArray], bool], tuple[NDArray, NDArray]]


@dataclass(frozen=True)
class DensityClamps:
    """What happens where the density is too small or too bosonic to be one.

    Attributes:
        density: total density (electrons/Bohr^3) below which a point has no exchange-correlation
            energy; it fades in smoothly up to `FADE` times this density, so that a density that
            rings around the bound has a potential without jumps.
        weizsaecker: raise tau to the von Weizsaecker bound |grad n|^2 / 8n, spin by spin, smoothly
            around it.

    Raises:
        InvalidInputError: a density that is not positive.
    """

    density: float = 1e-5
    weizsaecker: bool = True

    def __post_init__(self) -> None:
        if not self.density > 0:
            raise InvalidInputError(
                f"clamps.density: expected a positive density, got {self.density!r}"
            )

    @property
    def rule(self) -> str:
        """In words, for the fidelity tag."""
        fade = f"n > {self.density:g} to {FADE * self.density:g}"
        return fade + (f", tau >= tau_W within {BAND:g} to {WIDEST:g}" if self.weizsaecker else "")


class ClampedEvaluator:
    """An evaluator behind clamps, block by block; its derivatives are those of the clamped energy.

    Args:
        evaluate: the functional at points.
        clamps: the bounds.
        block: points per call of `evaluate`.
    """

    def __init__(self, evaluate: Evaluator, clamps: DensityClamps, block: int = 16384) -> None:
        self.evaluate = evaluate
        self.clamps = clamps
        self.block = block

    def __call__(self, arrays: Sequence[NDArray], polarised: bool) -> tuple[NDArray, NDArray]:
        """Evaluate at all points.

        Args:
            arrays: density, sigma and tau of the total density, [1, n] each, or of two spins,
                [2, n], [3, n] and [2, n].
            polarised: which of the two.

        Returns:
            energy [n] in Hartree/Bohr^3 and its derivatives [3, n] or [7, n], zero where the
            density is below the bound.
        """
        n = arrays[0].shape[-1]
        energy = np.zeros(n)
        first = np.zeros((sum(a.shape[0] for a in arrays), n))
        (kept,) = np.nonzero(arrays[0].sum(axis=0) > self.clamps.density)
        for start in range(0, kept.size, self.block):
            points = kept[start : start + self.block]
            if points.size == points[-1] - points[0] + 1:  # without holes: views instead of copies
                points = slice(points[0], points[-1] + 1)  # type: ignore[assignment]
            block = [np.ascontiguousarray(a[:, points]) for a in arrays]
            energy[points], first[:, points] = self._faded(block, polarised)
        return energy, first

    def _faded(self, arrays: list[NDArray], polarised: bool) -> tuple[NDArray, NDArray]:
        energy, first = self._clamped(arrays, polarised)
        total = arrays[0].sum(axis=0)
        (thin,) = np.nonzero(total < FADE * self.clamps.density)
        if thin.size:
            x = np.log(total[thin] / self.clamps.density) / np.log(FADE)
            share = x * x * (3 - 2 * x)
            slope = 6 * x * (1 - x) / (np.log(FADE) * total[thin])
            first[:, thin] *= share
            first[: arrays[0].shape[0], thin] += energy[thin] * slope
            energy[thin] *= share
        return energy, first

    def _clamped(self, arrays: list[NDArray], polarised: bool) -> tuple[NDArray, NDArray]:
        density, sigma, tau = arrays
        spins = density.shape[0]
        low = density < CHANNEL * self.clamps.density
        density = np.where(low, CHANNEL * self.clamps.density, density)
        if not self.clamps.weizsaecker:
            energy, first = self.evaluate((density, sigma, tau), polarised)
            first[:spins][low] = 0.0
            return energy, first
        own = slice(None, None, 2)  # up.up and down.down of the gradient products
        bound = sigma[own] / (8 * density)
        band, narrowing = tau_band(spins * density)
        width = band * np.maximum(bound, 1e-100)
        share = np.clip((tau - bound + width) / (2 * width), 0.0, 1.0)
        raised = np.where(share < 1, bound + width * share**2, tau)
        energy, first = self.evaluate((density, sigma, raised), polarised)
        # what of tau is its bound, its derivative belongs to the density and to the gradient
        slope = first[-spins:] * (1 - share) * (1 + band * share)
        first[:spins] += first[-spins:] * (1 - share) * share * bound * spins * narrowing
        first[-spins:] *= share
        first[:spins] -= slope * bound / density
        first[spins:-spins][own] += slope / (8 * density)
        first[:spins][low] = 0.0
        return energy, first


def tau_band(density: NDArray) -> tuple[NDArray, NDArray]:
    """Half of the width in which tau is raised, as part of tau_W.

    Args:
        density: [...] of both spins, or twice that of one, in electrons/Bohr^3.

    Returns:
        The width, from `BAND` to `WIDEST`, and its derivative by the density.
    """
    least = density + BAND / WIDEST * THIN
    return BAND * (density + THIN) / least, BAND * (BAND / WIDEST - 1) * THIN / least**2
