"""What a neural semi-local functional multiplies: energies of a known functional, part by part."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from ase_neuralxc.errors import unknown_name
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.constraints import TotalInputs
from ase_neuralxc.functional.lda import SLATER, floored
from ase_neuralxc.functional.pbe import total_sigma
from ase_neuralxc.functional.r2scan import (
    TAU_THRESHOLD,
    bounded_sigma,
    r2scan_correlation,
    r2scan_exchange,
)


class Base(Protocol):
    """Exchange that obeys spin scaling, and correlation, both exact in the uniform gas."""

    @property
    def largest_enhancement(self) -> float:
        """Upper bound of its own exchange enhancement factor."""
        ...

    def exchange(self, density: Tensor, root: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
        """Exchange energy per volume of an unpolarised density.

        Args:
            density: [n] total density, positive.
            root: [n] its cube root.
            sigma: [n] its squared gradient.
            tau: [n] its kinetic-energy density.

        Returns:
            [n] in Hartree/Bohr^3.
        """
        ...

    def correlation(self, invariants: DensityInvariants, inputs: TotalInputs) -> Tensor:
        """Correlation energy per volume.

        Args:
            invariants: of the density at n points.
            inputs: made from them.

        Returns:
            [n] in Hartree/Bohr^3; anything finite where the density is negligible.
        """
        ...


class LDABase:
    """Slater exchange and the correlation of Perdew and Wang (1992)."""

    largest_enhancement = 1.0

    def exchange(self, density: Tensor, root: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
        """See `Base`."""
        return -SLATER * density * root

    def correlation(self, invariants: DensityInvariants, inputs: TotalInputs) -> Tensor:
        """See `Base`."""
        return inputs.uniform_correlation()


class R2SCANBase:
    """r2SCAN: Furness et al., J. Phys. Chem. Lett. 11, 8208 (2020)."""

    largest_enhancement = 1.174

    def exchange(self, density: Tensor, root: Tensor, sigma: Tensor, tau: Tensor) -> Tensor:
        """See `Base`."""
        tau = floored(tau, TAU_THRESHOLD)
        return r2scan_exchange(density, bounded_sigma(density, sigma, tau), tau)

    def correlation(self, invariants: DensityInvariants, inputs: TotalInputs) -> Tensor:
        """See `Base`."""
        density = invariants.density
        tau = floored(invariants.tau, TAU_THRESHOLD)
        sigma = bounded_sigma(density.clamp_min(0.0), invariants.sigma[::2], tau)
        if invariants.closed_shell:
            return r2scan_correlation(density, 4.0 * sigma[0], 2.0 * tau[0], closed_shell=True)
        return r2scan_correlation(density, total_sigma(sigma, invariants.sigma[1]), tau.sum(0))


_BASES: dict[str, type[Base]] = {"lda": LDABase, "r2scan": R2SCANBase}


def find_base(name: str) -> Base:
    """A base by name.

    Args:
        name: "lda" or "r2scan".

    Returns:
        The base.

    Raises:
        InvalidInputError: another name.
    """
    if name not in _BASES:
        raise unknown_name("base", str(name), _BASES)
    return _BASES[name]()
