"""The exchange-correlation part of a Hessian when the quadrature grid moves with the atoms.

PySCF's Hessians differentiate orbitals on a grid at rest. Forces do not: the points move and their
weights change. The two agree only in the limit of a dense grid, which meta-GGAs are far from
(several cm^-1 at level 3, more for soft modes; pyscf issue 3339).

Here the two quantities that a Hessian needs of the functional at a fixed density matrix, the
derivative of its gradient and the derivative of its potential matrix, are central differences of
the gradient (with the response of points and weights) and the potential at displaced nuclei.
Nothing is converged again: the response of the orbitals, and everything but the functional, stay
analytic. The Hessian is then the derivative of the forces at any grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

from ase_neuralxc.backend.xc_gradient import local_gradient

#: Displacement in Bohr: errors of the order of its square and of rounding divided by it are both
#: near 1e-7 Hartree/Bohr^2.
STEP = 1e-3


def attach_moving_grid(engine: Any) -> Any:
    """Give a PySCF RKS or UKS Hessian object the response of the grid."""
    return lib.set_class(engine, (_MovingGrid, engine.__class__))


class _MovingGrid:
    """Hessian mixin: the host's own functional part is empty, ours takes its place."""

    __name_mixin__ = "MovingGrid"
    _keys = {"functional_h1"}
    functional_h1: NDArray
    base: Any

    def partial_hess_elec(
        self, mo_energy: Any, mo_coeff: Any, mo_occ: Any, *args: Any, **kwargs: Any
    ) -> NDArray:
        """Second derivatives at a fixed density matrix, [n_atoms, n_atoms, 3, 3]."""
        density = self.base.make_rdm1(mo_coeff, mo_occ)
        second, self.functional_h1 = functional_derivatives(self.base, density)
        with lib.temporary_env(self, grids=_no_points(self.base.grids)):
            rest = super().partial_hess_elec(  # type: ignore[misc]
                mo_energy, mo_coeff, mo_occ, *args, **kwargs
            )
        return rest + second

    def make_h1(self, mo_coeff: Any, mo_occ: Any, *args: Any, **kwargs: Any) -> Any:
        """Derivatives of the Fock matrix at a fixed density matrix."""
        with lib.temporary_env(self, grids=_no_points(self.base.grids)):
            rest = super().make_h1(mo_coeff, mo_occ, *args, **kwargs)  # type: ignore[misc]
        if isinstance(rest, tuple):
            return tuple(a + b for a, b in zip(rest, self.functional_h1, strict=True))
        return rest + self.functional_h1


def functional_derivatives(mf: Any, density: NDArray) -> tuple[NDArray, NDArray]:
    """Differentiate gradient and potential of the functional at a fixed density matrix.

    Args:
        mf: PySCF RKS or UKS object with its grid.
        density: [nao, nao] total or [2, nao, nao] spin density matrices, with PySCF's tags.

    Returns:
        Second derivatives of the energy [n_atoms, n_atoms, 3, 3], and derivatives of the potential
        matrix [n_atoms, 3, nao, nao], or [2, n_atoms, 3, nao, nao] for spins.
    """
    mol = mf.mol
    second = np.zeros((mol.natm, mol.natm, 3, 3))
    first = np.zeros((mol.natm, 3, *density.shape))
    for atom in range(mol.natm - 1):
        for axis in range(3):
            ahead, behind = (_displaced(mf, density, atom, axis, s) for s in (STEP, -STEP))
            second[atom, :, axis] = (ahead[0] - behind[0]) / (2 * STEP)
            first[atom, axis] = (ahead[1] - behind[1]) / (2 * STEP)
    # Nothing changes when all atoms, and with them all points, move together.
    second[-1], first[-1] = -second[:-1].sum(axis=0), -first[:-1].sum(axis=0)
    return second, first if density.ndim == 2 else np.moveaxis(first, 2, 0)


def _displaced(
    mf: Any, density: NDArray, atom: int, axis: int, step: float
) -> tuple[NDArray, NDArray]:
    """Gradient [n_atoms, 3] and potential matrix of the functional at a displaced nucleus."""
    coords = mf.mol.atom_coords()
    coords[atom, axis] += step
    mol = mf.mol.set_geom_(coords, unit="Bohr", inplace=False)
    grids = mf.grids.copy().reset(mol)
    grids.build(with_non0tab=True)
    closed = density.ndim == 2
    integrator, memory = mf._numint, mf.max_memory
    integrate = integrator.nr_rks if closed else integrator.nr_uks
    potential = integrate(mol, grids, mf.xc, density, max_memory=memory)[2]
    gradient = local_gradient(integrator, mol, grids, mf.xc, np.asarray(density))
    return gradient, np.asarray(potential)


def _no_points(grids: Any) -> Any:
    """A grid without points: every integral over it is zero."""
    empty = grids.copy()
    empty.coords, empty.weights = np.zeros((0, 3)), np.zeros(0)
    empty.non0tab = empty.screen_index = None
    return empty
