"""What a functional adds to the kinetic energy operator, against what its base adds.

The Kohn-Sham operator of a functional of the kinetic-energy density holds

    -1/2 div (1 + 2 v) grad,    v = d e_xc / d tau,

so that orbitals gain without limit where v < -1/2, and a potential that wiggles with tau takes many
cycles. Exchange makes v grow as the inverse cube root of the density: factors that are good at the
densities of molecules can leave low densities, of metals and surfaces, with an operator that is not
bounded from below, and a basis of plane waves finds them. The penalty is the mean square of the
difference to v of the functional's own base, at densities of all kinds
(`model_densities.spread_gas`); it is a residual like the error of a reaction: `gauss_newton` takes
both.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.training.model_densities import spread_gas

#: Densities whose derivatives are taken together.
_BLOCK = 64


class KineticPotential:
    """Differences of d e_xc / d tau to that of the base, as functions of the weights.

    Args:
        functional: semi-local, with a base (`zero_head_`).
        places: number of densities.
        seed: of their choice.

    Raises:
        InvalidInputError: a functional without a base, or a nonlocal one.
    """

    def __init__(self, functional: Any, places: int = 2048, seed: tuple[int, ...] = ()) -> None:
        if not isinstance(functional, SemilocalFunctional) or not hasattr(functional, "zero_head_"):
            raise InvalidInputError(
                "kinetic_potential: expected a semi-local functional on a base, got "
                f"{type(functional).__name__}"
            )
        self.functional: Any = functional
        gas = spread_gas(places, seed)
        self.density, self.sigma, self.tau = map(
            torch.from_numpy, (gas.density, gas.sigma, gas.tau)
        )
        base: Any = copy.deepcopy(functional)
        base.zero_head_()
        self.base = self._potential(base).detach()

    def residuals(self) -> NDArray:
        """Differences [k] divided by the root of their number."""
        difference = self._potential(self.functional).detach() - self.base
        values: NDArray = difference.numpy() / np.sqrt(len(difference))
        return values

    def jacobian(self) -> NDArray:
        """Derivatives of the residuals by all weights that are trained, [k, p]."""
        weights = [p for p in self.functional.parameters() if p.requires_grad]
        rows = []
        for start in range(0, len(self.base), _BLOCK):
            values = self._potential(self.functional, slice(start, start + _BLOCK))
            parts = torch.autograd.grad(
                values,
                weights,
                torch.eye(len(values), dtype=values.dtype),
                is_grads_batched=True,
                materialize_grads=True,
            )
            rows.append(torch.cat([part.flatten(1).double().cpu() for part in parts], dim=1))
        jacobian: NDArray = torch.cat(rows).numpy()
        return jacobian / np.sqrt(len(jacobian))

    def _potential(self, functional: Any, part: slice = slice(None)) -> Tensor:
        """Derivative by tau of the first spin channel, [k], differentiable by the weights."""
        with torch.enable_grad():
            tau = self.tau[:, part].clone().requires_grad_()
            invariants = DensityInvariants(self.density[:, part], self.sigma[:, part], tau)
            energy = functional.local_energy_density(invariants).sum()
            return torch.autograd.grad(energy, tau, create_graph=True)[0][0]
