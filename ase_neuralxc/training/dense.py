"""Exchange-correlation matrices of small molecules by dense matrix products.

PySCF screens pairs of orbitals point by point, which pays for large molecules only. Up to some
hundred orbitals the products of the BLAS are several times faster, and the orbitals of the whole
grid fit into memory, so that they are evaluated once per SCF and not once per cycle.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

#: Points per block: large enough for the BLAS, small enough for scratch arrays in the cache.
BLOCK = 2048
#: Orbitals on the grid are kept between cycles up to this size in bytes.
CACHE = 1.5e9
#: Natural occupations below this are rounding noise of the decomposition of a density matrix.
_OCCUPIED = 1e-12
#: Number of quantities per point that each kind of functional reads.
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


def use_dense_products(mf: Any) -> Any:
    """Give a mean-field object of PySCF, of any semi-local functional, the dense integrator."""
    mf._numint = lib.set_class(mf._numint.copy(), (_DenseMatrices, type(mf._numint)))
    mf._numint.blocks = None
    return mf


def densities_of(orbitals: NDArray, occupied: NDArray, occupations: NDArray) -> NDArray:
    """Density, gradient and tau from occupied orbitals.

    Args:
        orbitals: [4, n, nao] atomic orbitals and their gradients at n points.
        occupied: [nao, m] coefficients.
        occupations: [m] numbers of electrons.

    Returns:
        [5, n].
    """
    values = [component @ occupied for component in orbitals]
    out = np.empty((5, orbitals.shape[1]))
    out[0] = (values[0] * values[0]) @ occupations
    for axis in (1, 2, 3):
        out[axis] = (values[0] * values[axis]) @ (2 * occupations)
    out[4] = sum((v * v) @ (0.5 * occupations) for v in values[1:])
    return out


def natural_orbitals(density_matrix: NDArray) -> tuple[NDArray, NDArray]:
    """Coefficients [nao, m] and numbers [m] with D = C diag(n) C^T, of a symmetric [nao, nao]."""
    numbers, vectors = np.linalg.eigh(density_matrix)
    kept = np.abs(numbers) > _OCCUPIED * max(np.abs(numbers).max(), 1e-300)
    return vectors[:, kept], numbers[kept]


class _DenseMatrices:
    """Mixin of PySCF's integrator; what it does not override works as before."""

    blocks: tuple[Any, Any, list[tuple[NDArray, NDArray]]] | None

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

    def _integrate(
        self, mol: Any, grids: Any, xc_code: str, matrices: NDArray
    ) -> tuple[NDArray, float, NDArray]:
        kind = self._xc_type(xc_code)  # type: ignore[attr-defined]
        rows = _ROWS[kind]
        orbitals = [natural_orbitals(m) for m in matrices]
        out = np.zeros_like(matrices)
        electrons, energy = np.zeros(len(matrices)), 0.0
        for ao, weights in self._orbitals(mol, grids):
            rho = np.stack([densities_of(ao, *pair)[:rows] for pair in orbitals])
            given = rho if len(rho) == 2 else rho[0]
            if kind == "LDA":
                given = given[..., 0, :]
            exc, vxc, *_ = self.eval_xc_eff(  # type: ignore[attr-defined]
                xc_code, given, deriv=1, xctype=kind
            )
            electrons += rho[:, 0] @ weights
            energy += float(rho[:, 0].sum(0) * exc @ weights)
            for spin, v in enumerate((vxc * weights).reshape(len(rho), rows, -1)):
                # halves, because the sum with the transpose follows
                half = 0.5 * v[0][:, None] * ao[0]
                for axis in range(1, min(rows, 4)):
                    half += v[axis][:, None] * ao[axis]
                out[spin] += half.T @ ao[0]
                if rows == 5:
                    for axis in (1, 2, 3):
                        out[spin] += (0.25 * v[4][:, None] * ao[axis]).T @ ao[axis]
        return electrons, energy, out + out.transpose(0, 2, 1)

    def _orbitals(self, mol: Any, grids: Any) -> Iterator[tuple[NDArray, NDArray]]:
        """Atomic orbitals [4, n, nao] and weights [n], block by block."""
        if grids.coords is None:
            grids.build(with_non0tab=True)
        coords = grids.coords
        if self.blocks is not None and self.blocks[0] is mol and self.blocks[1] is coords:
            yield from self.blocks[2]
            return
        kept = []
        for start in range(0, len(coords), BLOCK):
            part = slice(start, start + BLOCK)
            block = self.eval_ao(mol, coords[part], deriv=1), grids.weights[part]  # type: ignore[attr-defined]
            kept.append(block)
            yield block
            if len(coords) * mol.nao * 32 > CACHE:
                kept.clear()
        if kept:
            self.blocks = (mol, coords, kept)
