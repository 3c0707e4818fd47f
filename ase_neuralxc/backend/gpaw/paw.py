"""One-centre exchange-correlation energies of PAW atoms, all points of an atom at once.

E_a = E_xc[n_a] - E_xc[~n_a], both integrated over Lebedev directions and radial points within the
augmentation sphere (Kresse and Joubert, PRB 59, 1758 (1999); Sun, Marsman, Csonka et al., PRB 84,
035117 (2011) for tau). GPAW calls the functional for one direction at a time, some ten thousand
points per atom in calls of a few hundred: with a Python functional the calls cost more than the
points. Here the expansions are matrix products, the radial points are fewer (`radial.py`), and the
functional is called once per atom.

Letters: c all-electron or pseudo, s spin, L harmonic (l, m), d direction, g radial point, p pair of
partial waves, q pair of radial functions, v Cartesian axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.clamps import Evaluator
from ase_neuralxc.backend.gpaw.radial import RadialRule

#: Wave functions and densities that agree within this (atomic units) are the same.
IDENTICAL = 1e-12
_SIGN = np.array([1.0, -1.0])  # all-electron minus pseudo


class OneCentre:
    """Expansion of the densities of one kind of PAW atom.

    Args:
        correction: GPAW's `PAWXCCorrection` of the setup.
        weights: [d] weights of the directions, with sum one.
        with_tau: whether the kinetic-energy density is needed.
        make_rule: of the radial points.
    """

    def __init__(
        self,
        correction: Any,
        weights: NDArray,
        with_tau: bool,
        make_rule: Callable[[Any, int], RadialRule] = RadialRule,
    ) -> None:
        rule = make_rule(correction.rgd, _entries(correction))
        self.reference = float(correction.e_xc0)
        self.to_radial = np.ascontiguousarray(correction.B_pqL)
        # with Y_00 = 1/sqrt(4 pi) in the first row of the harmonics
        core = np.sqrt(4 * np.pi) * np.stack([correction.nc_g, correction.nct_g])
        self.core = _with_slope(rule, core)  # [c, 2 g]
        self.products = _with_slope(rule, np.stack([correction.n_qg, correction.nt_qg]))
        self.harmonics = np.ascontiguousarray(correction.Y_nL)  # [d, L]
        directions, harmonics = self.harmonics.shape
        # r grad Y_L, the axes below each other: [v d, L]
        self.angular = np.ascontiguousarray(
            correction.rnablaY_nLv.transpose(2, 0, 1).reshape(3 * directions, harmonics)
        )
        self.volumes = weights[:, None] * rule.volumes  # [d, g]
        self.inverse_r = 1 / rule.radii
        self.tau = _KineticEnergy(correction, rule) if with_tau else None

    def energy(self, evaluate: Evaluator, D_sp: NDArray) -> tuple[float, NDArray]:
        """Energy of an atom relative to GPAW's reference atom, and its derivative.

        Args:
            evaluate: the functional at points.
            D_sp: [s, p] atomic density matrix, packed, off-diagonal elements doubled.

        Returns:
            Energy in Hartree, and its derivative with respect to `D_sp`, [s, p].
        """
        spins = len(D_sp)
        D_sLq = np.tensordot(D_sp, self.to_radial, axes=(1, 0)).transpose(0, 2, 1)
        n_csLg = D_sLq @ self.products[:, None]  # values, and behind them slopes
        n_csLg[:, :, 0] += self.core[:, None] / spins
        points = len(self.inverse_r)
        density, slope = np.split(self.harmonics @ n_csLg, [points], axis=-1)  # [c, s, d, g]
        shape = (2, spins, 3, *density.shape[2:])
        tangent = (self.angular @ n_csLg[..., :points]).reshape(shape) * self.inverse_r
        sigma = np.empty((2 * spins - 1, 2, *density.shape[2:]))
        for x, (s, t) in enumerate([(0, 0), (0, 1), (1, 1)] if spins == 2 else [(0, 0)]):
            sigma[x] = slope[:, s] * slope[:, t]
            sigma[x] += np.einsum("cvdg,cvdg->cdg", tangent[:, s], tangent[:, t])
        tau = np.zeros_like(density) if self.tau is None else self.tau.density(D_sp)
        values, first = evaluate(
            (_flat(density), sigma.reshape(2 * spins - 1, -1), _flat(tau)), spins == 2
        )
        by_point = first.reshape(-1, 2, *self.volumes.shape) * (
            self.volumes * _SIGN[:, None, None]
        )  # [density, sigma and tau, c, d, g]
        energy = float(np.einsum("cdg,dg,c->", values.reshape(2, *self.volumes.shape),
                                 self.volumes, _SIGN))  # fmt: skip
        d_density = by_point[:spins].swapaxes(0, 1)
        d_slope, d_tangent = np.empty_like(slope), np.empty_like(tangent)
        for s in range(spins):
            own = 2 * by_point[spins + 2 * s]
            d_slope[:, s] = own * slope[:, s]
            d_tangent[:, s] = own[:, None] * tangent[:, s]
            if spins == 2:
                mixed = by_point[spins + 1]
                d_slope[:, s] += mixed * slope[:, 1 - s]
                d_tangent[:, s] += mixed[:, None] * tangent[:, 1 - s]
        d_tangent *= self.inverse_r
        d_n = self.harmonics.T @ np.concatenate([d_density, d_slope], axis=-1)
        d_n[..., :points] += self.angular.T @ d_tangent.reshape(2, spins, len(self.angular), -1)
        d_sLq = (d_n @ self.products.swapaxes(1, 2)[:, None]).sum(axis=0)
        out = np.tensordot(d_sLq, self.to_radial, axes=((1, 2), (2, 1)))
        if self.tau is not None:
            out += self.tau.adjoint(by_point[-spins:].swapaxes(0, 1))
        return energy - self.reference, out


class _KineticEnergy:
    """tau_s = 1/2 sum_p D_sp grad phi_i1 . grad phi_i2 + tau_core.

    The product of two gradients is radial times radial plus tangential times tangential, so that
    the pairs p of partial waves with the same radial functions q can be summed first.
    """

    def __init__(self, correction: Any, rule: RadialRule) -> None:
        waves = np.stack([correction.phi_jg, correction.phit_jg])  # [c, j, g]
        slopes, tangents = rule.slope(waves), rule(waves) / rule.radii
        pairs = [(j, k) for j in range(slopes.shape[1]) for k in range(j, slopes.shape[1])]
        first, second = (list(index) for index in zip(*pairs, strict=True))
        # [c, 2 q, g]: radial products above tangential ones
        self.products = 0.5 * np.concatenate(
            [slopes[:, first] * slopes[:, second], tangents[:, first] * tangents[:, second]], axis=1
        )
        partial = correction.jlL
        left, right, member = [], [], []
        for i, (j1, _, L1) in enumerate(partial):
            for j2, _, L2 in partial[i:]:
                left.append(L1)
                right.append(L2)
                member.append(pairs.index((min(j1, j2), max(j1, j2))))
        self.member = np.zeros((len(member), len(pairs)))  # [p, q]
        self.member[np.arange(len(member)), member] = 1.0
        harmonics, gradients = correction.Y_nL, correction.rnablaY_nLv
        self.angles = np.stack(
            [
                harmonics[:, left] * harmonics[:, right],
                np.einsum("dpv,dpv->dp", gradients[:, left], gradients[:, right]),
            ]
        )  # [radial or tangential, d, p]
        self.core = rule(np.stack([correction.tauc_g, correction.tauct_g])) / np.sqrt(4 * np.pi)

    def density(self, D_sp: NDArray) -> NDArray:
        """Kinetic-energy densities tau, [c, s, d, g]."""
        sums = (self.angles * D_sp[:, None, None]) @ self.member  # [s, 2, d, q]
        rows = np.concatenate([sums[:, 0], sums[:, 1]], axis=-1)  # [s, d, 2 q]
        return rows @ self.products[:, None] + self.core[:, None, None] / len(D_sp)

    def adjoint(self, by_tau: NDArray) -> NDArray:
        """From derivatives by tau, [c, s, d, g], to derivatives by `D_sp`, [s, p]."""
        rows = (by_tau @ self.products.swapaxes(1, 2)[:, None]).sum(axis=0)  # [s, d, 2 q]
        q = self.member.shape[1]
        sums = np.stack([rows[..., :q], rows[..., q:]], axis=1) @ self.member.T  # [s, 2, d, p]
        return np.einsum("sxdp,xdp->sp", sums, self.angles)


def signed_weights(atom: OneCentre) -> NDArray:
    """[points] of the sum over an atom, in the order in which its functional is called.

    Args:
        atom: the expansion.

    Returns:
        Quadrature weights in Bohr^3, those of the pseudo-density negative.
    """
    weights: NDArray = (_SIGN[:, None, None] * atom.volumes).ravel()
    return weights


def _with_slope(rule: RadialRule, tables: NDArray) -> NDArray:
    """Functions at the points of the rule and, behind them, their slopes: [..., 2 g]."""
    return np.concatenate([rule(tables), rule.slope(tables)], axis=-1)


def _entries(correction: Any) -> int:
    """Entries of GPAW's radial tables up to where both densities are one and all they give cancels.

    GPAW's grid extends to twice the cutoff radius, for the projectors.
    """
    pairs = [
        (correction.phi_jg, correction.phit_jg),
        (correction.nc_g, correction.nct_g),
        (correction.tauc_g, correction.tauct_g),
    ]
    differ = np.zeros(correction.ng, dtype=bool)
    for true, pseudo in pairs:
        differ |= (np.abs(np.subtract(true, pseudo)) > IDENTICAL).reshape(-1, differ.size).any(0)
    # the slope differs one point further, and is taken from one point beyond that
    return int(np.nonzero(differ)[0][-1]) + 3


def _flat(a: NDArray) -> NDArray:
    """[c, s, d, g] -> [s, points]."""
    return np.ascontiguousarray(a.swapaxes(0, 1)).reshape(a.shape[1], -1)
