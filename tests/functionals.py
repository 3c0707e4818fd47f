"""Functionals that only tests use."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

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


class MomentProgram(nn.Module):
    """A program with the inputs of Skala 1.1: moments of density and tau per atom act back."""

    inputs = (
        "density", "kin", "grad", "grid_coords", "grid_weights", "coarse_0_atomic_coords",
        "atomic_grid_weights", "atomic_grid_sizes", "atomic_grid_size_bound_shape",
    )  # fmt: skip

    @torch.jit.export
    def get_exc_density(self, mol: dict[str, Tensor]) -> Tensor:
        density, tau = mol["density"].sum(0), mol["kin"].sum(0)
        sigma = (mol["grad"].sum(0) ** 2).sum(0)
        local = density / (1.0 + density) + 0.5 * tau / (1.0 + tau) + 0.2 * sigma / (1.0 + sigma)
        sizes = mol["atomic_grid_sizes"]
        fields = [density[:0]]
        start = 0
        for atom in range(sizes.shape[0]):
            stop = start + int(sizes[atom])
            away = mol["grid_coords"][start:stop] - mol["coarse_0_atomic_coords"][atom]
            shape = torch.exp(-0.7 * (away**2).sum(-1))
            source = local[start:stop] * mol["atomic_grid_weights"][start:stop] * shape
            dipole = (source.unsqueeze(-1) * away).sum(0)
            fields.append(0.1 * shape * (source.sum() - torch.matmul(away, dipole)))
            start = stop
        slater = -0.9305257363491 * mol["density"].clamp(min=1e-30).pow(4.0 / 3.0).sum(0)
        return slater * (1.0 + 0.2 * torch.tanh(torch.cat(fields)))


def write_program(path: Path, program: nn.Module, inputs: Any, **extra: Any) -> str:
    """Write a program as a Skala file and return its hash; an ellipsis leaves an entry out."""
    files = {
        "metadata": {"version": "test"},
        "features": inputs,
        "expected_d3_settings": "b3lyp5",
        "protocol_version": 2,
        **extra,
    }
    texts = {key: json.dumps(value) for key, value in files.items() if value is not ...}
    torch.jit.save(torch.jit.script(program), str(path), _extra_files=texts)
    return hashlib.sha256(path.read_bytes()).hexdigest()


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
