"""Static dipole polarisability from the coupled-perturbed Kohn-Sham equations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.response.orbital_hessian import OrbitalHessian


def polarizability(solution: KSSolution, tolerance: float = 1e-8) -> NDArray:
    """Static polarisability, the second derivative -d2E/dF dF.

    Args:
        solution: an RKS, UKS or ROKS solution.
        tolerance: relative residual of the coupled-perturbed equations.

    Returns:
        [3, 3] in Bohr^3.

    Raises:
        ResponseNotConverged: the equations did not reach the tolerance.
    """
    mol = solution.host.mol
    with mol.with_common_origin((0, 0, 0)):
        dipole = mol.intor_symmetric("int1e_r", comp=3)
    hessian = OrbitalHessian(solution)
    gradients = np.stack([hessian.gradient(component) for component in dipole])
    rotations = np.stack([hessian.solve(gradient, tolerance) for gradient in gradients])
    # E = 2 F g.x + x.H x is lowest at x = -F H^-1 g, with -F^2 g.H^-1 g = -alpha F^2 / 2
    return 2.0 * gradients @ rotations.T
