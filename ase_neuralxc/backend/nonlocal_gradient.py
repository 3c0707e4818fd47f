"""Nuclear gradients with a nonlocal functional.

The energy E[rho(r), r, w, R] of the grid depends on a nuclear position through the orbitals that
sit on the nucleus, through the points that move with it (their densities and their coordinates),
through the partition weights of all points, and through the position itself. All but the first are
"grid response", which a nonlocal functional always needs: it measures points relative to nuclei.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.grad import rks as grad_rks

from ase_neuralxc.backend.atom_grid import AtomGrid, in_order_of_atoms
from ase_neuralxc.backend.grid_density import grid_densities
from ase_neuralxc.backend.nonlocal_hook import NonlocalNumInt
from ase_neuralxc.errors import InvalidInputError

#: Points of an atom whose orbitals and their second derivatives are held at a time.
BLOCK = 56 * 40


def attach_nonlocal_gradient(mf: Any) -> Any:
    """Give a mean-field object with a `NonlocalNumInt` the gradients that belong to it."""
    return lib.set_class(mf, (_NonlocalKS, mf.__class__))


class _NonlocalKS:
    """Mean-field mixin: the gradients that match the integrator."""

    __name_mixin__ = "Nonlocal"

    def Gradients(self) -> Any:
        gradient = super().Gradients()  # type: ignore[misc]
        return lib.set_class(gradient, (_NonlocalGradients, gradient.__class__))

    def nuc_grad_method(self) -> Any:
        return self.Gradients()

    def Hessian(self) -> Any:
        raise InvalidInputError(
            "hessian: not available for nonlocal functionals; use finite differences of forces"
        )


class _NonlocalGradients:
    """Gradient mixin: Coulomb and exact exchange are the host's, the functional's part is ours."""

    __name_mixin__ = "Nonlocal"
    base: Any
    mol: Any

    def get_veff(self, mol: Any = None, dm: Any = None) -> Any:
        """Derivative of the effective potential matrix, tagged with the explicit derivatives."""
        mol = self.mol if mol is None else mol
        dm = self.base.make_rdm1() if dm is None else dm
        integrator = self.base._numint
        with (
            lib.temporary_env(self, grid_response=False),
            lib.temporary_env(integrator, xctype="HF"),
        ):
            veff = super().get_veff(mol, dm)  # type: ignore[misc]
        explicit, potential = xc_gradient(integrator, mol, self.base.grids, np.asarray(dm))
        veff[:] += potential  # in place: the array carries the tags of density fitting
        veff.exc1_grid = explicit
        return veff


def xc_gradient(
    integrator: NonlocalNumInt, mol: Any, grids: Any, dm: NDArray
) -> tuple[NDArray, NDArray]:
    """Exchange-correlation part of the nuclear gradient.

    Args:
        integrator: the integrator that gave the energy.
        mol: PySCF molecule.
        grids: PySCF grid of the energy.
        dm: [nao, nao] total or [2, nao, nao] spin density matrices.

    Returns:
        [n_atoms, 3] derivatives of the energy other than through the centres of the orbitals, and
        [3, nao, nao] or [2, 3, nao, nao] derivatives of the potential matrix, in PySCF's sign.
    """
    grids = in_order_of_atoms(grids)
    grid = AtomGrid.of(grids)
    spins = dm[None] if dm.ndim == 2 else dm
    density = grid_densities(integrator, mol, grids, list(spins))
    energy = integrator.energy.explicit_derivatives(density.reshape(*dm.shape[:-2], 5, -1), grid)
    # halves as for the potential matrix: nabla acts on one of two orbitals
    rows = energy.density.reshape(density.shape) * np.array([0.5, 1, 1, 1, 0.5])[:, None]
    explicit = energy.atom_coords.copy()
    potential = np.zeros((len(spins), 3, mol.nao, mol.nao))
    for atom, (coords, _, moved_weights) in enumerate(grad_rks.grids_response_cc(grids)):
        points = grid.atom_slices[atom]
        moved = _moved_orbitals(integrator, mol, coords, rows[..., points], grids.cutoff)
        explicit += moved_weights @ energy.weights[points]
        explicit[atom] += energy.coords[points].sum(axis=0)
        explicit[atom] += 2 * np.einsum("sxij,sji->x", moved, spins)
        potential += moved
    return explicit, -potential.reshape(*dm.shape[:-2], *potential.shape[1:])


def _moved_orbitals(
    integrator: NonlocalNumInt, mol: Any, coords: NDArray, rows: NDArray, cutoff: float
) -> NDArray:
    """<nabla i| potential |j> on some points, [spins, 3, nao, nao]."""
    out = np.zeros((len(rows), 3, mol.nao, mol.nao))
    ao_loc = mol.ao_loc_nr()
    for start in range(0, len(coords), BLOCK):
        block = slice(start, start + BLOCK)
        mask = integrator.make_mask(mol, coords[block])
        ao = integrator.eval_ao(mol, coords[block], deriv=2, non0tab=mask, cutoff=cutoff)
        for row, matrix in zip(np.ascontiguousarray(rows[..., block]), out, strict=True):
            grad_rks._gga_grad_sum_(matrix, mol, ao, row, mask, ao_loc)
            grad_rks._tau_grad_dot_(matrix, mol, ao, row[4], mask, ao_loc, True)
    return out
