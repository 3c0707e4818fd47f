"""Named exchange and correlation energy densities that `CoefficientFunctional` combines.

Each takes the invariants of a density and returns energy per volume, [n] in Hartree/Bohr^3, equal
to libxc's functional of the same name. References: B88: Becke, PRA 38, 3098 (1988); VWN: Vosko,
Wilk and Nusair, Can. J. Phys. 58, 1200 (1980), their fit number 5; the others where they are
defined.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.lda import (
    DENSITY_THRESHOLD,
    WIGNER_SEITZ,
    correlation_variables,
    floored,
    interpolate_spin,
    pw92_correlation,
    screened,
    slater_energy_density,
)
from ase_neuralxc.functional.pbe import pbe_correlation, pbe_exchange, total_sigma
from ase_neuralxc.functional.r2scan import (
    TAU_THRESHOLD,
    bounded_sigma,
    r2scan_correlation,
    r2scan_exchange,
)

EnergyFunction = Callable[[DensityInvariants], Tensor]
KINDS = ("exchange", "correlation")


@dataclass(frozen=True)
class EnergyTerm:
    """One energy density of the library.

    Attributes:
        name: its name, as in libxc without the family.
        kind: "exchange" or "correlation".
        function: invariants to [n] energy per volume, twice differentiable, zero and with finite
            derivatives where the density vanishes.
    """

    name: str
    kind: str
    function: EnergyFunction


_LIBRARY: dict[str, EnergyTerm] = {}


def register_energy(name: str, kind: str) -> Callable[[EnergyFunction], EnergyFunction]:
    """Function decorator that adds an energy density to the library.

    Args:
        name: the name that checkpoints will hold; it must never change its meaning.
        kind: "exchange" or "correlation".

    Returns:
        The decorator.

    Raises:
        InvalidInputError: the name is taken, or the kind is unknown.
    """
    if kind not in KINDS:
        raise unknown_name("kind", kind, KINDS)
    if name in _LIBRARY:
        raise InvalidInputError(f"name: {name!r} is already in the library")

    def decorate(function: EnergyFunction) -> EnergyFunction:
        _LIBRARY[name] = EnergyTerm(name, kind, function)
        return function

    return decorate


def energy_term(name: str) -> EnergyTerm:
    """Look up an energy density.

    Args:
        name: one of `energy_names()`.

    Returns:
        The term.

    Raises:
        InvalidInputError: unknown name.
    """
    if name not in _LIBRARY:
        raise unknown_name("energy density", str(name), _LIBRARY)
    return _LIBRARY[name]


def energy_names() -> list[str]:
    """Names in the library, sorted."""
    return sorted(_LIBRARY)


def _spin_scaled(y: DensityInvariants, unpolarised: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """E_x[n_up, n_down] = (E_x[2 n_up] + E_x[2 n_down]) / 2, once for a closed shell."""
    if y.closed_shell:
        return unpolarised(2.0 * y.density[0], 4.0 * y.sigma[0])
    return 0.5 * unpolarised(2.0 * y.density, 4.0 * y.sigma[::2]).sum(0)


def _total_sigma(y: DensityInvariants) -> Tensor:
    return 4.0 * y.sigma[0] if y.closed_shell else total_sigma(y.sigma[::2], y.sigma[1])


@register_energy("lda_x", "exchange")
def lda_exchange(y: DensityInvariants) -> Tensor:
    """Slater exchange."""
    return _spin_scaled(y, lambda density, sigma: slater_energy_density(density))


@register_energy("pbe_x", "exchange")
def pbe_exchange_energy(y: DensityInvariants) -> Tensor:
    """Exchange of Perdew, Burke and Ernzerhof."""
    return _spin_scaled(y, pbe_exchange)


@register_energy("b88_x", "exchange")
def b88_exchange(y: DensityInvariants) -> Tensor:
    """Becke's exchange of 1988: right asymptotic energy density, beta = 0.0042."""
    return _spin_scaled(y, _b88_unpolarised)


@register_energy("r2scan_x", "exchange")
def r2scan_exchange_energy(y: DensityInvariants) -> Tensor:
    """Exchange of r2SCAN."""
    sigma, tau = _r2scan_channels(y)
    if y.closed_shell:
        return r2scan_exchange(2.0 * y.density[0], 4.0 * sigma[0], 2.0 * tau[0])
    return 0.5 * r2scan_exchange(2.0 * y.density, 4.0 * sigma, 2.0 * tau).sum(0)


@register_energy("pw92_c", "correlation")
def pw92_correlation_energy(y: DensityInvariants) -> Tensor:
    """Correlation of the uniform gas by Perdew and Wang (libxc's pw_mod)."""
    total, polarisation, keep = correlation_variables(y.density, y.closed_shell, DENSITY_THRESHOLD)
    root = torch.sqrt(WIGNER_SEITZ / total ** (1.0 / 3.0))
    return torch.where(keep, total * pw92_correlation(root, polarisation), 0.0)


@register_energy("vwn_c", "correlation")
def vwn_correlation_energy(y: DensityInvariants) -> Tensor:
    """Correlation of the uniform gas by Vosko, Wilk and Nusair (VWN5)."""
    total, polarisation, keep = correlation_variables(y.density, y.closed_shell, DENSITY_THRESHOLD)
    root = torch.sqrt(WIGNER_SEITZ / total ** (1.0 / 3.0))
    energy = _VWN_UNPOLARISED.energy(root)
    if polarisation is not None:
        energy = interpolate_spin(
            energy, _VWN_POLARISED.energy(root), -_VWN_STIFFNESS.energy(root), polarisation
        )
    return torch.where(keep, total * energy, 0.0)


@register_energy("pbe_c", "correlation")
def pbe_correlation_energy(y: DensityInvariants) -> Tensor:
    """Correlation of Perdew, Burke and Ernzerhof."""
    return pbe_correlation(y.density, _total_sigma(y), y.closed_shell)


@register_energy("r2scan_c", "correlation")
def r2scan_correlation_energy(y: DensityInvariants) -> Tensor:
    """Correlation of r2SCAN."""
    sigma, tau = _r2scan_channels(y)
    total = 4.0 * sigma[0] if y.closed_shell else total_sigma(sigma, y.sigma[1])
    return r2scan_correlation(y.density, total, tau.sum(0), y.closed_shell)


def _r2scan_channels(y: DensityInvariants) -> tuple[Tensor, Tensor]:
    """[2, n] sigma and tau of each spin as r2SCAN reads them: tau not below that of one orbital."""
    tau = floored(y.tau, TAU_THRESHOLD)
    return bounded_sigma(y.density.clamp_min(0.0), y.sigma[::2], tau), tau


_B88_BETA = 0.0042
#: Below this x^2, x asinh x is x^2 - x^4 / 6 to all digits of float64, without a root of zero.
_SMALL_X2 = 1e-6


def _b88_unpolarised(total_density: Tensor, sigma: Tensor) -> Tensor:
    keep = total_density > 2.0 * DENSITY_THRESHOLD
    density, sigma = screened(keep, (total_density, 1.0), (sigma, 0.0))
    spin = 0.5 * density
    power = spin ** (4.0 / 3.0)
    x2 = 0.25 * sigma / (power * power)
    small = x2 < _SMALL_X2
    x = torch.sqrt(torch.where(small, 1.0, x2))
    x_asinh = torch.where(small, x2 - x2 * x2 / 6.0, x * torch.asinh(x))
    gradient = -2.0 * _B88_BETA * power * x2 / (1.0 + 6.0 * _B88_BETA * x_asinh)
    return slater_energy_density(total_density) + torch.where(keep, gradient, 0.0)


@dataclass(frozen=True)
class _VWNChannel:
    """Parameters of VWN's interpolation in x = sqrt(rs), in Hartree."""

    a: float
    x0: float
    b: float
    c: float

    def energy(self, x: Tensor) -> Tensor:
        """Energy per electron, [n], of one spin channel (eq. 4.4)."""
        q = math.sqrt(4.0 * self.c - self.b**2)
        ratio = self.b * self.x0 / (self.x0**2 + self.b * self.x0 + self.c)
        polynomial = x * x + self.b * x + self.c
        angle = torch.atan(q / (2.0 * x + self.b)) / q
        return self.a * (
            torch.log(x * x / polynomial)
            + 2.0 * self.b * angle
            - ratio
            * (torch.log((x - self.x0) ** 2 / polynomial) + 2.0 * (self.b + 2.0 * self.x0) * angle)
        )


_VWN_UNPOLARISED = _VWNChannel(0.0310907, -0.10498, 3.72744, 12.9352)
_VWN_POLARISED = _VWNChannel(0.01554535, -0.32500, 7.06042, 18.0578)
_VWN_STIFFNESS = _VWNChannel(-1.0 / (6.0 * math.pi**2), -0.0047584, 1.13107, 13.0045)
