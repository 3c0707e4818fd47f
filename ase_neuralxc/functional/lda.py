"""The local density approximation: Slater exchange and Perdew-Wang 92 correlation.

Building blocks for other functionals:

- `slater_energy_density(total_density)`: exchange per volume of an unpolarised density;
- `slater_exchange(spin_density)`: exchange per volume of one spin channel, by spin scaling;
- `pw92_energy_per_electron(rs, zeta)`: correlation per electron of the uniform gas;
- `SpinPolarisation`: the powers of 1 + zeta and 1 - zeta that correlation functionals share;
- `correlation_variables`, `moved`, `floored`, `screened`: tiny densities treated as in libxc.

References: Slater, Phys. Rev. 81, 385 (1951); Perdew and Wang, Phys. Rev. B 45, 13244 (1992), with
the more precise constants that libxc calls `lda_c_pw_mod`, which PBE and r2SCAN use too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Exchange of the unpolarised uniform gas is -SLATER * n**(4/3).
SLATER = 0.75 * (3.0 / math.pi) ** (1.0 / 3.0)
#: The Wigner-Seitz radius is WIGNER_SEITZ * n**(-1/3).
WIGNER_SEITZ = (3.0 / (4.0 * math.pi)) ** (1.0 / 3.0)
#: Densities below this contribute nothing and spin densities are floored to it (libxc's value).
DENSITY_THRESHOLD = 1e-15
#: 1 + zeta and 1 - zeta are floored to this: their fractional powers have no derivative at zero.
ZETA_THRESHOLD = 2.0**-52

_THIRD = 1.0 / 3.0
_F_ZETA_NORM = 1.0 / (2.0 ** (4.0 / 3.0) - 2.0)
_F_ZETA_CURVATURE = 8.0 / 9.0 * _F_ZETA_NORM  # f''(0), 1.709921 in the paper


@dataclass(frozen=True)
class PW92Channel:
    """Parameters of one interpolation G(rs), eq. 10 and table I of Perdew and Wang (p = 1)."""

    a: float
    alpha1: float
    beta1: float
    beta2: float
    beta3: float
    beta4: float

    def energy(self, root: Tensor) -> Tensor:
        """G(rs) in Hartree, [n], from `root` = sqrt(rs)."""
        return self._prefactor(root) * torch.log1p(1.0 / self._polynomial(root))

    def energy_and_slope(self, root: Tensor) -> tuple[Tensor, Tensor]:
        """G and dG/drs, [n] each, from `root` = sqrt(rs)."""
        q = self._polynomial(root)
        log, prefactor = torch.log1p(1.0 / q), self._prefactor(root)
        scale = 2.0 * self.a
        dq = scale * (
            (0.5 * self.beta1) / root
            + (self.beta2 + root * (1.5 * self.beta3 + (2.0 * self.beta4) * root))
        )
        slope = (-scale * self.alpha1) * log - prefactor * dq / (q * (q + 1.0))
        return prefactor * log, slope

    def _prefactor(self, root: Tensor) -> Tensor:
        return -2.0 * self.a * (1.0 + self.alpha1 * (root * root))

    def _polynomial(self, root: Tensor) -> Tensor:
        c1, c2, c3, c4 = (2 * self.a * b for b in (self.beta1, self.beta2, self.beta3, self.beta4))
        return root * (c1 + root * (c2 + root * (c3 + c4 * root)))


UNPOLARISED = PW92Channel(0.0310907, 0.21370, 7.5957, 3.5876, 1.6382, 0.49294)
POLARISED = PW92Channel(0.01554535, 0.20548, 14.1189, 6.1977, 3.3662, 0.62517)
#: Parametrises minus the spin stiffness.
STIFFNESS = PW92Channel(0.0168869, 0.11125, 10.357, 3.6231, 0.88026, 0.49671)


@dataclass(frozen=True)
class SpinPolarisation:
    """Powers of 1 + zeta and 1 - zeta, computed once for all terms of a functional.

    Attributes:
        one_plus_zeta: [2, n] 1 + zeta and 1 - zeta, positive.
        root: [2, n] their cube roots.
    """

    one_plus_zeta: Tensor
    root: Tensor

    @classmethod
    def from_zeta(cls, zeta: Tensor) -> SpinPolarisation:
        """Take zeta [n] in [-1, 1]."""
        return cls._from_factors(torch.stack([1.0 + zeta, 1.0 - zeta]))

    @classmethod
    def from_densities(cls, density: Tensor, total: Tensor) -> SpinPolarisation:
        """Take spin densities [2, n] and their sum [n]; no cancellation where zeta is near 1."""
        return cls._from_factors(2.0 * density / total)

    @classmethod
    def _from_factors(cls, factors: Tensor) -> SpinPolarisation:
        factors = factors.clamp_min(ZETA_THRESHOLD)
        return cls(factors, factors**_THIRD)

    @property
    def zeta(self) -> Tensor:
        """[n] (n_up - n_down) / n."""
        return 0.5 * (self.one_plus_zeta[0] - self.one_plus_zeta[1])

    def interpolation(self) -> Tensor:
        """f(zeta) of von Barth and Hedin, [n], from 0 (unpolarised) to 1."""
        return ((self.one_plus_zeta * self.root).sum(0) - 2.0) * _F_ZETA_NORM

    def phi(self) -> Tensor:
        """((1 + zeta)**(2/3) + (1 - zeta)**(2/3)) / 2, [n]: spin scaling of gradients."""
        return 0.5 * (self.root * self.root).sum(0)

    def kinetic(self) -> Tensor:
        """((1 + zeta)**(5/3) + (1 - zeta)**(5/3)) / 2, [n]: spin scaling of kinetic energy."""
        return 0.5 * (self.one_plus_zeta * self.root * self.root).sum(0)


def moved(tensor: Tensor, value: Tensor) -> Tensor:
    """Evaluate at another value but keep the derivative with respect to the original one.

    libxc computes value and derivatives at inputs that it has brought within bounds; a `clamp`
    has no derivative outside, and would lose, for example, the potential of an empty channel.

    Args:
        tensor: what derivatives are taken with respect to.
        value: detached numbers of the same shape.

    Returns:
        `value`, exactly, with derivative one with respect to `tensor`.
    """
    return value + (tensor - tensor.detach())


def floored(tensor: Tensor, threshold: float) -> Tensor:
    """Raise densities to a threshold but keep their derivatives (see `moved`)."""
    return moved(tensor, tensor.detach().clamp_min(threshold))


def screened(keep: Tensor, *values: tuple[Tensor, float]) -> list[Tensor]:
    """Replace inputs at points that will be dropped by harmless ones.

    Selecting the result alone is not enough: the derivative of the branch not taken is multiplied
    by zero, and zero times infinity is NaN.

    Args:
        keep: boolean mask of the points to evaluate.
        *values: pairs of a tensor and the number that stands in for dropped points.

    Returns:
        The tensors, replaced where `keep` is false.
    """
    return [torch.where(keep, tensor, filler) for tensor, filler in values]


def slater_energy_density(total_density: Tensor) -> Tensor:
    """Slater exchange of an unpolarised density.

    Args:
        total_density: total density, any shape, electrons/Bohr^3.

    Returns:
        Energy per volume in Hartree/Bohr^3, of the same shape; zero below the threshold.
    """
    keep = total_density > 2.0 * DENSITY_THRESHOLD
    (density,) = screened(keep, (total_density, 1.0))
    return torch.where(keep, -SLATER * density * density**_THIRD, 0.0)


def slater_exchange(spin_density: Tensor) -> Tensor:
    """Slater exchange of one spin channel: half of that of the unpolarised density 2 n_s.

    Args:
        spin_density: density of one spin, any shape.

    Returns:
        Energy per volume in Hartree/Bohr^3, of the same shape. Sum it over the channels.
    """
    return 0.5 * slater_energy_density(2.0 * spin_density)


def pw92_energy_per_electron(rs: Tensor, zeta: Tensor | None = None) -> Tensor:
    """Correlation energy per electron of the uniform gas.

    Args:
        rs: [n] Wigner-Seitz radius in Bohr, positive.
        zeta: [n] relative spin polarisation in [-1, 1]; None for an unpolarised gas.

    Returns:
        [n] energies in Hartree, not positive.
    """
    polarisation = None if zeta is None else SpinPolarisation.from_zeta(zeta)
    return pw92_correlation(torch.sqrt(rs), polarisation)


def pw92_correlation(root: Tensor, polarisation: SpinPolarisation | None = None) -> Tensor:
    """Correlation energy per electron, from quantities that a functional already has.

    Args:
        root: [n] sqrt(rs).
        polarisation: powers of 1 + zeta and 1 - zeta; None for an unpolarised gas.

    Returns:
        [n] energies in Hartree (Perdew and Wang, eq. 8).
    """
    if polarisation is None:
        return UNPOLARISED.energy(root)
    return interpolate_spin(
        UNPOLARISED.energy(root), POLARISED.energy(root), STIFFNESS.energy(root), polarisation
    )


def correlation_variables(
    density: Tensor, closed_shell: bool, threshold: float
) -> tuple[Tensor, SpinPolarisation | None, Tensor]:
    """Screen spin densities for a correlation functional as libxc does.

    Args:
        density: [2, n] spin densities.
        closed_shell: the two channels are equal; only the first is read.
        threshold: total density below which a point is dropped; floor of the spin densities.

    Returns:
        total density [n], polarisation (None for a closed shell), and the mask [n] of the points
        that count; the others hold harmless values.
    """
    if closed_shell:
        total = 2.0 * density[0]
        keep = total >= threshold
        (total,) = screened(keep, (total, 1.0))
        return total, None, keep
    keep = density.sum(0) >= threshold
    (density,) = screened(keep, (floored(density, threshold), 0.5))
    total = density.sum(0)
    return total, SpinPolarisation.from_densities(density, total), keep


def interpolate_spin(
    unpolarised: Tensor, polarised: Tensor, stiffness: Tensor, polarisation: SpinPolarisation
) -> Tensor:
    """Perdew and Wang's interpolation in zeta (eq. 8), which is linear in the three channels.

    Args:
        unpolarised: [n] value at zeta = 0.
        polarised: [n] value at zeta = 1.
        stiffness: [n] minus the spin stiffness.
        polarisation: the zeta at each point.

    Returns:
        [n] interpolated values.
    """
    f, zeta4 = polarisation.interpolation(), polarisation.zeta**4
    scaled = stiffness / _F_ZETA_CURVATURE
    return unpolarised + f * (zeta4 * (polarised - unpolarised + scaled) - scaled)


class SlaterExchange(SemilocalFunctional):
    """Exchange of the local density approximation alone (libxc's "lda,")."""

    name = "lda_x"
    features = frozenset({Feature.DENSITY})

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3."""
        if invariants.closed_shell:
            return slater_energy_density(2.0 * invariants.density[0])
        return slater_exchange(invariants.density).sum(0)


class LDA(SlaterExchange):
    """Slater exchange and Perdew-Wang 92 correlation (libxc's "lda,lda_c_pw_mod")."""

    name = "lda"

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3."""
        exchange = super().local_energy_density(invariants)
        total, polarisation, keep = correlation_variables(
            invariants.density, invariants.closed_shell, DENSITY_THRESHOLD
        )
        root = math.sqrt(WIGNER_SEITZ) * total ** (-1.0 / 6.0)
        correlation = total * pw92_correlation(root, polarisation)
        return exchange + torch.where(keep, correlation, 0.0)
