"""Occupations over all k-points: whole or Fermi-Dirac, free or fixed total moment.

PySCF's smearing rounds the electrons of a restricted calculation up to an even number (three
k-points of aluminium, nine electrons, become ten). Here electron numbers are real numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.pbc.scf.smearing import _SmearingKSCF
from scipy.optimize import brentq
from scipy.special import entr, expit


def attach_occupations(mf: Any, width: float, electrons: float, moment: float | None) -> Any:
    """Give a k-point mean-field object the occupations of this module.

    Args:
        mf: KRKS or KUKS object.
        width: k_B T in Hartree, 0 for whole occupations.
        electrons: per cell.
        moment: fixed total moment per cell in mu_B, or None for a free one (one Fermi level for
            both spins).

    Returns:
        An object of a derived class.
    """
    occupied = _Occupations(mf, width, "fermi", None, moment is not None)
    occupied.electrons, occupied.moment = electrons, moment
    occupied.levels, occupied.gap = (), np.inf
    return lib.set_class(occupied, (_Occupations, mf.__class__))


class _Occupations(_SmearingKSCF):
    """Occupations, entropy and Fermi levels; the energies are PySCF's."""

    __name_mixin__ = "Occupations"
    _keys = {"electrons", "moment", "levels", "gap"}
    electrons: float
    moment: float | None
    levels: tuple[float, ...]
    gap: float

    def get_occ(self, mo_energy_kpts: Any = None, mo_coeff_kpts: Any = None) -> NDArray:
        """Occupations, [nk, nmo] for RKS (up to 2) or [2, nk, nmo]."""
        energies = np.asarray(self.mo_energy if mo_energy_kpts is None else mo_energy_kpts)
        points = len(self.kpts)
        polarised = energies.ndim == 3
        if polarised and self.moment is not None:
            channels = [energies[0], energies[1]]
            counts = [0.5 * (self.electrons + sign * self.moment) for sign in (1, -1)]
        else:
            channels = [energies]
            counts = [self.electrons if polarised else 0.5 * self.electrons]
        found = [
            occupy(channel, count * points, self.sigma)
            for channel, count in zip(channels, counts, strict=True)
        ]
        weight = 1.0 if polarised else 2.0
        self.levels = tuple(level for _, level in found)
        occupations = [occupation for occupation, _ in found]
        # S/k of -sum f ln f + (1 - f) ln(1 - f), per cell
        self.entropy = sum(float((entr(f) + entr(1 - f)).sum()) for f in occupations)
        self.entropy *= weight / points
        result = np.stack(occupations) if len(found) == 2 else weight * occupations[0]
        self.gap = min(_gap(e, f) for e, f in zip(channels, occupations, strict=True))
        return result

    @property
    def nelec(self) -> tuple[float, float]:
        """Electrons of each spin over all k-points, as PySCF's guesses ask for them."""
        moment = self.moment or 0.0
        half = 0.5 * len(self.kpts)
        return half * (self.electrons + moment), half * (self.electrons - moment)

    @nelec.setter
    def nelec(self, value: Any) -> None:
        raise AttributeError("set electrons and moment instead")


def occupy(energies: NDArray, count: float, width: float) -> tuple[NDArray, float]:
    """Fill levels, one electron each.

    Args:
        energies: levels of any shape, in Hartree.
        count: electrons; without a width, a whole number.
        width: k_B T in Hartree, 0 for the lowest levels.

    Returns:
        Occupations of the shape of `energies`, and the chemical potential (without a width the
        middle of the gap).
    """
    flat = np.sort(energies, axis=None)
    if width <= 0.0:
        number = round(count)
        occupations = np.zeros(energies.size)
        occupations[np.argsort(energies, axis=None, kind="stable")[:number]] = 1.0
        below = flat[number - 1] if number else flat[0]
        above = flat[number] if number < flat.size else flat[-1]
        return occupations.reshape(energies.shape), float(0.5 * (below + above))
    low, high = flat[0] - 40 * width, flat[-1] + 40 * width
    if not 0 < count < flat.size:  # an empty or a full channel has no level in between
        full = count > 0
        return np.full(energies.shape, float(full)), float(high if full else low)
    level = brentq(
        lambda mu: expit((mu - energies) / width).sum() - count, low, high, xtol=1e-15, rtol=1e-15
    )
    return expit((level - energies) / width), float(level)


def _gap(energies: NDArray, occupations: NDArray) -> float:
    """Distance between the highest level that is more than half full and the next, in Hartree."""
    full = occupations > 0.5
    if full.all() or not full.any():
        return np.inf
    return float(energies[~full].min() - energies[full].max())
