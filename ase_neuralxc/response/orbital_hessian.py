"""The orbital Hessian of a converged solution as a linear operator, and linear systems with it.

Orbitals are rotated by exp(kappa), kappa antisymmetric; x collects its independent elements. With
occupations D_s and Fock matrices F_s of each spin in the orbital basis,

    E(x) = E(0) + 2 g.x + x.H x,        g = sum_s [F_s, D_s],
    H x = sum_s -([D_s, [F_s, kappa]] + [[kappa, D_s], F_s]) / 2 + [v_s, D_s],

where v_s is the change of the potential by the density change [kappa, D_s]; of each antisymmetric
matrix the elements of x are taken. UKS rotates each spin by itself; RKS and ROKS rotate both by
the same kappa, and for ROKS F_s has occupied-virtual elements even at convergence, so that the
double commutators cannot be shortened (Helgaker, Jorgensen, Olsen, "Molecular Electronic-Structure
Theory", section 10.1).

An operator O with expectation value Tr[D O] has a gradient g_O of the same scale: a perturbation
E + f Tr[D O] rotates the orbitals by x = -f H^-1 g_O. Static properties and adjoint (Z-vector)
equations (Handy and Schaefer, JCP 81, 5031 (1984)) are all solved with this one operator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, minres

from ase_neuralxc.backend.density_change import OccupiedOrbitals, Rotation, tag_rotations
from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import ResponseNotConverged

#: Diagonal elements of the preconditioner are kept above this (Hartree).
_SMALLEST_GAP = 0.05
#: Restarts from the true residual; each gains what rounding in the recurrence had lost.
_RESTARTS = 5


class OrbitalHessian:
    """Orbital Hessian of an RKS, UKS or ROKS solution.

    Args:
        solution: a converged solution that still has its host object.

    Attributes:
        size: number of independent orbital rotations.
        products: matrix-vector products taken so far.
    """

    def __init__(self, solution: KSSolution) -> None:
        mf: Any = first_order(solution.host)
        self._closed = solution.reference == "rks"
        occupations = np.asarray(mf.mo_occ)
        if solution.reference != "uks":
            occupations = np.stack([occupations > 0, occupations == 2])
        self._occupations = occupations.astype(float)
        coefficients = np.asarray(mf.mo_coeff)
        self._orbitals = np.broadcast_to(coefficients, (2, *coefficients.shape[-2:]))
        filled = self._occupations
        pairs = (filled[:, :, None] < 0.5) & (filled[:, None, :] > 0.5)
        #: of each set of rotations: the elements of kappa, and the spins that it rotates
        self._sets: list[tuple[Any, tuple[int, ...]]] = [(pairs[s], (s,)) for s in (0, 1)]
        if solution.reference != "uks":
            self._sets = [(pairs.any(axis=0), (0, 1))]
        overlap, electrons = mf.get_ovlp(), 2.0 if self._closed else 1.0
        self._occupied = [
            OccupiedOrbitals(self._orbitals[spin][:, filled[spin] > 0.5], overlap, electrons)
            for spin in ((0,) if self._closed else (0, 1))
        ]
        self.size = sum(int(mask.sum()) for mask, _ in self._sets)
        self.products = 0
        self._fock = self._fock_matrices(solution, mf)
        self._response = mf.gen_response(
            *((mf.mo_coeff, mf.mo_occ) if self._closed else (self._orbitals, self._occupations)),
            hermi=1,
            with_nlc=False,
        )
        energies = np.einsum("spp->sp", self._fock)
        gaps = pairs * (energies[:, :, None] - energies[:, None, :])
        diagonal = self._collect(gaps)
        self._inverse_diagonal = 1.0 / np.maximum(np.abs(diagonal), _SMALLEST_GAP)

    def _fock_matrices(self, solution: KSSolution, mf: Any) -> NDArray:
        """[2, nmo, nmo]: for RKS and UKS diagonal, the orbital energies of the last cycle."""
        if solution.reference == "roks":
            density = mf.make_rdm1()
            return self._to_orbitals(np.asarray(mf.get_hcore() + mf.get_veff(mf.mol, density)))
        energies = np.broadcast_to(np.asarray(mf.mo_energy), (2, self._orbitals.shape[-1]))
        return energies[:, None, :] * np.eye(energies.shape[-1])

    def __call__(self, rotation: NDArray) -> NDArray:
        """H x, [size] from [size], in Hartree."""
        self.products += 1
        kappa = self._expand(rotation)
        change = _commute(kappa, self._occupations)
        fixed = -_commute(self._fock @ kappa - kappa @ self._fock, self._occupations)
        fixed += change @ self._fock - self._fock @ change
        potential = np.asarray(self._response(tag_rotations(self._rotations(change))))
        induced = _commute(self._to_orbitals(potential), self._occupations)
        return self._collect(induced - 0.5 * fixed)

    def gradient(self, operator: NDArray) -> NDArray:
        """Gradient g_O of an expectation value Tr[D O] (see the module).

        Args:
            operator: [nao, nao], or [2, nao, nao] for one operator per spin.

        Returns:
            [size].
        """
        return self._collect(_commute(self._to_orbitals(operator), self._occupations))

    def density_change(self, rotation: NDArray) -> NDArray:
        """First-order density matrix of a rotation.

        Args:
            rotation: [size].

        Returns:
            [2, nao, nao] symmetric change of the density matrix of each spin.
        """
        change = _commute(self._expand(rotation), self._occupations)
        return self._orbitals @ change @ self._orbitals.transpose(0, 2, 1)

    def solve(self, right: NDArray, tolerance: float = 1e-8, max_products: int = 300) -> NDArray:
        """Solve H x = right by preconditioned MINRES (Paige and Saunders, 1975).

        Args:
            right: [size] right-hand side.
            tolerance: largest norm of the true residual relative to that of `right`.
            max_products: matrix-vector products after which to give up.

        Returns:
            [size] solution.

        Raises:
            ResponseNotConverged: the residual, computed from H x itself, stayed too large.
        """
        scale = float(np.linalg.norm(right))
        if scale == 0.0:
            return np.zeros(self.size)
        shape = (self.size, self.size)
        matrix = LinearOperator(shape, matvec=self, dtype=float)
        preconditioner = LinearOperator(
            shape, matvec=lambda v: self._inverse_diagonal * v.ravel(), dtype=float
        )
        solution, residual = np.zeros(self.size), np.array(right, dtype=float)
        start = self.products
        for _ in range(_RESTARTS):
            left = max_products - (self.products - start)
            if left <= 0:
                break
            wanted = 0.3 * tolerance * scale / float(np.linalg.norm(residual))
            step, _ = minres(matrix, residual, M=preconditioner, rtol=wanted, maxiter=left)
            solution = solution + step
            residual = right - self(solution)
            if np.linalg.norm(residual) <= tolerance * scale:
                return solution
        raise ResponseNotConverged(
            f"response: the residual is {np.linalg.norm(residual) / scale:.1e} of the right-hand "
            f"side after {self.products - start} products, expected at most {tolerance:.1e}; the "
            "solution may be close to an instability"
        )

    def _rotations(self, change: NDArray) -> list[Rotation]:
        """Changes [2, nmo, nmo] of density matrices as rotations of occupied orbitals."""
        turned = [
            orbitals @ part[:, filled > 0.5]
            for orbitals, part, filled in zip(
                self._orbitals, change, self._occupations, strict=True
            )
        ]
        return [Rotation(o, t) for o, t in zip(self._occupied, turned, strict=False)]

    def _to_orbitals(self, operator: NDArray) -> NDArray:
        """[2, nmo, nmo] from [nao, nao] or [2, nao, nao]."""
        return self._orbitals.transpose(0, 2, 1) @ operator @ self._orbitals

    def _expand(self, rotation: NDArray) -> NDArray:
        """Antisymmetric kappa of each spin, [2, nmo, nmo]."""
        kappa = np.zeros_like(self._fock)
        start = 0
        for mask, spins in self._sets:
            count = int(mask.sum())
            for spin in spins:
                kappa[spin][mask] = rotation[start : start + count]
            start += count
        return kappa - kappa.transpose(0, 2, 1)

    def _collect(self, matrices: NDArray) -> NDArray:
        """Independent elements of [2, nmo, nmo], summed over the spins of a set."""
        return np.concatenate(
            [sum(matrices[spin][mask] for spin in spins) for mask, spins in self._sets]
        )


def _commute(matrix: NDArray, diagonal: NDArray) -> NDArray:
    """[A, D] with a diagonal D, per spin."""
    return matrix * (diagonal[:, None, :] - diagonal[:, :, None])
