"""What a functional on a base does differently from it, at densities of all kinds, as penalties.

`KineticPotential`: the Kohn-Sham operator of a functional of the kinetic-energy density holds

    -1/2 div (1 + 2 v) grad,    v = d e_xc / d tau,

so that orbitals gain without limit where v < -1/2, and a potential that wiggles with tau takes many
cycles. Exchange makes v grow as the inverse cube root of the density: factors that are good at the
densities of molecules can leave low densities, of metals and surfaces, with an operator that is not
bounded from below, and a basis of plane waves finds them.

`BaseDistance`: in closed shells, exchange and correlation can be enhanced against each other at no
cost to the energy. Where shells are open they do not cancel, because exchange scales with each spin
and correlation does not: the moments of magnets come from what training on molecules left over.

Both are mean squares of differences to the functional's own base at densities laid out for it
(`model_densities.spread_gas`), and residuals like the error of a reaction: `gauss_newton` takes
both.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional, SpinScaledFunctional
from ase_neuralxc.training.model_densities import spread_gas

#: Densities whose derivatives are taken together.
_BLOCK = 64
#: Exchange of the uniform gas is - this times density^(4/3), in Hartree/Bohr^3.
_UNIFORM_EXCHANGE = 0.75 * (3.0 / math.pi) ** (1.0 / 3.0)


class _BaseDifference:
    """Differences of a quantity to that of the base, as functions of the weights.

    Subclasses name themselves as the setting does, and implement `_values`.

    Args:
        functional: semi-local, with a base (`zero_head_`).
        places: number of densities.
        seed: of their choice.

    Raises:
        InvalidInputError: a functional without a base, or a nonlocal one.
    """

    name: str
    kind: type = SemilocalFunctional

    def __init__(self, functional: Any, places: int = 2048, seed: tuple[int, ...] = ()) -> None:
        if not isinstance(functional, self.kind) or not hasattr(functional, "zero_head_"):
            raise InvalidInputError(
                f"{self.name}: expected a semi-local functional on a base, got "
                f"{type(functional).__name__}"
            )
        self.functional: Any = functional
        gas = spread_gas(places, seed)
        density, sigma, tau = map(torch.from_numpy, (gas.density, gas.sigma, gas.tau))
        self.gas = DensityInvariants(density, sigma, tau)
        base: Any = copy.deepcopy(functional)
        base.zero_head_()
        self.base = self._values(base, self.gas).detach()

    def residuals(self) -> NDArray:
        """Differences [k] divided by the root of the number of places."""
        difference = self._values(self.functional, self.gas).detach() - self.base
        values: NDArray = difference.flatten().numpy() / np.sqrt(len(difference))
        return values

    def jacobian(self) -> NDArray:
        """Derivatives of the residuals by all weights that are trained, [k, p]."""
        weights = [p for p in self.functional.parameters() if p.requires_grad]
        rows = []
        for start in range(0, len(self.base), _BLOCK):
            part = slice(start, start + _BLOCK)
            gas = (self.gas.density[:, part], self.gas.sigma[:, part], self.gas.tau[:, part])
            values = self._values(self.functional, DensityInvariants(*gas)).flatten()
            parts = torch.autograd.grad(
                values,
                weights,
                torch.eye(len(values), dtype=values.dtype),
                is_grads_batched=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([part.flatten(1).double().cpu() for part in parts], dim=1))
        jacobian: NDArray = torch.cat(rows).numpy()
        return jacobian / np.sqrt(len(self.base))

    def _values(self, functional: Any, gas: DensityInvariants) -> Tensor:
        """The quantity, [n] or [n, m] at n places, differentiable by the weights."""
        raise NotImplementedError(f"{type(self).__name__} must implement _values")


class KineticPotential(_BaseDifference):
    """Differences of d e_xc / d tau of the first spin channel to that of the base."""

    name = "kinetic_potential"

    def _values(self, functional: Any, gas: DensityInvariants) -> Tensor:
        with torch.enable_grad():
            tau = gas.tau.clone().requires_grad_()
            invariants = DensityInvariants(gas.density, gas.sigma, tau)
            energy = functional.local_energy_density(invariants).sum()
            return torch.autograd.grad(energy, tau, create_graph=True)[0][0]


class BaseDistance(_BaseDifference):
    """Differences of exchange and of correlation to those of the base, [n, 2].

    Both in units of the exchange of the unpolarised uniform gas of the same density.
    """

    name = "base_distance"
    kind = SpinScaledFunctional

    def _values(self, functional: Any, gas: DensityInvariants) -> Tensor:
        with torch.enable_grad():
            parts = torch.stack(functional.exchange_and_correlation(gas), dim=1)
        return parts / (_UNIFORM_EXCHANGE * gas.density.sum(0) ** (4.0 / 3.0))[:, None]
