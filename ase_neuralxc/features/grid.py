"""What a functional sees: the density and its semi-local invariants on a quadrature grid.

Everything here is in Hartree atomic units and has two spin channels. A closed-shell density is
held as broadcast views of one channel, so that a functional can evaluate one channel only.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class DensityInvariants:
    """Rotational invariants of a density, all that a semi-local functional depends on.

    Attributes:
        density: [2, n] spin densities, electrons/Bohr^3.
        sigma: [3, n] gradient products (up.up, up.down, down.down), Bohr^-8.
        tau: [2, n] positive kinetic-energy densities sum_i |grad phi_i|^2 / 2, Hartree/Bohr^3.
        closed_shell: both channels are the same density; rows 1 (and 2) repeat row 0.
    """

    density: Tensor
    sigma: Tensor
    tau: Tensor
    closed_shell: bool = False

    @classmethod
    def from_total(cls, density: Tensor, sigma: Tensor, tau: Tensor) -> DensityInvariants:
        """Split the total density of a closed shell evenly over two spin channels.

        Args:
            density: [n] total density.
            sigma: [n] squared gradient of the total density.
            tau: [n] total kinetic-energy density.

        Returns:
            Invariants whose channels are broadcast views, with `closed_shell` set.
        """
        return cls(
            density=(0.5 * density).expand(2, -1),
            sigma=(0.25 * sigma).expand(3, -1),
            tau=(0.5 * tau).expand(2, -1),
            closed_shell=True,
        )

    @classmethod
    def from_channels(cls, density: Tensor, gradient: Tensor, tau: Tensor) -> DensityInvariants:
        """Contract the gradients of stored channels.

        Args:
            density: [c, n]; the total density of a closed shell for c = 1, else spin densities.
            gradient: [c, 3, n].
            tau: [c, n].

        Returns:
            Invariants; those of one channel have `closed_shell` set.
        """
        if len(density) == 1:
            return cls.from_total(density[0], (gradient[0] * gradient[0]).sum(0), tau[0])
        return cls(density, _gradient_products(*gradient), tau)


def _gradient_products(up: Tensor, down: Tensor) -> Tensor:
    """[3, n] products up.up, up.down, down.down of [3, n] gradients."""
    return torch.stack([(up * up).sum(0), (up * down).sum(0), (down * down).sum(0)])


@dataclass(frozen=True)
class GridFeatures:
    """Density, gradient and kinetic-energy density on a grid (DESIGN's central type 4).

    Attributes:
        density: [2, n] spin densities.
        gradient: [2, 3, n] spin-density gradients.
        tau: [2, n] kinetic-energy densities.
        coords: [n, 3] grid points in Bohr, or None for a purely semi-local use.
        weights: [n] quadrature weights in Bohr^3, or None.
        atom_slices: slices of the points that belong to each atom, for nonlocal functionals.
        atom_coords: [n_atoms, 3] nuclear positions in Bohr, or None.
        closed_shell: both channels are the same density.
        atomic_weights: [n] quadrature weights in Bohr^3 of each atom's own grid, before the
            partition of space among the atoms, or None.
    """

    density: Tensor
    gradient: Tensor
    tau: Tensor
    coords: Tensor | None = None
    weights: Tensor | None = None
    atom_slices: tuple[slice, ...] = field(default=())
    atom_coords: Tensor | None = None
    closed_shell: bool = False
    atomic_weights: Tensor | None = None

    def invariants(self) -> DensityInvariants:
        """Contract the gradients to [3, n] products; differentiable."""
        if self.closed_shell:
            sigma = (self.gradient[0] * self.gradient[0]).sum(0).expand(3, -1)
        else:
            sigma = _gradient_products(*self.gradient)
        return DensityInvariants(self.density, sigma, self.tau, self.closed_shell)
