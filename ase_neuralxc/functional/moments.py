"""A nonlocal functional: moments of the density around each atom act back on its grid.

    M_A[c, k, lm] = sum_g w_g n_g f_c(x_g) R_kl(r_gA) Y_lm      points g of atom A
    F_i(g) = tanh( sum_kl R_kl(r_gA) Y_lm . M'_A[i, k, lm] )
    e_xc = e_x of the semi-local functional + e_c F_c(F(g), x_g)

x are the semi-local inputs, M' equivariant mixtures of M, gated by its scalars. The idea of coarse
nodes on the atoms is that of Skala (Luise et al., arXiv:2506.14665); the form is our own. Exchange
stays semi-local, so that all its constraints hold; the correlation factor is bounded, symmetric
under a spin flip and one in the uniform gas whatever the moments are. Cells of atoms far apart do
not see each other, so that energies are extensive. The cost is linear in the number of points.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from e3nn.o3 import spherical_harmonics
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional.architectures import make_settings, register_architecture
from ase_neuralxc.functional.network import DTYPES, AnchoredNetwork
from ase_neuralxc.functional.neural import NeuralSemilocal

#: Exponents of the radial functions exp(-b r^2), Bohr^-2: from the valence shell to the core.
EXPONENTS = (0.08, 0.25, 0.8, 2.5)
#: Typical number of electrons in a moment, to which moments are compared.
_ELECTRONS = 4.0
_INPUTS = 4  # semi-local inputs per point


@dataclass(frozen=True)
class MomentSettings:
    """Everything but the weights of a `MomentFunctional`.

    Attributes:
        width: units of each hidden layer of the correlation network.
        exchange_width: the same of the exchange network.
        depth: number of hidden layers of both.
        channels: densities f_c whose moments are taken, and fields F_i that act back.
        lmax: highest degree of the moments.
        seed: of the initial weights; torch's global generator is neither read nor advanced.
        dtype: of the networks, "float32" or "float64".
        base: what the factors multiply, "lda" or "r2scan".
        exchange_fraction: fraction of exact exchange in place of semi-local exchange.
        head_scale: scale of the initial last layers; 0 starts from the base.
    """

    width: int = 48
    exchange_width: int = 32
    depth: int = 3
    channels: int = 8
    lmax: int = 2
    seed: int = 0
    dtype: str = "float32"
    base: str = "r2scan"
    exchange_fraction: float = 0.0
    head_scale: float = 0.0

    def __post_init__(self) -> None:
        for name, least in (("channels", 1), ("lmax", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise InvalidInputError(
                    f"{name}: expected an integer of at least {least}, got {value!r}"
                )

    def semilocal(self) -> dict[str, Any]:
        """Settings of the semi-local functional that exchange comes from."""
        shared = ("depth", "seed", "dtype", "base", "exchange_fraction", "head_scale")
        return {
            "width": self.exchange_width,
            "exchange_width": self.exchange_width,
            **{name: getattr(self, name) for name in shared},
        }


@register_architecture("moments", MomentSettings)
class MomentFunctional(nn.Module):
    """Atom-centred moments acting back on the grid (see the module).

    Args:
        settings: settings; the defaults if None.
        **changes: single settings by name, for example `MomentFunctional(channels=4)`.

    Raises:
        InvalidInputError: unknown setting, or a value outside its range.
    """

    features = frozenset(Feature)
    #: Points see the moments of their own atom alone.
    atomwise = True

    def __init__(self, settings: MomentSettings | None = None, **changes: Any) -> None:
        super().__init__()
        if settings is None:
            settings = make_settings(MomentSettings, changes)
        elif changes:
            make_settings(MomentSettings, changes)
            settings = replace(settings, **changes)
        self.settings = settings
        self.name = "moments"
        self.semilocal = NeuralSemilocal(**settings.semilocal())
        # not in use: correlation has a network of its own
        del self.semilocal.correlation_net
        self.exchange_fraction = settings.exchange_fraction
        generator = torch.Generator().manual_seed(settings.seed + 1)
        channels, degrees, radial = settings.channels, settings.lmax + 1, len(EXPONENTS)

        def weights(*shape: int, fan_in: int) -> nn.Parameter:
            values = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return nn.Parameter((values / math.sqrt(fan_in)).to(DTYPES[settings.dtype]))

        hidden = 2 * channels
        self.source_weights = nn.ParameterList(
            [weights(hidden, _INPUTS, fan_in=_INPUTS), weights(channels, hidden, fan_in=hidden)]
        )
        self.source_bias = nn.Parameter(torch.zeros(hidden, dtype=DTYPES[settings.dtype]))
        moments = radial * channels
        self.mix = weights(degrees, moments, moments, fan_in=moments)
        self.gate = weights(degrees, moments, moments, fan_in=moments)
        self.correlation_net = AnchoredNetwork(
            channels + _INPUTS, settings.width, settings.depth, settings.dtype, generator,
            settings.head_scale,
        )  # fmt: skip

    def zero_head_(self) -> None:
        """Make the functional its base."""
        self.semilocal.exchange_net.zero_head_()
        self.correlation_net.zero_head_()

    def energy_density(self, features: GridFeatures) -> Tensor:
        """Exchange-correlation energy per volume, [n] in Hartree/Bohr^3 (see the protocol)."""
        if features.coords is None or features.weights is None or features.atom_coords is None:
            raise InvalidInputError("features: expected points, weights and atoms, got none")
        invariants = features.invariants()
        inputs = exact.TotalInputs.from_invariants(invariants)
        local = inputs.stacked()
        electrons = features.weights * torch.where(inputs.counts, inputs.total, 0.0)
        source = electrons[:, None] * self._sources(local)
        fields = [
            self._field(features.coords[points] - atom, source[points])
            for points, atom in zip(features.atom_slices, features.atom_coords, strict=True)
        ]
        stacked = torch.cat([torch.cat(fields), local], dim=1)
        factor = exact.saturate(self.correlation_net(stacked), 2.0)
        correlation = factor * self.semilocal.base.correlation(invariants, inputs)
        correlation = torch.where(inputs.counts, correlation, 0.0)
        return self.semilocal.exchange(invariants, inputs) + correlation

    def _sources(self, local: Tensor) -> Tensor:
        """f_c of each point, [n, channels]."""
        first, second = self.source_weights
        hidden = torch.tanh(local.to(first.dtype) @ first.T + self.source_bias)
        return (hidden @ second.T).to(torch.float64)

    def _field(self, away: Tensor, source: Tensor) -> Tensor:
        """F_i on the points of one atom.

        Args:
            away: [n, 3] from the atom to its points.
            source: [n, channels] electrons times f_c.

        Returns:
            [n, channels].
        """
        square = (away * away).sum(1)
        exponents = away.new_tensor(EXPONENTS)
        radial = torch.exp(-square[:, None] * exponents)  # [n, k]
        field = away.new_zeros(away.shape[0], self.settings.channels)
        gates = None
        for degree in range(self.settings.lmax + 1):
            solid = spherical_harmonics(degree, away, normalize=False, normalization="component")
            # r^l in units of the width of the radial function
            widths = radial * exponents ** (0.5 * degree)
            shape = (widths[:, :, None] * solid[:, None, :]).flatten(1)  # [n, k m]
            moments = (shape.T @ source).unflatten(0, (len(EXPONENTS), -1)) / _ELECTRONS
            moments = moments.transpose(0, 1).flatten(1)  # [m, k c]
            if gates is None:
                gates = torch.sigmoid(self.gate.to(torch.float64) @ torch.tanh(moments[0]))
            mixed = (moments @ self.mix[degree].to(torch.float64).T) * gates[degree]
            mixed = mixed.unflatten(1, (len(EXPONENTS), -1)).transpose(0, 1).flatten(0, 1)
            field = field + shape @ mixed
        return torch.tanh(field)
