"""Functionals that only tests use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional.lda import SlaterExchange


class AtomMoments(nn.Module):
    """Slater exchange times a smooth factor of atom-centred moments that act back on the grid.

    Moments collect density, gradient and tau around each nucleus, with the molecule's weights
    (every point reaches every atom) or, if `atomwise`, with the weights of each atom's own grid
    (points reach their own atom only). Monopoles and dipoles, so that directions count.
    """

    features = frozenset(Feature)
    exchange_fraction = 0.0

    def __init__(self, atomwise: bool = False, strength: float = 0.2, seed: int = 0) -> None:
        super().__init__()
        self.name = "moments per atom" if atomwise else "moments"
        self.atomwise = atomwise
        self.strength = strength
        generator = torch.Generator().manual_seed(seed)
        self.mix = nn.Parameter(0.1 * torch.rand(3, 2, generator=generator, dtype=torch.float64))
        self.exponents = (0.4, 1.1)
        self.exchange = SlaterExchange()

    def energy_density(self, features: GridFeatures) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3."""
        density, tau = features.density.sum(0), features.tau.sum(0)
        sigma = (features.gradient.sum(0) ** 2).sum(0)
        local = torch.stack([density / (1 + density), sigma / (1 + sigma), tau / (1 + tau)])
        if self.atomwise:
            shift = torch.cat([self._field(features, local, s, slice(a, a + 1))
                               for a, s in enumerate(features.atom_slices)])  # fmt: skip
        else:
            shift = self._field(features, local, slice(None), slice(None))
        return self.exchange.energy_density(features) * (1 + self.strength * torch.tanh(shift))

    def _field(self, features: GridFeatures, local: Tensor, points: slice, atoms: slice) -> Tensor:
        weights = features.atomic_weights if self.atomwise else features.weights
        away = features.coords[points, None] - features.atom_coords[None, atoms]  # [n, a, 3]
        square = (away**2).sum(-1)
        field = 0.0
        for k, exponent in enumerate(self.exponents):
            shape = torch.exp(-exponent * square)
            source = (self.mix[:, k] @ local[:, points]) * weights[points]
            monopole = source @ shape
            dipole = torch.einsum("n,na,nax->ax", source, shape, away)
            field = field + shape @ monopole - torch.einsum("na,nax,ax->n", shape, away, dipole)
        return field


class Disguised(nn.Module):
    """A semi-local functional that does not say so, and is treated as a nonlocal one."""

    def __init__(self, functional: nn.Module) -> None:
        super().__init__()
        self.inner = functional
        self.name = functional.name
        self.features = functional.features
        self.exchange_fraction = functional.exchange_fraction

    def energy_density(self, features: GridFeatures) -> Tensor:
        """The energy density of the semi-local functional."""
        return self.inner.energy_density(features)
