"""A neural semi-local functional that obeys exact constraints for every set of weights.

    e_xc = (1 - a) 1/2 sum_s e_x[2 n_s] F_x(s_s, alpha_s) + e_c F_c(r_s, zeta^2, s, alpha)

with exchange e_x and correlation e_c of a base, LDA or r2SCAN. Exchange: spin scaling (Oliver and
Perdew, PRA 20, 397 (1979)), uniform coordinate scaling, uniform gas limit, non-positivity and a
local Lieb-Oxford bound. Correlation: F_c is symmetric under a spin flip, non-negative and one in
the uniform gas; on r2SCAN, one electron has none. With a zero head the functional is its base,
energies and derivatives.

The networks run in float32 by default; inputs and energies are float64. A closed shell costs one
evaluation of each network per point.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional.architectures import make_settings, register_architecture
from ase_neuralxc.functional.bases import find_base
from ase_neuralxc.functional.lda import DENSITY_THRESHOLD
from ase_neuralxc.functional.network import DTYPES, AnchoredNetwork
from ase_neuralxc.functional.protocol import SpinScaledFunctional

#: The exchange factor is a smooth function of two bounded variables: wider networks only cost.
_EXCHANGE_WIDTH = 32


@dataclass(frozen=True)
class NeuralSemilocalSettings:
    """Everything but the weights of a `NeuralSemilocal`.

    Attributes:
        width: units of each hidden layer of the correlation network, a function of four variables.
        exchange_width: the same of the exchange network, a function of two; None takes `width`,
            but at most 32.
        depth: number of hidden layers of both.
        seed: of the initial weights; torch's global generator is neither read nor advanced.
        dtype: of the networks, "float32" or "float64".
        base: what the factors multiply, "lda" or "r2scan".
        exchange_bound: of the enhancement over uniform-gas exchange, base included: "lieb-oxford"
            (1.804) or, on "lda", "tight" (1.174).
        correlation_bound: upper bound of F_c, above 1.
        exchange_fraction: a, the fraction of exact exchange in place of semi-local exchange.
        head_scale: standard deviation of the heads' initial outputs, roughly; 0 starts from the
            base.
    """

    width: int = 64
    exchange_width: int | None = None
    depth: int = 3
    seed: int = 0
    dtype: str = "float32"
    base: str = "lda"
    exchange_bound: str = "lieb-oxford"
    correlation_bound: float = 2.0
    exchange_fraction: float = 0.0
    head_scale: float = 0.3

    def __post_init__(self) -> None:
        for name in ("width", "exchange_width", "depth"):
            value = getattr(self, name)
            if name == "exchange_width" and value is None:
                continue
            if not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name}: expected a positive integer, got {value!r}")
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", str(self.dtype), DTYPES)
        if not self.factor_bound() > 1.0:
            raise InvalidInputError(
                f"exchange_bound: expected room above the {self.base} base's own factor, got "
                f"{self.exchange_bound!r}"
            )
        if not 1.0 < self.correlation_bound < math.inf:
            raise InvalidInputError(
                f"correlation_bound: expected a finite number above 1, got "
                f"{self.correlation_bound!r}"
            )
        if not 0.0 <= self.exchange_fraction <= 1.0:
            raise InvalidInputError(
                f"exchange_fraction: expected a number from 0 to 1, got {self.exchange_fraction!r}"
            )
        if not 0.0 <= self.head_scale < math.inf:
            raise InvalidInputError(
                f"head_scale: expected a non-negative number, got {self.head_scale!r}"
            )

    def factor_bound(self) -> float:
        """Upper bound of F_x."""
        bound = exact.exchange_bound(self.exchange_bound)
        return bound / find_base(self.base).largest_enhancement


@register_architecture("neural-semilocal", NeuralSemilocalSettings)
class NeuralSemilocal(SpinScaledFunctional):
    """Neural enhancement of the exchange and the correlation of a base (see the module).

    Args:
        settings: settings; the defaults if None.
        **changes: single settings by name, for example `NeuralSemilocal(width=32, seed=1)`.

    Raises:
        InvalidInputError: unknown setting, or a value outside its range.
    """

    name = "neural-semilocal"
    features = frozenset({Feature.DENSITY, Feature.GRADIENT, Feature.TAU})

    def __init__(self, settings: NeuralSemilocalSettings | None = None, **changes: Any) -> None:
        super().__init__()
        if settings is None:
            settings = make_settings(NeuralSemilocalSettings, changes)
        elif changes:
            make_settings(NeuralSemilocalSettings, changes)
            settings = replace(settings, **changes)
        self.settings = settings
        self.exchange_fraction = settings.exchange_fraction
        self.base = find_base(settings.base)
        generator = torch.Generator().manual_seed(settings.seed)
        shared = (settings.depth, settings.dtype, generator, settings.head_scale)
        exchange_width = settings.exchange_width or min(settings.width, _EXCHANGE_WIDTH)
        self.exchange_net = AnchoredNetwork(2, exchange_width, *shared)
        self.correlation_net = AnchoredNetwork(4, settings.width, *shared)

    def zero_head_(self) -> None:
        """Make the functional its base: both factors become one everywhere."""
        self.exchange_net.zero_head_()
        self.correlation_net.zero_head_()

    def exchange_enhancement(self, gradient: Tensor, orbital: Tensor) -> Tensor:
        """F_x of one spin channel.

        Args:
            gradient: [n] from `constraints.gradient_input`.
            orbital: [n] from `constraints.orbital_input`.

        Returns:
            [n] in [0, bound].
        """
        value = self.exchange_net(torch.stack([gradient, orbital], dim=1))
        return exact.saturate(value, self.settings.factor_bound())

    def correlation_enhancement(self, inputs: Tensor) -> Tensor:
        """F_c of the total density.

        Args:
            inputs: [n, 4] from `constraints.TotalInputs.stacked`.

        Returns:
            [n] in [0, correlation_bound].
        """
        return exact.saturate(self.correlation_net(inputs), self.settings.correlation_bound)

    def exchange(self, invariants: DensityInvariants, inputs: exact.TotalInputs) -> Tensor:
        """Semi-local exchange, its share of the mixture with exact exchange taken.

        Args:
            invariants: of the density at n points.
            inputs: made from them.

        Returns:
            [n] energy per volume in Hartree/Bohr^3.
        """
        if invariants.closed_shell:
            # Exchange channel and total density have the same s and alpha.
            factor = self.exchange_enhancement(inputs.gradient, inputs.orbital)
            sigma, tau = 4.0 * invariants.sigma[0], 2.0 * invariants.tau[0]
            exchange = factor * self.base.exchange(inputs.total, inputs.root, sigma, tau)
            exchange = torch.where(inputs.counts, exchange, 0.0)
        else:
            exchange = self._spin_resolved_exchange(invariants)
        return (1.0 - self.exchange_fraction) * exchange

    def exchange_and_correlation(self, invariants: DensityInvariants) -> tuple[Tensor, Tensor]:
        """Both parts of the energy per volume, [n] each in Hartree/Bohr^3 (see the base class)."""
        inputs = exact.TotalInputs.from_invariants(invariants)
        factor = self.correlation_enhancement(inputs.stacked())
        correlation = factor * self.base.correlation(invariants, inputs)
        correlation = torch.where(inputs.counts, correlation, 0.0)
        return self.exchange(invariants, inputs), correlation

    def _spin_resolved_exchange(self, y: DensityInvariants) -> Tensor:
        """Both channels in one batch, each as an unpolarised density of twice its size."""
        channel, occupied = exact.kept(2.0 * y.density.reshape(-1), 2.0 * DENSITY_THRESHOLD)
        sigma, tau = 4.0 * y.sigma[::2].reshape(-1), 2.0 * y.tau.reshape(-1)
        root = exact.cube_root(channel)
        gradient = exact.gradient_input(channel, root, sigma)
        orbital = exact.orbital_input(channel, sigma, tau, exact.uniform_tau(channel, root))
        factor = self.exchange_enhancement(gradient, orbital)
        exchange = factor * self.base.exchange(channel, root, sigma, tau)
        return 0.5 * torch.where(occupied, exchange, 0.0).reshape(2, -1).sum(0)
