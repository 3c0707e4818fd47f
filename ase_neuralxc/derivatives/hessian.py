"""Analytic second derivatives with respect to nuclear positions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.derivatives.moving_grid import attach_moving_grid
from ase_neuralxc.errors import InvalidInputError


def hessian(solution: KSSolution) -> NDArray:
    """Hessian of the energy, from coupled-perturbed Kohn-Sham equations.

    If `settings.grid_response` is on, the quadrature grid moves with the atoms (see `moving_grid`)
    and the Hessian is the derivative of the forces; meta-GGAs need it. Otherwise it is PySCF's.

    Args:
        solution: an RKS or UKS solution without additive terms that have their own curvature.

    Returns:
        [3 n_atoms, 3 n_atoms] in Hartree/Bohr^2.

    Raises:
        InvalidInputError: ROKS, for which PySCF has no Hessian, or additive energy terms.
    """
    if solution.reference == "roks":
        raise InvalidInputError(
            "hessian: available for 'rks' and 'uks', got 'roks'; use finite differences of forces"
        )
    mf = first_order(solution.host)
    if getattr(mf, "energy_terms", ()):
        names = [term.name for term in mf.energy_terms]
        raise InvalidInputError(
            f"hessian: no second derivatives for the additive terms {names}; use finite "
            "differences of forces"
        )
    engine = mf.Hessian()
    engine.verbose = 0
    if solution.settings.grid_response:
        engine = attach_moving_grid(engine)
    blocks = np.asarray(engine.kernel())
    n = 3 * blocks.shape[0]
    matrix = blocks.transpose(0, 2, 1, 3).reshape(n, n)
    return 0.5 * (matrix + matrix.T)
