"""Exact constraints as building blocks: bounded dimensionless inputs and bounded enhancements.

Each block makes one constraint hold for every set of weights, so that training cannot break it:

* inputs that are ratios of equal powers of the density are unchanged by uniform coordinate
  scaling (Levy and Perdew, PRA 32, 2010 (1985)): an exchange enhancement made of them scales right;
* both inputs vanish in the uniform electron gas, a network can be anchored there
  (`network.AnchoredNetwork`), and `saturate` maps zero to one: the limit of the uniform gas is
  exact, in floating point too;
* `saturate` is non-negative and bounded: exchange is non-positive and obeys the local
  Lieb-Oxford bound, F_x <= 1.804 (Perdew, Burke and Ernzerhof, PRL 77, 3865 (1996)) or the tighter
  F_x <= 1.174 (Perdew, Ruzsinszky, Sun and Burke, JCP 140, 18A533 (2014)).

All quantities are in Hartree atomic units and float64. Inputs are smooth functions of density,
sigma and tau, also where tau falls below the von Weizsaecker value by rounding (one-orbital
regions): a clamp there would make the potential of H2 a matter of the last bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.lda import (
    DENSITY_THRESHOLD,
    WIGNER_SEITZ,
    SpinPolarisation,
    correlation_variables,
    pw92_correlation,
)

_KF2 = (3.0 * math.pi**2) ** (2.0 / 3.0)
_S2 = 4.0 * _KF2  # s^2 = sigma / (_S2 density^(8/3))
_TAU_UNIFORM = 0.3 * _KF2  # tau of the uniform gas / density^(5/3)

#: Upper bounds on the exchange enhancement, by name.
EXCHANGE_BOUNDS = {"lieb-oxford": 1.804, "tight": 1.174}


def exchange_bound(name: str) -> float:
    """Upper bound on F_x by name.

    Args:
        name: "lieb-oxford" (1.804, holds for every density) or "tight" (1.174, proven for
            two-electron densities and conjectured for all).

    Returns:
        The bound.

    Raises:
        InvalidInputError: for another name.
    """
    if name not in EXCHANGE_BOUNDS:
        raise unknown_name("exchange_bound", str(name), EXCHANGE_BOUNDS)
    return EXCHANGE_BOUNDS[name]


def kept(density: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Replace negligible densities by 1, so that no division or root of them is ever taken.

    Second derivatives with respect to sigma grow as density^-4: above 1e-15 float64 holds them, and
    the cotangents that reach a float32 network (density^-4/3) stay far from its largest number.

    Args:
        density: [n] density.
        threshold: the largest density that is dropped.

    Returns:
        [n] density that is safe to divide by, and the [n] mask of the points that count. Results
        at the other points must be replaced (`torch.where`) and have zero derivatives.
    """
    counts = density > threshold
    return torch.where(counts, density, 1.0), counts


def cube_root(density: Tensor) -> Tensor:
    """Cube root of a positive density; taken once, all fractional powers are products of it."""
    return density.pow(1.0 / 3.0)


def uniform_tau(density: Tensor, root: Tensor) -> Tensor:
    """Kinetic-energy density of the unpolarised uniform gas, [n] in Hartree/Bohr^3."""
    return _TAU_UNIFORM * density * root * root


def gradient_input(density: Tensor, root: Tensor, sigma: Tensor) -> Tensor:
    """s^2 / (1 + s^2) with s = |grad n| / (2 (3 pi^2)^(1/3) n^(4/3)).

    Args:
        density: [n] positive density.
        root: [n] its cube root.
        sigma: [n] squared gradient; negative rounding noise counts as zero.

    Returns:
        [n] numbers in [0, 1]; 0 in the uniform gas, 1 in exponential tails.
    """
    sigma = sigma.clamp(min=0.0)
    scale = density * root
    return sigma / (sigma + _S2 * scale * scale)


def reduced_gradient(density: Tensor, sigma: Tensor) -> Tensor:
    """The reduced gradient s, [n], for reports: it has no derivative where sigma vanishes."""
    return torch.sqrt(sigma.clamp(min=0.0) / _S2) / density.pow(4.0 / 3.0)


def orbital_input(density: Tensor, sigma: Tensor, tau: Tensor, tau_uniform: Tensor) -> Tensor:
    """(alpha - 1) / sqrt((alpha - 1)^2 + 1), alpha = (tau - tau_W) / tau_unif, tau_W = sigma / 8n.

    Args:
        density: [n] positive density.
        sigma: [n] squared gradient.
        tau: [n] kinetic-energy density.
        tau_uniform: [n] that of the uniform gas of the same density (and polarisation).

    Returns:
        [n] numbers in [-1, 1]: -0.71 in one-orbital regions (alpha = 0), 0 in the uniform gas, 1
        between closed shells. Smooth for every alpha, negative ones included.
    """
    excess = tau - sigma / (8.0 * density) - tau_uniform
    return excess * torch.rsqrt(excess * excess + tau_uniform * tau_uniform)


def density_input(root: Tensor) -> Tensor:
    """1 / (1 + r_s), [n] in [0, 1], from the cube root of the density."""
    return root / (root + WIGNER_SEITZ)


@dataclass(frozen=True)
class TotalInputs:
    """Inputs of the total density, symmetric under a spin flip; harmless at dropped points.

    Attributes:
        counts: [n] mask of the points whose density is not negligible.
        total: [n] total density.
        root: [n] its cube root.
        polarisation: powers of 1 + zeta and 1 - zeta, or None for a closed shell.
        gradient: [n] from `gradient_input`.
        orbital: [n] from `orbital_input`.
    """

    counts: Tensor
    total: Tensor
    root: Tensor
    polarisation: SpinPolarisation | None
    gradient: Tensor
    orbital: Tensor

    @classmethod
    def from_invariants(cls, y: DensityInvariants) -> TotalInputs:
        """Compute them; for a closed shell from one channel."""
        # There, an empty channel keeps its derivative of zeta.
        total, polarisation, counts = correlation_variables(
            y.density, y.closed_shell, DENSITY_THRESHOLD
        )
        if y.closed_shell:
            sigma, tau = 4.0 * y.sigma[0], 2.0 * y.tau[0]
        else:
            sigma = y.sigma[0] + 2.0 * y.sigma[1] + y.sigma[2]
            tau = y.tau.sum(0)
        root = cube_root(total)
        tau_uniform = uniform_tau(total, root)
        if polarisation is not None:
            tau_uniform = polarisation.kinetic() * tau_uniform
        gradient = gradient_input(total, root, sigma)
        orbital = orbital_input(total, sigma, tau, tau_uniform)
        return cls(counts, total, root, polarisation, gradient, orbital)

    def stacked(self) -> Tensor:
        """[n, 4]: 1 / (1 + r_s), zeta^2, gradient, orbital; the last two anchor a network."""
        zeta2 = torch.zeros_like(self.total)
        if self.polarisation is not None:
            zeta2 = self.polarisation.zeta**2
        return torch.stack([density_input(self.root), zeta2, self.gradient, self.orbital], dim=1)

    def uniform_correlation(self) -> Tensor:
        """Correlation energy per volume of the uniform gas, [n] in Hartree/Bohr^3."""
        rs = WIGNER_SEITZ / self.root
        return self.total * pw92_correlation(torch.sqrt(rs), self.polarisation)


def saturate(value: Tensor, bound: float) -> Tensor:
    """Increasing map of the real line to [0, bound] that sends 0 to exactly 1.

    2 p / (1 + (2 p - 1) (2 / bound - 1)) with p the logistic function of the value. In this form
    0 -> 1 holds without rounding, large arguments cannot overflow, and values near zero keep
    their relative precision.

    Args:
        value: real numbers.
        bound: supremum, above 1.

    Returns:
        Values in [0, bound], of the shape of `value`.

    Raises:
        InvalidInputError: for a bound that is not above 1.
    """
    if not 1.0 < bound < math.inf:
        raise InvalidInputError(f"bound: expected a finite number above 1, got {bound}")
    twice = 2.0 * torch.sigmoid(value)
    return twice / (1.0 + (2.0 / bound - 1.0) * (twice - 1.0))
