"""Densities that are known in closed form, on which exact constraints are measured.

All are in Hartree atomic units and come as spin densities, radial gradients and kinetic-energy
densities on a quadrature. Hydrogen-like orbitals have everything analytically.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

#: Coulomb (Hartree) energy of the hydrogen atom's density, in Hartree: 5/16.
HYDROGEN_COULOMB = 0.3125
#: Wigner-Seitz radii in Bohr, laid out evenly in the logarithm, and reduced gradients of densities
#: inside atoms, bonds and metals.
_INSIDE, _GRADIENTS = (0.5, 8.0), (0.0, 2.0)
#: The same of the tails, exp(-2 k r), of molecules and surfaces: there the reduced gradient is at
#: least the slope times the radius, 0.17 for a work function of 1.5 eV, and up to four times that.
_TAIL, _SLOPE, _STEEPER = (6.0, 60.0), 0.17, 4.0
#: Range of (alpha - 1) / sqrt(1 + (alpha - 1)^2), laid out evenly.
_ORBITAL = (-math.sqrt(0.5), 0.98)
#: Largest polarisation, of every other density.
_POLARISED = 0.9


@dataclass(frozen=True)
class ModelDensity:
    """A density on the points of a quadrature, all gradients along one direction.

    Attributes:
        density: [2, n] spin densities.
        gradient: [2, n] their derivatives along the common direction.
        tau: [2, n] kinetic-energy densities.
        weights: [n] quadrature weights in Bohr^3.
    """

    density: NDArray
    gradient: NDArray
    tau: NDArray
    weights: NDArray

    @property
    def sigma(self) -> NDArray:
        """Gradient products (up.up, up.down, down.down), [3, n]."""
        up, down = self.gradient
        return np.stack([up * up, up * down, down * down])

    def scaled(self, factor: float) -> ModelDensity:
        """Uniformly scaled density, factor^3 n(factor r)."""
        return ModelDensity(
            factor**3 * self.density,
            factor**4 * self.gradient,
            factor**5 * self.tau,
            factor**-3 * self.weights,
        )

    def occupied(self, up: float, down: float) -> ModelDensity:
        """Spin-up orbitals of the density, occupied `up` and `down` times.

        Args:
            up: occupation of the spin-up orbitals.
            down: occupation of the same orbitals with spin down.

        Returns:
            A density of fractional charge or spin.
        """
        numbers = np.array([[up], [down]])
        return replace(
            self,
            density=numbers * self.density[0],
            gradient=numbers * self.gradient[0],
            tau=numbers * self.tau[0],
        )


def hydrogen() -> ModelDensity:
    """The hydrogen atom, one spin-up electron: n = exp(-2 r) / pi."""
    radius, weights = _radial(1.0)
    return _spin_up([_orbital_1s(radius, 1.0)], weights)


def helium() -> ModelDensity:
    """Two electrons in an exponential with the variational exponent 27/16."""
    radius, weights = _radial(27 / 16)
    return _spin_up([_orbital_1s(radius, 27 / 16)], weights).occupied(1.0, 1.0)


def neon(polarised: bool = False) -> ModelDensity:
    """Hydrogen-like 1s, 2s and 2p shells with Z = 10.

    Args:
        polarised: leave out the spin-down 2p electrons, a spherical density with three unpaired.

    Returns:
        A density of ten electrons, or seven.
    """
    radius, weights = _radial(5.0)
    inner = [_orbital_1s(radius, 10.0), _orbital_2s(radius, 10.0)]
    up = _spin_up([*inner, _shell_2p(radius, 10.0)], weights)
    if not polarised:
        return up.occupied(1.0, 1.0)
    down = _spin_up(inner, weights)
    return ModelDensity(
        np.stack([up.density[0], down.density[0]]),
        np.stack([up.gradient[0], down.gradient[0]]),
        np.stack([up.tau[0], down.tau[0]]),
        weights,
    )


def modulated_gas(density: float, amplitude: float, reduced_wave: float) -> ModelDensity:
    """A weakly modulated electron gas, n0 (1 + a cos(q x)), one period in a column of 1 Bohr^2.

    Its kinetic-energy density is that of the second-order gradient expansion, with the Laplacian
    (Brack, Jennings and Chu, Phys. Lett. B 65, 1 (1976)).

    Args:
        density: mean density n0.
        amplitude: a.
        reduced_wave: q in units of twice the Fermi wave number.

    Returns:
        An unpolarised density.
    """
    q = reduced_wave * 2 * (3 * math.pi**2 * density) ** (1 / 3)
    points = 400
    x = (np.arange(points) + 0.5) * (2 * math.pi / q / points)
    n = density * (1 + amplitude * np.cos(q * x))
    slope = -density * amplitude * q * np.sin(q * x)
    laplacian = -density * amplitude * q * q * np.cos(q * x)
    tau = 0.3 * (3 * math.pi**2) ** (2 / 3) * n ** (5 / 3) + slope**2 / (72 * n) + laplacian / 6
    half = np.full((2, 1), 0.5)
    return ModelDensity(half * n, half * slope, half * tau, np.full(points, x[1] - x[0]))


def steep_points(density: float, reduced_gradients: NDArray) -> ModelDensity:
    """Points of one density with given reduced gradients s and alpha = 1, weights one.

    Args:
        density: total density at each point.
        reduced_gradients: [n] values of s.

    Returns:
        Unpolarised points.
    """
    s = np.asarray(reduced_gradients, dtype=float)
    slope = 2 * (3 * math.pi**2) ** (1 / 3) * density ** (4 / 3) * s
    uniform = 0.3 * (3 * math.pi**2) ** (2 / 3) * density ** (5 / 3)
    tau = uniform + slope**2 / (8 * density)
    half = np.full((2, 1), 0.5)
    return ModelDensity(half * np.full_like(s, density), half * slope, half * tau, np.ones_like(s))


def spread_gas(places: int, seed: tuple[int, ...] = ()) -> ModelDensity:
    """Densities from those of cores to the tails of surfaces, half of them polarised.

    The first half lies inside, the second in tails. Both spin channels have the same shape, and
    alpha that of the total density.

    Args:
        places: number of densities.
        seed: of their choice.

    Returns:
        The densities, weights one.
    """
    random = np.random.default_rng((*seed, 3))
    inside, tails = places // 2, places - places // 2
    radius = np.concatenate(
        [
            low * (high / low) ** random.uniform(size=number)
            for (low, high), number in ((_INSIDE, inside), (_TAIL, tails))
        ]
    )
    steep = _SLOPE * radius[inside:] * random.uniform(1.0, _STEEPER, tails)
    gradient = np.concatenate([random.uniform(*_GRADIENTS, inside), steep])
    orbital = random.uniform(*_ORBITAL, size=places)
    zeta = random.uniform(-_POLARISED, _POLARISED, size=places) * (np.arange(places) % 2)
    alpha = 1.0 + orbital / np.sqrt(1.0 - orbital**2)
    density = 3.0 / (4.0 * math.pi * radius**3)
    share = np.stack([1.0 + zeta, 1.0 - zeta]) / 2.0
    fermi = (3.0 * math.pi**2) ** (1.0 / 3.0)
    slope = 2.0 * fermi * density ** (4.0 / 3.0) * gradient * share
    channels = density * share
    uniform = 0.3 * (6.0 * math.pi**2) ** (2.0 / 3.0) * channels ** (5.0 / 3.0)
    tau = slope**2 / (8.0 * channels) + alpha * uniform
    return ModelDensity(channels, slope, tau, np.ones(places))


def _radial(exponent: float, points: int = 400) -> tuple[NDArray, NDArray]:
    """Gauss-Legendre in t with r = (1 + t) / (1 - t) / exponent, weights with 4 pi r^2 in them."""
    t, w = np.polynomial.legendre.leggauss(points)
    radius = (1 + t) / (1 - t) / exponent
    kept = exponent * radius < 18.0  # beyond, densities are below 1e-15
    weights = w * 2 / (1 - t) ** 2 / exponent * 4 * math.pi * radius**2
    return radius[kept], weights[kept]


def _orbital_1s(r: NDArray, z: float) -> tuple[NDArray, NDArray, NDArray]:
    """Density, derivative and tau of one electron."""
    value = math.sqrt(z**3 / math.pi) * np.exp(-z * r)
    slope = -z * value
    return value**2, 2 * value * slope, 0.5 * slope**2


def _orbital_2s(r: NDArray, z: float) -> tuple[NDArray, NDArray, NDArray]:
    norm = math.sqrt(z**3 / (32 * math.pi))
    decay = norm * np.exp(-0.5 * z * r)
    value = decay * (2 - z * r)
    slope = -z * decay - 0.5 * z * value
    return value**2, 2 * value * slope, 0.5 * slope**2


def _shell_2p(r: NDArray, z: float) -> tuple[NDArray, NDArray, NDArray]:
    """Three electrons, one in each 2p orbital: a spherical shell."""
    norm = math.sqrt(z**5 / (32 * math.pi))
    radial = norm * r * np.exp(-0.5 * z * r)
    slope = norm * np.exp(-0.5 * z * r) * (1 - 0.5 * z * r)
    # sum over m of |R Y|^2 4 pi / 3 * 3 / (4 pi): the angular average is exact for a closed shell
    tau = 0.5 * (slope**2 + 2 * radial**2 / r**2)
    return radial**2, 2 * radial * slope, tau


def _spin_up(orbitals: list[tuple[NDArray, NDArray, NDArray]], weights: NDArray) -> ModelDensity:
    density, gradient, tau = (sum(parts) for parts in zip(*orbitals, strict=True))
    empty = np.zeros_like(weights)
    return ModelDensity(
        np.stack([density, empty]), np.stack([gradient, empty]), np.stack([tau, empty]), weights
    )
