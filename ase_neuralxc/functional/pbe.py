"""The generalised gradient approximation of Perdew, Burke and Ernzerhof, and PBE0.

Building blocks: `pbe_exchange` and `pbe_correlation`, energies per volume with their own
treatment of tiny densities.

References: Perdew, Burke, Ernzerhof, Phys. Rev. Lett. 77, 3865 (1996); Adamo and Barone,
J. Chem. Phys. 110, 6158 (1999). The constants are those of libxc.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional.lda import (
    DENSITY_THRESHOLD,
    SLATER,
    WIGNER_SEITZ,
    correlation_variables,
    moved,
    pw92_correlation,
    screened,
)
from ase_neuralxc.functional.protocol import SemilocalFunctional

KAPPA = 0.804
MU = 0.2195149727645171
BETA = 0.06672455060314922
GAMMA = (1.0 - math.log(2.0)) / math.pi**2
#: libxc's thresholds for the total density; spin densities are floored to the second one.
CORRELATION_THRESHOLD = 1e-12
#: s**2 = REDUCED_GRADIENT * sigma / n**(8/3), for a total density.
REDUCED_GRADIENT = 0.25 * (3.0 * math.pi**2) ** (-2.0 / 3.0)
#: t**2 = CORRELATION_GRADIENT * s**2 / (phi**2 rs).
CORRELATION_GRADIENT = 2.0 ** (-14.0 / 3.0) / REDUCED_GRADIENT


def reduced_gradient(density: Tensor, root: Tensor, sigma: Tensor) -> Tensor:
    """Square of the dimensionless gradient s.

    Args:
        density: [..., n] total density, positive.
        root: [..., n] its cube root.
        sigma: [..., n] squared gradient.

    Returns:
        [..., n] s**2.
    """
    per_volume = density * root
    return REDUCED_GRADIENT * sigma / (per_volume * per_volume)


def pbe_exchange(total_density: Tensor, sigma: Tensor) -> Tensor:
    """PBE exchange of an unpolarised density.

    For spin densities take half the sum over spins with density 2 n_s and sigma 4 sigma_ss.

    Args:
        total_density: [..., n] total density.
        sigma: [..., n] squared gradient of the total density.

    Returns:
        [..., n] energy per volume in Hartree/Bohr^3.
    """
    keep = total_density > 2.0 * DENSITY_THRESHOLD
    density, sigma = screened(keep, (total_density, 1.0), (sigma, 0.0))
    root = density ** (1.0 / 3.0)
    mu_p = MU * reduced_gradient(density, root, sigma)
    enhancement = 1.0 + KAPPA - KAPPA * KAPPA / (KAPPA + mu_p)
    return torch.where(keep, (-SLATER * density * root) * enhancement, 0.0)


def pbe_correlation(density: Tensor, sigma: Tensor, closed_shell: bool) -> Tensor:
    """PBE correlation.

    Args:
        density: [2, n] spin densities.
        sigma: [n] squared gradient of the total density.
        closed_shell: the two channels are equal; only the first is read.

    Returns:
        [n] energy per volume in Hartree/Bohr^3.
    """
    total, polarisation, keep = correlation_variables(density, closed_shell, CORRELATION_THRESHOLD)
    (sigma,) = screened(keep, (sigma, 0.0))
    root = total ** (1.0 / 3.0)
    rs = WIGNER_SEITZ / root
    uniform = pw92_correlation(torch.sqrt(rs), polarisation)
    t2 = CORRELATION_GRADIENT * reduced_gradient(total, root, sigma) / rs
    if polarisation is None:
        scale: Tensor | float = GAMMA
    else:
        phi = polarisation.phi()
        scale = GAMMA * phi * phi * phi
        t2 = t2 / (phi * phi)
    # With u = A t^2, eq. 7's argument is 1 + w (1 - 1/(1 + u + u^2)): bounded for any gradient.
    w = torch.expm1(-uniform / scale)
    u = (BETA / GAMMA) * t2 / w
    u_plus = u * (1.0 + u)
    gradient = scale * torch.log1p(w * u_plus / (1.0 + u_plus))
    return torch.where(keep, total * (uniform + gradient), 0.0)


def total_sigma(same_spin: Tensor, mixed: Tensor) -> Tensor:
    """Squared gradient of the total density.

    As in libxc, the mixed product is first brought within the bound that follows from
    |grad n_up +- grad n_down|**2 >= 0, keeping its derivative.

    Args:
        same_spin: [2, n] up.up and down.down gradient products.
        mixed: [n] up.down gradient product.

    Returns:
        [n] squared gradient, not negative.
    """
    bound = 0.5 * same_spin.detach().sum(0)
    return same_spin.sum(0) + 2.0 * moved(mixed, torch.clamp(mixed.detach(), -bound, bound))


class PBE(SemilocalFunctional):
    """PBE, and with `exchange_fraction` a global hybrid of it.

    Args:
        exchange_fraction: fraction of exact exchange, which replaces that of the semi-local one.
        name: name for reports.
    """

    features = frozenset({Feature.DENSITY, Feature.GRADIENT})

    def __init__(self, exchange_fraction: float = 0.0, name: str = "pbe") -> None:
        super().__init__()
        self.exchange_fraction = exchange_fraction
        self.name = name

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3, without the exact exchange."""
        density = invariants.density
        if invariants.closed_shell:
            sigma = 4.0 * invariants.sigma[0]
            exchange = pbe_exchange(2.0 * density[0], sigma)
        else:
            same_spin = invariants.sigma[::2]
            sigma = total_sigma(same_spin, invariants.sigma[1])
            exchange = 0.5 * pbe_exchange(2.0 * density, 4.0 * same_spin).sum(0)
        correlation = pbe_correlation(density, sigma, invariants.closed_shell)
        return (1.0 - self.exchange_fraction) * exchange + correlation
