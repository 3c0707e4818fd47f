"""Exchange-correlation matrices from dense products over the orbitals that reach a block of points.

PySCF screens pairs of orbitals in small tiles of points. Here a block of neighbouring points keeps
only the orbitals that are not negligible on it, and the rest is left to the BLAS, with half of the
work for the kinetic term, whose matrix is a square. The orbitals of the first blocks stay in memory
between the cycles of an SCF.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.dft.gen_grid import BLKSIZE

#: Points per block, a multiple of PySCF's tiles: neighbours, and still enough for the BLAS.
BLOCK = 36 * BLKSIZE
#: Blocks are gathered up to this many points or bytes before the functional is called.
GROUP_POINTS, GROUP_BYTES = 16384, 6e7
#: Orbitals on the grid are kept between cycles up to this size in bytes.
CACHE = 2e8
#: Blocks that more than this share of the orbitals reaches are not worth a copy.
_FULL = 0.9
#: Natural occupations below this are rounding noise of the decomposition of a density matrix.
_OCCUPIED = 1e-12
#: Number of quantities per point that each kind of functional reads.
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


@dataclass(frozen=True)
class Block:
    """Orbitals on neighbouring points.

    Attributes:
        points: where they are in the grid.
        orbitals: [4, m, n] (or [1, m, n]) values and gradients of m orbitals.
        index: [m] which orbitals these are, or None for all.
    """

    points: slice
    orbitals: NDArray
    index: NDArray | None

    def restrict(self, coefficients: NDArray) -> NDArray:
        """Rows [m, ...] of coefficients [nao, ...] that belong to the orbitals of the block."""
        return coefficients if self.index is None else coefficients[self.index]

    def add(self, matrix: NDArray, part: NDArray) -> None:
        """Add a matrix [m, m] over the orbitals of the block to one [nao, nao] over all."""
        if self.index is None:
            matrix += part
        else:
            matrix[np.ix_(self.index, self.index)] += part


class CompactIntegration:
    """Mixin of PySCF's integrator; what it does not override works as before."""

    cache_bytes = CACHE
    _cache: tuple[Any, Any, int, list[Block]] | None = None

    def forget_orbitals(self) -> None:
        """Give the memory of the orbitals back."""
        self._cache = None

    def nr_rks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, relativity: int = 0, hermi: int = 1,
        max_memory: float = 2000, verbose: Any = None,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """Electrons, energy and matrix of a closed shell; several matrices go the usual way."""
        if np.ndim(dms) != 2 or hermi != 1:
            return super().nr_rks(  # type: ignore[misc]
                mol, grids, xc_code, dms, relativity, hermi, max_memory, verbose
            )
        electrons, energy, matrices = self._integrate(mol, grids, xc_code, np.asarray(dms)[None])
        return electrons[0], energy, matrices[0]

    def nr_uks(
        self, mol: Any, grids: Any, xc_code: str, dms: Any, relativity: int = 0, hermi: int = 1,
        max_memory: float = 2000, verbose: Any = None,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """Electrons, energy and matrices of two spins; several pairs go the usual way."""
        if np.ndim(dms) != 3 or hermi != 1:
            return super().nr_uks(  # type: ignore[misc]
                mol, grids, xc_code, dms, relativity, hermi, max_memory, verbose
            )
        return self._integrate(mol, grids, xc_code, np.asarray(dms))

    def nr_rks_fxc(
        self, mol: Any, grids: Any, xc_code: str, dm0: Any, dms: Any, relativity: int = 0,
        hermi: int = 0, rho0: Any = None, vxc: Any = None, fxc: Any = None,
        max_memory: float = 2000, verbose: Any = None,
    ) -> Any:  # fmt: skip
        """Change of a closed shell's matrix with one symmetric change of the density matrix."""
        if np.ndim(dms) != 2 or hermi != 1 or fxc is None or np.iscomplexobj(dms):
            usual = super().nr_rks_fxc  # type: ignore[misc]
            return usual(mol, grids, xc_code, dm0, dms, relativity, hermi, rho0, vxc, fxc,
                         max_memory, verbose)  # fmt: skip
        kernel = np.asarray(fxc)[None, :, None]
        return self._respond(mol, grids, xc_code, np.asarray(dms)[None], kernel)[0]

    def nr_uks_fxc(
        self, mol: Any, grids: Any, xc_code: str, dm0: Any, dms: Any, relativity: int = 0,
        hermi: int = 0, rho0: Any = None, vxc: Any = None, fxc: Any = None,
        max_memory: float = 2000, verbose: Any = None,
    ) -> Any:  # fmt: skip
        """Changes of the matrices of two spins with one symmetric change of their densities."""
        if np.ndim(dms) != 3 or hermi != 1 or fxc is None or np.iscomplexobj(dms):
            usual = super().nr_uks_fxc  # type: ignore[misc]
            return usual(mol, grids, xc_code, dm0, dms, relativity, hermi, rho0, vxc, fxc,
                         max_memory, verbose)  # fmt: skip
        return self._respond(mol, grids, xc_code, np.asarray(dms), np.asarray(fxc))

    def _respond(
        self, mol: Any, grids: Any, xc_code: str, changes: NDArray, kernel: NDArray
    ) -> NDArray:
        """Changes of matrices [c, nao, nao] by second derivatives [c, rows, c, rows, n]."""
        kind = self._xc_type(xc_code)  # type: ignore[attr-defined]
        rows = _ROWS[kind]
        spins = [natural_orbitals(m) for m in changes]
        out = np.zeros_like(changes)
        for block in self._blocks(mol, grids, 0 if kind == "LDA" else 1):
            change = np.stack(
                [
                    densities_of(block.orbitals, block.restrict(orbitals), numbers)[:rows]
                    for orbitals, numbers in spins
                ]
            )
            here = kernel[..., block.points] * grids.weights[block.points]
            potentials = np.einsum("sag,satbg->tbg", change, here)
            for matrix, potential in zip(out, potentials, strict=True):
                block.add(matrix, potential_matrix(block.orbitals, potential))
        return out

    def _integrate(
        self, mol: Any, grids: Any, xc_code: str, matrices: NDArray
    ) -> tuple[NDArray, float, NDArray]:
        kind = self._xc_type(xc_code)  # type: ignore[attr-defined]
        rows = _ROWS[kind]
        spins = [natural_orbitals(m) for m in matrices]
        out = np.zeros_like(matrices)
        electrons, energy = np.zeros(len(matrices)), 0.0
        for group in self._groups(mol, grids, 0 if kind == "LDA" else 1):
            span = slice(group[0].points.start, group[-1].points.stop)
            weights = grids.weights[span]
            rho = np.empty((len(spins), rows, weights.size))
            for block, part in _parts(group):
                for spin, (orbitals, numbers) in enumerate(spins):
                    rho[spin, :, part] = densities_of(
                        block.orbitals, block.restrict(orbitals), numbers
                    )[:rows]
            given = rho if len(rho) == 2 else rho[0]
            if kind == "LDA":
                given = given[..., 0, :]
            exc, vxc, *_ = self.eval_xc_eff(  # type: ignore[attr-defined]
                xc_code, given, deriv=1, xctype=kind
            )
            electrons += rho[:, 0] @ weights
            energy += float(rho[:, 0].sum(0) * exc @ weights)
            potentials = (vxc * weights).reshape(len(rho), rows, -1)
            for block, part in _parts(group):
                for matrix, potential in zip(out, potentials, strict=True):
                    block.add(matrix, potential_matrix(block.orbitals, potential[:, part]))
        return electrons, energy, out

    def _groups(self, mol: Any, grids: Any, deriv: int) -> Iterator[list[Block]]:
        """Consecutive blocks, enough of them for one call of the functional."""
        group: list[Block] = []
        points, size = 0, 0
        for block in self._blocks(mol, grids, deriv):
            group.append(block)
            points += block.orbitals.shape[-1]
            size += block.orbitals.nbytes
            if points + BLOCK > GROUP_POINTS or size > GROUP_BYTES:
                yield group
                group, points, size = [], 0, 0
        if group:
            yield group

    def _blocks(self, mol: Any, grids: Any, deriv: int) -> Iterator[Block]:
        if grids.coords is None:
            grids.build(with_non0tab=True)
        coords = grids.coords
        known = self._cache
        if known is None or known[0] is not mol or known[1] is not coords or known[2] < deriv:
            known = self._cache = (mol, coords, deriv, [])
        kept = known[3]
        yield from kept
        room = self.cache_bytes - sum(block.orbitals.nbytes for block in kept)
        for start in range(sum(b.orbitals.shape[-1] for b in kept), len(coords), BLOCK):
            block = self._evaluate(mol, grids, start, deriv)
            room -= block.orbitals.nbytes
            if room > 0:
                kept.append(block)
            yield block

    def _evaluate(self, mol: Any, grids: Any, start: int, deriv: int) -> Block:
        points = slice(start, min(start + BLOCK, len(grids.coords)))
        mask = None
        if grids.non0tab is not None:
            mask = grids.non0tab[start // BLKSIZE : -(-points.stop // BLKSIZE)]
        values = self.eval_ao(  # type: ignore[attr-defined]
            mol, grids.coords[points], deriv=deriv, non0tab=mask, cutoff=grids.cutoff
        )
        orbitals = values.reshape(-1, *values.shape[-2:]).transpose(0, 2, 1)
        if mask is None:
            return Block(points, orbitals, None)
        reached = np.repeat(mask.any(axis=0), np.diff(mol.ao_loc_nr()))
        if reached.mean() > _FULL:
            return Block(points, orbitals, None)
        return Block(points, orbitals[:, reached], np.flatnonzero(reached))


def use_compact_integration(mf: Any) -> Any:
    """Give a mean-field object of PySCF, of any semi-local functional, this integrator.

    Args:
        mf: PySCF mean-field object with PySCF's own integrator.

    Returns:
        The same object, changed.
    """
    mf._numint = lib.set_class(mf._numint.copy(), (CompactIntegration, type(mf._numint)))
    return mf


def natural_orbitals(density_matrix: NDArray) -> tuple[NDArray, NDArray]:
    """Coefficients [nao, m] and numbers [m] with D = C diag(n) C^T, of a symmetric [nao, nao]."""
    numbers, vectors = np.linalg.eigh(density_matrix)
    kept = np.abs(numbers) > _OCCUPIED * max(np.abs(numbers).max(), 1e-300)
    return vectors[:, kept], numbers[kept]


def densities_of(orbitals: NDArray, occupied: NDArray, occupations: NDArray) -> NDArray:
    """Density, gradient and tau from occupied orbitals.

    Args:
        orbitals: [4, nao, n] atomic orbitals and their gradients at n points, or [1, nao, n].
        occupied: [nao, m] coefficients.
        occupations: [m] numbers of electrons.

    Returns:
        [5, n], or [1, n] without gradients.
    """
    values = [occupied.T @ component for component in orbitals]
    out = np.empty((5 if len(values) == 4 else 1, orbitals.shape[-1]))
    out[0] = occupations @ (values[0] * values[0])
    for axis in range(1, len(values)):
        out[axis] = (2 * occupations) @ (values[0] * values[axis])
    if len(values) == 4:
        out[4] = sum((0.5 * occupations) @ (v * v) for v in values[1:])
    return out


def potential_matrix(orbitals: NDArray, potential: NDArray) -> NDArray:
    """Matrix of a potential given by derivatives of the energy, weights included.

    Args:
        orbitals: [4, m, n] atomic orbitals and their gradients, or [1, m, n].
        potential: [rows, n] derivatives with respect to density, gradient and tau, as many as
            there are.

    Returns:
        [m, m], symmetric.
    """
    half = (0.5 * potential[0]) * orbitals[0]
    for axis in range(1, min(len(potential), 4)):
        half += potential[axis] * orbitals[axis]
    matrix = half @ orbitals[0].T
    matrix = matrix + matrix.T
    if len(potential) == 5:
        for sign in (1.0, -1.0):
            (points,) = np.nonzero(sign * potential[4] > 0)
            if points.size:
                matrix += sign * _kinetic(orbitals, potential[4], points)
    return matrix


def _kinetic(orbitals: NDArray, potential: NDArray, points: NDArray) -> NDArray:
    """Half the sum over axes of A A^T, A the gradients times the root of the potential's size."""
    every = points.size == potential.size
    root = np.sqrt(0.5 * np.abs(potential if every else potential[points]))
    matrix = np.zeros((orbitals.shape[1],) * 2)
    for component in orbitals[1:]:
        scaled = (component if every else component[:, points]) * root
        matrix += scaled @ scaled.T  # one half of a product: the BLAS sees the square
    return matrix


def _parts(group: list[Block]) -> Iterator[tuple[Block, slice]]:
    """Blocks and where their points are within the group."""
    start = group[0].points.start
    for block in group:
        yield block, slice(block.points.start - start, block.points.stop - start)
