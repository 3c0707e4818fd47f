"""Sums of known energy densities with learned local coefficients, the form of Grad DFT.

    E_xc = sum_i int c_i(r_s, zeta^2, s, alpha) e_i dr
    c_i = w_i F_i,  0 <= F_i <= bound,  F_i = 1 in the uniform gas

(Casares et al., J. Chem. Phys. 160, 062501 (2024)). The coefficients are symmetric under a spin
flip and cannot change the sign of a term, so exchange stays non-positive. Where the weights of the
exchange terms sum to one, and those of the correlation terms too, the uniform-gas limit is that of
the terms. Coefficients depend on the total density: unlike `NeuralSemilocal`, the sum does not
obey the spin scaling of exchange. Exact exchange is a global fraction, added by the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional.architectures import make_settings, register_architecture
from ase_neuralxc.functional.energy_library import energy_term
from ase_neuralxc.functional.network import DTYPES, AnchoredNetwork
from ase_neuralxc.functional.protocol import SemilocalFunctional


@dataclass(frozen=True)
class CoefficientSettings:
    """Everything but the weights of a `CoefficientFunctional`.

    Attributes:
        terms: names of energy densities, see `energy_library.energy_names()`.
        weights: w_i of the terms; None gives equal shares that sum to one over the exchange terms
            and over the correlation terms.
        width: units of each hidden layer of the network of each coefficient.
        depth: number of hidden layers.
        seed: of the initial weights; torch's global generator is neither read nor advanced.
        dtype: of the networks, "float32" or "float64".
        coefficient_bound: upper bound of F_i, above 1.
        exchange_fraction: fraction of exact exchange, which replaces that of the exchange terms.
        head_scale: scale of the initial last layers; 0 starts from constant coefficients w_i.
    """

    terms: tuple[str, ...] = ("lda_x", "b88_x", "pw92_c", "pbe_c")
    weights: tuple[float, ...] | None = None
    width: int = 32
    depth: int = 3
    seed: int = 0
    dtype: str = "float32"
    coefficient_bound: float = 2.0
    exchange_fraction: float = 0.0
    head_scale: float = 0.3

    def __post_init__(self) -> None:
        # As in JSON and as people write them, lists are welcome.
        object.__setattr__(self, "terms", tuple(self.terms))
        if not self.terms or len(set(self.terms)) != len(self.terms):
            raise InvalidInputError(f"terms: expected different names, got {self.terms}")
        for name in self.terms:
            energy_term(name)
        if self.weights is not None:
            object.__setattr__(self, "weights", tuple(float(w) for w in self.weights))
            if len(self.weights) != len(self.terms) or not all(map(math.isfinite, self.weights)):
                raise InvalidInputError(
                    f"weights: expected {len(self.terms)} finite numbers, one for each term, got "
                    f"{self.weights}"
                )
        for name in ("width", "depth"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InvalidInputError(
                    f"{name}: expected a positive integer, got {getattr(self, name)!r}"
                )
        if self.dtype not in DTYPES:
            raise unknown_name("dtype", str(self.dtype), DTYPES)
        if not 1.0 < self.coefficient_bound < math.inf:
            raise InvalidInputError(
                f"coefficient_bound: expected a finite number above 1, got "
                f"{self.coefficient_bound!r}"
            )
        if not 0.0 <= self.exchange_fraction <= 1.0:
            raise InvalidInputError(
                f"exchange_fraction: expected a number from 0 to 1, got {self.exchange_fraction!r}"
            )

    def shares(self) -> tuple[float, ...]:
        """w_i of each term, with the exchange terms reduced by the exact-exchange fraction."""
        kinds = [energy_term(name).kind for name in self.terms]
        weights = self.weights or tuple(1.0 / kinds.count(kind) for kind in kinds)
        kept = {"exchange": 1.0 - self.exchange_fraction, "correlation": 1.0}
        return tuple(w * kept[kind] for w, kind in zip(weights, kinds, strict=True))


@register_architecture("coefficient", CoefficientSettings)
class CoefficientFunctional(SemilocalFunctional):
    """Energy densities of the library with learned coefficients (see the module).

    Args:
        settings: settings; the defaults if None.
        **changes: single settings by name, for example
            `CoefficientFunctional(terms=("lda_x", "b88_x", "vwn_c"))`.

    Raises:
        InvalidInputError: unknown setting or term, or a value outside its range.
    """

    name = "coefficient"
    features = frozenset({Feature.DENSITY, Feature.GRADIENT, Feature.TAU})

    def __init__(self, settings: CoefficientSettings | None = None, **changes: Any) -> None:
        super().__init__()
        if settings is None:
            settings = make_settings(CoefficientSettings, changes)
        elif changes:
            make_settings(CoefficientSettings, changes)
            settings = replace(settings, **changes)
        self.settings = settings
        self.exchange_fraction = settings.exchange_fraction
        generator = torch.Generator().manual_seed(settings.seed)
        self.networks = nn.ModuleList(
            AnchoredNetwork(
                4, settings.width, settings.depth, settings.dtype, generator, settings.head_scale
            )
            for _ in settings.terms
        )

    def zero_head_(self) -> None:
        """Make every coefficient the constant w_i."""
        for network in self._networks():
            network.zero_head_()

    def _networks(self) -> list[AnchoredNetwork]:
        return [cast(AnchoredNetwork, network) for network in self.networks]

    def coefficients(self, inputs: Tensor) -> list[Tensor]:
        """c_i at each point.

        Args:
            inputs: [n, 4] from `constraints.TotalInputs.stacked`.

        Returns:
            For each term [n] coefficients between 0 and w_i times the bound.
        """
        bound = self.settings.coefficient_bound
        return [
            share * exact.saturate(network(inputs), bound)
            for share, network in zip(self.settings.shares(), self._networks(), strict=True)
        ]

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        """Exchange-correlation energy per volume, [n] in Hartree/Bohr^3 (see the base class)."""
        inputs = exact.TotalInputs.from_invariants(invariants)
        energy = torch.zeros_like(inputs.total)
        coefficients = self.coefficients(inputs.stacked())
        for name, coefficient in zip(self.settings.terms, coefficients, strict=True):
            energy = energy + coefficient * energy_term(name).function(invariants)
        return torch.where(inputs.counts, energy, 0.0)
