"""Moments that minimise the energy at a fixed geometry.

Nested in a relaxation or a trajectory of the atoms, each step starts from the moments of the step
before: they follow adiabatically, and by the Hellmann-Feynman theorem forces and stress at relaxed
moments need no term for their response.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import AtomGraph
from mlip.model.potential import Potential, Wanted


@dataclass(frozen=True)
class MomentRelaxation:
    """How moments are relaxed.

    Attributes:
        tolerance: largest magnetic force that may be left, in eV/mu_B.
        steps: largest number of iterations.
        largest: no component leaves -largest..largest mu_B, beyond which there are no data.
    """

    tolerance: float = 1e-3
    steps: int = 200
    largest: float = 10.0


@dataclass(frozen=True, eq=False)
class RelaxedMoments:
    """Outcome.

    Attributes:
        graph: the batch with relaxed moments.
        converged: whether the tolerance was met.
        residual: largest magnetic force left, in eV/mu_B, where a bound does not hold it.
        evaluations: energies computed.
    """

    graph: AtomGraph
    converged: bool
    residual: float
    evaluations: int


def relax_moments(
    potential: Potential, graph: AtomGraph, settings: MomentRelaxation | None = None
) -> RelaxedMoments:
    """Minimise the energy over all moments (L-BFGS-B).

    A moment that is exactly zero stays zero: there the energy is stationary by time reversal. Start
    from moments that break the symmetry.

    Args:
        potential: with moments as an input.
        graph: the batch; its moments are the start. Structures are relaxed together.
        settings: tolerance and limits.

    Returns:
        The moments, converged or not.

    Raises:
        InvalidInputError: a potential or a graph without moments.
    """
    settings = settings or MomentRelaxation()
    if graph.magmoms is None:
        raise InvalidInputError("graph: expected moments to start from, got none")
    start = graph.magmoms
    wanted = Wanted(forces=False, magnetic_forces=True)

    def moments(x: NDArray) -> Tensor:
        return torch.from_numpy(x.reshape(start.shape)).to(start)

    def energy(x: NDArray) -> tuple[float, NDArray]:
        out = potential(replace(graph, magmoms=moments(x)), wanted)
        gradient = -out["magnetic_forces"].double().cpu().numpy()
        return float(out["energy"].sum()), gradient.ravel()

    bound = settings.largest
    found = minimize(
        energy,
        np.asarray(start.double().cpu()).ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-bound, bound)] * start.numel(),
        options={"maxiter": settings.steps, "gtol": settings.tolerance, "ftol": 0.0},
    )
    # Where a bound holds a moment, the force that pushes against it is no residual.
    held = np.where(np.abs(found.x) >= bound, np.sign(found.x) * found.jac < 0, False)
    residual = float(np.abs(np.where(held, 0.0, found.jac)).max(initial=0.0))
    relaxed = replace(graph, magmoms=moments(found.x))
    return RelaxedMoments(relaxed, residual <= settings.tolerance, residual, int(found.nfev))
