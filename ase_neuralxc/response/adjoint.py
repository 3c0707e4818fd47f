"""Self-consistent quantities as functions of a functional's parameters, for torch's autograd.

`differentiable(solution, functional)` returns the energy, the density matrix and the orbital
energies of a converged solution as tensors. Their derivatives with respect to the parameters come
from one adjoint (Z-vector) solve, whatever the loss: with L_D the derivative of the loss by the
density matrix and P = sum_p (dL/de_p) C_p C_p^T,

    y = H^-1 g[L_D + K[P]],    dL/dtheta = (dL/dE) dE/dtheta + d/dtheta Tr(v_xc (P - dD(y)))

(`orbital_hessian` defines H, g and dD; K is the change of the Fock matrix with the density). A loss
of the energy alone needs no solve. Nothing of the SCF's own path enters, unlike in unrolled SCF.

Second derivatives of the functional at every point are most of the cost. `response_level` has H
and K on a coarser grid, as is common for coupled-perturbed equations (Neese, J. Comput. Chem. 24,
1740 (2003)); d/dtheta stays on that of the solution. At level 1 instead of 3 the derivative changes
by 0.2 to 1.5 % (water, CH3, O2, ethanol), less than from level 3 to 4 of everything (1 to 7 %).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.response.orbital_hessian import OrbitalHessian
from ase_neuralxc.response.parameters import energy_gradient, mixed_gradient, trainable


@dataclass(frozen=True)
class DifferentiableSolution:
    """Tensors that carry the parameters of a functional in their graph; Hartree atomic units.

    Attributes:
        energy: total energy, a scalar.
        density_matrix: [nao, nao] for a closed shell, else [2, nao, nao].
        orbital_energies: [nmo], or [2, nmo] for UKS; for ROKS their derivative is refused.
        dipole: [3] dipole moment in e*Bohr.
    """

    energy: Tensor
    density_matrix: Tensor
    orbital_energies: Tensor
    dipole: Tensor


def differentiable(
    solution: KSSolution,
    functional: Any,
    tolerance: float = 1e-7,
    response_level: int | None = None,
) -> DifferentiableSolution:
    """Attach a converged solution to the parameters of its functional.

    Args:
        solution: converged tightly (`conv_tol_grad` of 1e-6 or below), with its host object.
        functional: the torch functional it was solved with.
        tolerance: relative residual of the adjoint equations.
        response_level: of the grid for H and K; None for the grid of the solution.

    Returns:
        Tensors whose backward pass solves the adjoint equations once.

    Raises:
        InvalidInputError: for a grid level that does not exist.
        ResponseNotConverged: in the backward pass, if the equations cannot be solved.
    """
    if response_level is not None and response_level not in range(10):
        raise InvalidInputError(
            f"response_level: expected an integer from 0 to 9, or None, got {response_level!r}"
        )
    energy, density, levels = _Attach.apply(
        solution, functional, tolerance, response_level, *trainable(functional)
    )
    mol = solution.host.mol
    with mol.with_common_origin((0, 0, 0)):
        operator = torch.from_numpy(mol.intor_symmetric("int1e_r", comp=3))
    nuclei = torch.from_numpy(mol.atom_charges() @ mol.atom_coords())
    total = density if density.ndim == 2 else density.sum(0)
    dipole = nuclei - torch.einsum("xij,ji->x", operator, total)
    return DifferentiableSolution(energy, density, levels, dipole)


class _Attach(torch.autograd.Function):
    """Values of a solution forward, the adjoint equations backward."""

    @staticmethod
    def forward(
        ctx: Any,
        solution: KSSolution,
        functional: Any,
        tolerance: float,
        response_level: int | None,
        *parameters: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.solution, ctx.functional = solution, functional
        ctx.tolerance, ctx.response_level = tolerance, response_level
        ctx.set_materialize_grads(False)
        return (
            torch.tensor(solution.energy, dtype=torch.float64),
            torch.from_numpy(np.array(solution.density_matrix, dtype=float)),
            torch.from_numpy(np.array(solution.mo_energy, dtype=float)),
        )

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Any, ...]:
        by_energy, by_density, by_levels = cotangents
        gradients: list[Any] = [0.0] * len(trainable(ctx.functional))
        if by_energy is not None and bool(by_energy != 0):
            explicit = energy_gradient(ctx.solution, ctx.functional)
            gradients = [by_energy.to(g.dtype) * g for g in explicit]
        if by_density is not None or by_levels is not None:
            coarse = _on_grid(ctx.solution, ctx.response_level)
            direction = _adjoint_density(coarse, by_density, by_levels, ctx.tolerance)
            if direction is not None:
                mixed = mixed_gradient(ctx.solution, ctx.functional, direction)
                gradients = [g + m for g, m in zip(gradients, mixed, strict=True)]
        return (None, None, None, None, *(g if torch.is_tensor(g) else None for g in gradients))


def _on_grid(solution: KSSolution, level: int | None) -> KSSolution:
    """The solution with a host whose grid has another level, and the same orbitals."""
    if level is None:
        return solution
    mf = first_order(solution.host).copy()
    mf.grids = mf.grids.copy()
    mf.grids.level, mf.grids.coords = level, None
    mf.grids.build(with_non0tab=True)
    # an integrator of its own: the other one keeps the orbitals on its points
    mf._numint = copy.copy(mf._numint)
    return replace(solution, host=mf)


def _adjoint_density(
    solution: KSSolution, by_density: Tensor | None, by_levels: Tensor | None, tolerance: float
) -> NDArray | None:
    """P - dD(y) of the module, in the shape of the density matrix; None if nothing asks for it."""
    mf = first_order(solution.host)
    loss = None if by_density is None else _symmetric(by_density.numpy())
    weights = None
    if by_levels is not None and bool((by_levels != 0).any()):
        if solution.reference == "roks":
            raise InvalidInputError(
                "orbital_energies: derivatives are available for 'rks' and 'uks', got 'roks', "
                "whose orbital energies are not those of one Fock matrix"
            )
        c = np.asarray(solution.mo_coeff)
        weights = (c * by_levels.numpy()[..., None, :]) @ np.swapaxes(c, -1, -2)
        induced = np.asarray(mf.gen_response(hermi=1, with_nlc=False)(weights))
        loss = induced if loss is None else loss + induced
    if loss is None:
        return None
    hessian = OrbitalHessian(solution)
    rotation = hessian.solve(hessian.gradient(loss), tolerance)
    change = hessian.density_change(rotation)
    if solution.reference == "rks":
        change = change.sum(axis=0)
    return -change if weights is None else weights - change


def _symmetric(matrix: NDArray) -> NDArray:
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))
