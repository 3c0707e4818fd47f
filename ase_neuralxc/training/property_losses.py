"""Losses of what a self-consistent solution is, beyond its energy: density, dipole, forces.

Density and dipole follow the tensors of `response.adjoint.differentiable`, whose backward pass is
one Z-vector solve however many losses are summed. Forces are derivatives of the energy, and the
derivative of the energy by a parameter needs no response, so that along the cotangent c of the
forces

    c . dF/dtheta = -d/dt (dE/dtheta)(R + t c):

one central difference of explicit derivatives, with two SCFs from the density that is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf.dft.numint import NumInt
from torch import Tensor

from ase_neuralxc.backend.molecular import MolecularBackend, first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units
from ase_neuralxc.response.adjoint import DifferentiableSolution
from ase_neuralxc.response.parameters import energy_gradient, trainable

#: Displacement of the nuclei in Bohr, the norm over all atoms.
_STEP = 1e-2
#: Sum of two densities below which a point does not count.
_SMALLEST = 1e-12


@dataclass(frozen=True)
class DensityReference:
    """A reference density on a grid, with the orbitals of the calculation it is compared with.

    Attributes:
        orbitals: [n, nao] atomic orbitals of the calculation.
        weights: [n] quadrature weights in Bohr^3.
        density: [1, n] total or [2, n] spin densities in electrons/Bohr^3.
    """

    orbitals: Tensor
    weights: Tensor
    density: Tensor

    def __post_init__(self) -> None:
        n = self.weights.shape[0]
        if self.density.shape not in ((1, n), (2, n)):
            raise InvalidInputError(
                f"density: expected [1, {n}] or [2, {n}], got {list(self.density.shape)}"
            )

    @classmethod
    def on_grid(
        cls, mol: Any, coords: NDArray, weights: NDArray, density: NDArray
    ) -> DensityReference:
        """A density that is known on points, from whatever source.

        Args:
            mol: PySCF molecule of the calculation it is compared with.
            coords: [n, 3] in Bohr.
            weights: [n] quadrature weights in Bohr^3.
            density: [1, n] total or [2, n] spin densities.

        Returns:
            The reference.
        """
        orbitals = NumInt().eval_ao(mol, np.asarray(coords), deriv=0)
        given = (torch.from_numpy(np.array(a, dtype=float)) for a in (orbitals, weights, density))
        return cls(*given)

    @classmethod
    def from_matrix(cls, solution: KSSolution, density_matrix: NDArray) -> DensityReference:
        """A density from a density matrix in the basis of the solution, on the solution's grid.

        Args:
            solution: a converged molecule with its host object.
            density_matrix: [nao, nao] total or [2, nao, nao], for example of CCSD.

        Returns:
            The reference.
        """
        mf = first_order(solution.host)
        matrices = np.asarray(density_matrix, dtype=float)
        matrices = matrices[None] if matrices.ndim == 2 else matrices
        orbitals = NumInt().eval_ao(mf.mol, mf.grids.coords, deriv=0)
        density = np.einsum("np,spq,nq->sn", orbitals, matrices, orbitals, optimize=True)
        given = (np.array(orbitals), np.array(mf.grids.weights), density)
        return cls(*map(torch.from_numpy, given))


def density_loss(found: DifferentiableSolution, reference: DensityReference) -> Tensor:
    """Symmetric distance of two densities, per electron.

    sum over spins of int (n - m)^2 / (n + m) dr / N: zero for equal densities, 2 for densities that
    do not overlap, and as sensitive in the tails as near the nuclei.

    Args:
        found: of a solution, from `differentiable`.
        reference: on a grid; total densities are compared where either side has no more.

    Returns:
        A scalar.
    """
    matrices = found.density_matrix
    if matrices.ndim == 2:
        matrices = torch.stack([0.5 * matrices] * 2)
    if len(reference.density) == 1:
        matrices = matrices.sum(0, keepdim=True)
    orbitals = reference.orbitals
    own = torch.stack([((orbitals @ m) * orbitals).sum(-1) for m in matrices])
    total = own + reference.density
    kept = total > _SMALLEST
    distance = torch.where(kept, own - reference.density, 0.0) ** 2
    each = distance / torch.where(kept, total, 1.0)
    electrons = (reference.density @ reference.weights).sum()
    return (each @ reference.weights).sum() / electrons


def dipole_loss(found: DifferentiableSolution, reference: NDArray | Sequence[float]) -> Tensor:
    """Squared distance of two dipole moments.

    Args:
        found: of a solution, from `differentiable`.
        reference: [3] in e*Bohr, about the origin of the coordinates.

    Returns:
        A scalar in (e*Bohr)^2.
    """
    wanted = torch.as_tensor(np.asarray(reference, dtype=float))
    return ((found.dipole - wanted) ** 2).sum()


def force_loss(forces: Tensor, reference: NDArray) -> Tensor:
    """Mean squared error of the components of forces.

    Args:
        forces: [n_atoms, 3] from `differentiable_forces`.
        reference: [n_atoms, 3] in Hartree/Bohr.

    Returns:
        A scalar in (Hartree/Bohr)^2.
    """
    return ((forces - torch.as_tensor(np.asarray(reference, dtype=float))) ** 2).mean()


def differentiable_forces(
    solution: KSSolution, functional: Any, backend: MolecularBackend, step: float = _STEP
) -> Tensor:
    """Forces that carry the parameters of a functional in their graph.

    Args:
        solution: converged tightly (`conv_tol_grad` of 1e-6 or below) by `backend`.
        functional: the torch functional it was solved with.
        backend: solves the displaced structures of the backward pass.
        step: displacement in Bohr, the norm over all atoms.

    Returns:
        [n_atoms, 3] in Hartree/Bohr.

    Raises:
        SCFNotConverged: in the backward pass, if a displaced structure does not converge.
    """
    return _Forces.apply(solution, functional, backend, step, *trainable(functional))


class _Forces(torch.autograd.Function):
    """Analytic forces forward, a central difference of explicit derivatives backward."""

    @staticmethod
    def forward(
        ctx: Any,
        solution: KSSolution,
        functional: Any,
        backend: MolecularBackend,
        step: float,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.work = solution, functional, backend, step
        return torch.from_numpy(np.array(backend.forces(solution)))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Any, ...]:
        solution, functional, backend, step = ctx.work
        size = float(torch.linalg.norm(cotangent))
        if size == 0.0:
            return None, None, None, None, *(torch.zeros_like(p) for p in trainable(functional))
        shift = cotangent.numpy() * (step / size * units.BOHR_ANGSTROM)
        ahead, behind = (
            _displaced_gradient(solution, functional, backend, sign * shift) for sign in (1, -1)
        )
        scale = -size / (2.0 * step)
        return (
            None,
            None,
            None,
            None,
            *(scale * (a - b) for a, b in zip(ahead, behind, strict=True)),
        )


def _displaced_gradient(
    solution: KSSolution, functional: Any, backend: MolecularBackend, shift: NDArray
) -> list[Tensor]:
    """dE/dtheta with the nuclei moved by `shift`, [n_atoms, 3] in Angstrom."""
    moved = replace(solution.system, positions=solution.system.positions + shift)
    terms = getattr(first_order(solution.host), "energy_terms", ())
    there = backend.solve(
        moved, functional, solution.settings, terms, guess=solution.density_matrix
    )
    return energy_gradient(there, functional)
