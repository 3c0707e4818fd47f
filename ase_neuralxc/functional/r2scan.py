"""The meta-generalised gradient approximation r2SCAN, and its hybrid r2SCAN0.

Building blocks: `exchange_enhancement(p, alpha)`, `correlation_per_electron(...)`, and per volume
`r2scan_exchange` and `r2scan_correlation`.

Reference: Furness, Kaplan, Ning, Perdew, Sun, J. Phys. Chem. Lett. 11, 8208 (2020), correction
ibid. 11, 9248; equation numbers "S..." are those of its supporting information. Constants and
thresholds are those of libxc. SCAN: Sun, Ruzsinszky, Perdew, Phys. Rev. Lett. 115, 036402 (2015).
Hybrid: Bursch et al., J. Chem. Phys. 156, 134105 (2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.lda import (
    DENSITY_THRESHOLD,
    POLARISED,
    SLATER,
    STIFFNESS,
    UNPOLARISED,
    WIGNER_SEITZ,
    SpinPolarisation,
    correlation_variables,
    floored,
    interpolate_spin,
    moved,
    screened,
)
from ase_neuralxc.functional.pbe import (
    CORRELATION_GRADIENT,
    GAMMA,
    reduced_gradient,
    total_sigma,
)
from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Regularisation of alpha (S6), and damping of the gradient expansion (S10, S34).
ETA = 0.001
DAMPING = 0.361**-4
#: Spin densities up to this have no exchange (libxc's threshold of mgga_x_r2scan).
EXCHANGE_THRESHOLD = 1e-11
#: Kinetic-energy densities are floored to this.
TAU_THRESHOLD = 1e-20
#: Kinetic-energy density of the unpolarised uniform gas is KINETIC * n**(5/3).
KINETIC = 0.3 * (3.0 * math.pi**2) ** (2.0 / 3.0)

_K1, _H0X, _A1, _MU_GE = 0.065, 1.174, 4.9479, 10.0 / 81.0
_B1C, _B2C, _B3C, _CHI = 0.0285764, 0.0889, 0.125541, 0.12802585262625815
_GC = 2.363 * (2.0 ** (1.0 / 3.0) - 1.0)
# g_x = 1 - exp(-a1 / sqrt(s)) is 1 to the last bit long before p reaches this, and its derivative
# 0; without the floor p**(-1/4) would make NaN of a vanishing gradient.
_SMALLEST_P = 1e-10


@dataclass(frozen=True)
class Switch:
    """The function of alpha that joins the single-orbital and the slowly varying limit (S7, S26).

    Attributes:
        c1: decay for negative alpha.
        c2: decay for large alpha.
        d: limit for large alpha, negated.
        polynomial: coefficients of alpha**0 to alpha**7, used for alpha in [0, 2.5].
    """

    c1: float
    c2: float
    d: float
    polynomial: tuple[float, ...]

    def __call__(self, alpha: Tensor) -> Tensor:
        """Evaluate f(alpha), elementwise; each branch sees only arguments it can take."""
        middle = alpha.clamp(0.0, 2.5)
        value = self.polynomial[-1] * middle + self.polynomial[-2]
        for coefficient in self.polynomial[-3::-1]:
            value = value * middle + coefficient
        # Both outer branches are exponentials of a rational function: one exponential serves them.
        low, high = alpha < 0.0, alpha > 2.5
        outer = torch.where(low | high, alpha, -1.0)
        exponent = torch.where(low, -self.c1 * outer, self.c2) / (1.0 - outer)
        decay = torch.exp(exponent)
        return torch.where(low, decay, torch.where(high, -self.d * decay, value))

    @property
    def slope_at_one(self) -> float:
        """Derivative of f at alpha = 1."""
        return sum(order * c for order, c in enumerate(self.polynomial))


EXCHANGE_SWITCH = Switch(
    0.667,
    0.8,
    1.24,
    (1.0, -0.667, -0.4445555, -0.663086601049, 1.451297044490, -0.887998041597, 0.234528941479,
     -0.023185843322),
)  # fmt: skip
CORRELATION_SWITCH = Switch(
    0.64,
    1.5,
    0.7,
    (1.0, -0.64, -0.4352, -1.535685604549, 3.061560252175, -1.915710236206, 0.516884468372,
     -0.051848879792),
)  # fmt: skip
# S11 and S12: the coefficient that restores the gradient expansion of exchange.
_EXPANSION = -(20.0 / 27.0 + ETA * 5.0 / 3.0) * EXCHANGE_SWITCH.slope_at_one * (1.0 - _H0X)


def iso_orbital(
    density: Tensor, root: Tensor, sigma: Tensor, tau: Tensor, kinetic: Tensor | None = None
) -> Tensor:
    """The regularised iso-orbital indicator alpha (S6).

    Args:
        density: [..., n] total density, positive.
        root: [..., n] its cube root.
        sigma: [..., n] squared gradient.
        tau: [..., n] kinetic-energy density.
        kinetic: [n] spin scaling of the uniform gas' kinetic energy; None if unpolarised.

    Returns:
        [..., n] alpha, at least -1/ETA even if tau is below the von Weizsaecker value.
    """
    weizsaecker = sigma / (8.0 * density)
    uniform = KINETIC * density * root * root
    if kinetic is not None:
        uniform = uniform * kinetic
    return (tau - weizsaecker) / (uniform + ETA * weizsaecker)


def exchange_enhancement(p: Tensor, alpha: Tensor) -> Tensor:
    """Exchange enhancement factor over the uniform gas, F_x (S2 to S14).

    Args:
        p: [..., n] s**2 of an unpolarised density.
        alpha: [..., n] its iso-orbital indicator.

    Returns:
        [..., n] factors between 0 and 1.174.
    """
    x = (_EXPANSION * torch.exp(-DAMPING * (p * p)) + _MU_GE) * p
    h1 = (1.0 + _K1) - _K1 * _K1 / (_K1 + x)
    g = -torch.expm1(-_A1 * torch.rsqrt(torch.sqrt(p.clamp_min(_SMALLEST_P))))
    return (h1 + EXCHANGE_SWITCH(alpha) * (_H0X - h1)) * g


def correlation_per_electron(
    rs: Tensor, p: Tensor, alpha: Tensor, polarisation: SpinPolarisation | None = None
) -> Tensor:
    """Correlation energy per electron (S23 to S41).

    Args:
        rs: [n] Wigner-Seitz radius.
        p: [n] s**2 of the total density.
        alpha: [n] iso-orbital indicator of the total density.
        polarisation: powers of 1 + zeta and 1 - zeta; None for a closed shell.

    Returns:
        [n] energies in Hartree.
    """
    root = torch.sqrt(rs)
    # The single-orbital limit: S25 with its derivative, and S35 to S41.
    denominator = 1.0 + _B2C * root + _B3C * rs
    lda0 = -_B1C / denominator
    d_lda0 = lda0 * lda0 * (1.0 / _B1C) * (0.5 * _B2C / root + _B3C)
    w0 = torch.expm1(1.0 / denominator)
    g_infinity = torch.rsqrt(torch.sqrt(1.0 + 4.0 * _CHI * p))
    e0 = lda0 + _B1C * torch.log1p(w0 * (1.0 - g_infinity))
    # The slowly varying limit.
    lda1, d_lda1 = UNPOLARISED.energy_and_slope(root)
    if polarisation is None:
        scale: Tensor | float = GAMMA
        kinetic_scale: Tensor | float = GAMMA
        t2 = (CORRELATION_GRADIENT / rs) * p
    else:
        (up, d_up), (stiff, d_stiff) = (
            channel.energy_and_slope(root) for channel in (POLARISED, STIFFNESS)
        )
        lda1 = interpolate_spin(lda1, up, stiff, polarisation)
        d_lda1 = interpolate_spin(d_lda1, d_up, d_stiff, polarisation)
        zeta4 = polarisation.zeta**4
        gc = (1.0 - _GC * polarisation.interpolation()) * (1.0 - zeta4 * zeta4 * zeta4)
        e0, lda0, d_lda0 = e0 * gc, lda0 * gc, d_lda0 * gc
        phi = polarisation.phi()
        scale = GAMMA * phi * phi * phi
        kinetic_scale = scale * polarisation.kinetic()
        t2 = CORRELATION_GRADIENT * p / (rs * phi * phi)
    w1 = torch.expm1(-lda1 / scale)
    beta = 0.066724550603149220 * (1.0 + 0.1 * rs) / (1.0 + 0.1778 * rs)
    y = (beta / GAMMA) * t2
    correction = (20.0 * rs) * (d_lda0 - d_lda1) - (45.0 * ETA) * (lda0 - lda1)
    correction = correction * p * torch.exp(-DAMPING * (p * p))
    dy = (CORRELATION_SWITCH.slope_at_one / 27.0) * correction / kinetic_scale
    g = torch.rsqrt(torch.sqrt(1.0 + 4.0 * (y - dy) / w1))
    e1 = lda1 + scale * torch.log1p(w1 * (1.0 - g))
    return e1 + CORRELATION_SWITCH(alpha) * (e0 - e1)


def bounded_sigma(density: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
    """Lower the squared gradient to where tau is that of a single orbital, 8 n tau.

    Rounding and fitted densities bring tau under the von Weizsaecker value. libxc then evaluates
    value and derivatives at the lowered sigma (a positive curvature of the Fermi hole).

    Args:
        density: [..., n] density of one spin, or total density of a closed shell.
        sigma: [..., n] its squared gradient.
        tau: [..., n] its kinetic-energy density, not negative.

    Returns:
        [..., n] min(sigma, 8 n tau), with derivative one in sigma and none in the others.
    """
    bound = 8.0 * density.detach() * tau.detach()
    return moved(sigma, torch.minimum(sigma.detach(), bound))


def r2scan_exchange(total_density: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
    """Exchange of an unpolarised density.

    For spin densities take half the sum over spins with density 2 n_s, sigma 4 sigma_ss and
    tau 2 tau_s.

    Args:
        total_density: [..., n] total density.
        sigma: [..., n] its squared gradient.
        tau: [..., n] its kinetic-energy density.

    Returns:
        [..., n] energy per volume in Hartree/Bohr^3.
    """
    keep = total_density > 2.0 * EXCHANGE_THRESHOLD
    density, sigma, tau = screened(keep, (total_density, 1.0), (sigma, 0.0), (tau, KINETIC))
    root = density ** (1.0 / 3.0)
    p = reduced_gradient(density, root, sigma)
    factor = exchange_enhancement(p, iso_orbital(density, root, sigma, tau))
    return torch.where(keep, (-SLATER * density * root) * factor, 0.0)


def r2scan_correlation(
    density: Tensor, sigma: Tensor, tau: Tensor, closed_shell: bool = False
) -> Tensor:
    """Correlation.

    Args:
        density: [2, n] spin densities.
        sigma: [n] squared gradient of the total density.
        tau: [n] total kinetic-energy density.
        closed_shell: the two channels are equal; only the first is read.

    Returns:
        [n] energy per volume in Hartree/Bohr^3.
    """
    total, polarisation, keep = correlation_variables(density, closed_shell, DENSITY_THRESHOLD)
    sigma, tau = screened(keep, (sigma, 0.0), (tau, KINETIC))
    root = total ** (1.0 / 3.0)
    kinetic = None if polarisation is None else polarisation.kinetic()
    alpha = iso_orbital(total, root, sigma, tau, kinetic)
    p = reduced_gradient(total, root, sigma)
    energy = correlation_per_electron(WIGNER_SEITZ / root, p, alpha, polarisation)
    return torch.where(keep, total * energy, 0.0)


class R2SCAN(SemilocalFunctional):
    """r2SCAN, and with `exchange_fraction` a global hybrid of it.

    Args:
        exchange_fraction: fraction of exact exchange, which replaces that of the semi-local one.
        name: name for reports.
    """

    def __init__(self, exchange_fraction: float = 0.0, name: str = "r2scan") -> None:
        super().__init__()
        self.exchange_fraction = exchange_fraction
        self.name = name

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3, without the exact exchange."""
        if invariants.closed_shell:
            return self._closed_shell(invariants)
        density = invariants.density
        tau = floored(invariants.tau, TAU_THRESHOLD)
        sigma = bounded_sigma(density.clamp_min(0.0), invariants.sigma[::2], tau)
        exchange = 0.5 * r2scan_exchange(2.0 * density, 4.0 * sigma, 2.0 * tau).sum(0)
        total = total_sigma(sigma, invariants.sigma[1])
        correlation = r2scan_correlation(density, total, tau.sum(0))
        return (1.0 - self.exchange_fraction) * exchange + correlation

    def _closed_shell(self, invariants: DensityInvariants) -> Tensor:
        """Both parts from the same p and alpha, which coincide without spin polarisation."""
        total = 2.0 * invariants.density[0]
        keep = total >= DENSITY_THRESHOLD
        total, sigma, tau = screened(
            keep,
            (total, 1.0),
            (4.0 * invariants.sigma[0], 0.0),
            (2.0 * invariants.tau[0], KINETIC),
        )
        tau = floored(tau, TAU_THRESHOLD)
        sigma = bounded_sigma(total, sigma, tau)
        root = total ** (1.0 / 3.0)
        p = reduced_gradient(total, root, sigma)
        alpha = iso_orbital(total, root, sigma, tau)
        exchange = (-SLATER * (1.0 - self.exchange_fraction)) * root
        exchange = exchange * exchange_enhancement(p, alpha)
        exchange = torch.where(total > 2.0 * EXCHANGE_THRESHOLD, exchange, 0.0)
        correlation = correlation_per_electron(WIGNER_SEITZ / root, p, alpha)
        return torch.where(keep, total * (exchange + correlation), 0.0)
