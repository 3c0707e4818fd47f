"""The contract of an exchange-correlation functional."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ase_neuralxc.features.grid import DensityInvariants, GridFeatures
from ase_neuralxc.features.names import Feature


@runtime_checkable
class XCFunctional(Protocol):
    """What the backends need of a functional; every implementation is an `nn.Module`.

    Attributes:
        name: short name for reports and the fidelity tag.
        features: the inputs that `energy_density` reads.
        exchange_fraction: fraction of exact exchange that the host adds.

    Optional attributes, read where they are present:
        atomwise (bool): the energy densities on one atom's grid depend on that grid alone, so that
            hosts may evaluate a nonlocal functional atom by atom.
        dispersion (str or None): functional whose dispersion parameters belong to it.
        file_hash (str): SHA-256 of the file it came from, its identity in the fidelity tag.
    """

    name: str
    features: frozenset[Feature]
    exchange_fraction: float

    def energy_density(self, features: GridFeatures) -> Tensor:
        """Exchange-correlation energy per volume, [n] in Hartree/Bohr^3, float64.

        The weighted sum over all points is the energy. It must be twice differentiable.
        """


class SemilocalFunctional(nn.Module):
    """Base of functionals whose energy density at a point depends on that point alone.

    Subclasses set `name`, `features` and `exchange_fraction` and implement `local_energy_density`.
    Backends take the fast pointwise path for this class: they differentiate with respect to the
    invariants and never build gradients.
    """

    name: str = "semilocal"
    features: frozenset[Feature] = frozenset({Feature.DENSITY, Feature.GRADIENT, Feature.TAU})
    exchange_fraction: float = 0.0

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Energy per volume at each point, [n] in Hartree/Bohr^3, float64.

        Args:
            invariants: density, gradient products and kinetic-energy density, float64.

        Returns:
            [n] energy density; finite, with finite first and second derivatives, for densities
            down to zero and tau down to zero.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement local_energy_density")

    def energy_density(self, features: GridFeatures) -> Tensor:
        """Energy per volume at each point of a grid, [n] in Hartree/Bohr^3 (see the protocol)."""
        return self.local_energy_density(features.invariants())

    def forward(self, features: GridFeatures) -> Tensor:
        """Exchange-correlation energy in Hartree: the quadrature of `energy_density`."""
        if features.weights is None:
            raise ValueError("features.weights: expected [n] quadrature weights, got None")
        return torch.dot(features.weights, self.energy_density(features))


class SpinScaledFunctional(SemilocalFunctional):
    """Base of semi-local functionals whose exchange obeys spin scaling.

    Exchange is a sum over spins of a function of the density, gradient product and kinetic-energy
    density of that spin alone; correlation depends on the spin densities, and on gradient and
    kinetic-energy density through those of the total density. Second derivatives of open shells
    then take three passes of the one and four of the other instead of seven of both.

    Subclasses implement `exchange_and_correlation`.
    """

    def exchange_and_correlation(self, invariants: DensityInvariants) -> tuple[Tensor, Tensor]:
        """Both parts of the energy per volume, [n] each in Hartree/Bohr^3, float64.

        Args:
            invariants: as for `local_energy_density`.

        Returns:
            Exchange and correlation.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement exchange_and_correlation")

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Exchange-correlation energy per volume, [n] in Hartree/Bohr^3 (see the base class)."""
        exchange, correlation = self.exchange_and_correlation(invariants)
        return exchange + correlation
