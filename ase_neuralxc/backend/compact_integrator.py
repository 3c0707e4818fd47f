"""Exchange-correlation matrices from dense products over the orbitals that reach a block of points.

PySCF screens pairs of orbitals in small tiles of points. Here a block of neighbouring points keeps
only the orbitals that are not negligible on it, and the rest is left to the BLAS, with half of the
work for the kinetic term, whose matrix is a square. The orbitals of the first blocks stay in memory
between the cycles of an SCF.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.dft.gen_grid import BLKSIZE

from ase_neuralxc.backend.density_change import changes_of
from ase_neuralxc.backend.orbital_sums import (
    Block,
    densities_of,
    natural_orbitals,
    potential_matrix,
)

#: Points per block, a multiple of PySCF's tiles: neighbours, and still enough for the BLAS.
BLOCK = 36 * BLKSIZE
#: Blocks are gathered up to this many points or bytes before the functional is called.
GROUP_POINTS, GROUP_BYTES = 16384, 6e7
#: Orbitals on the grid are kept between cycles up to this size in bytes.
CACHE = 2e8
#: Blocks that more than this share of the orbitals reaches are not worth a copy.
_FULL = 0.9
#: Number of quantities per point that each kind of functional reads.
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


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
        return self._respond(mol, grids, xc_code, dms, kernel)[0]

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
        return self._respond(mol, grids, xc_code, dms, np.asarray(fxc))

    def cache_xc_kernel(
        self, mol: Any, grids: Any, xc_code: str, mo_coeff: Any, mo_occ: Any, spin: int = 0,
        max_memory: float = 2000,
    ) -> tuple[Any, Any, Any]:  # fmt: skip
        """Densities of real orbitals, and first and second derivatives of the energy there."""
        coefficients, numbers = np.asarray(mo_coeff), np.asarray(mo_occ)
        if np.iscomplexobj(coefficients):
            return super().cache_xc_kernel(  # type: ignore[misc]
                mol, grids, xc_code, mo_coeff, mo_occ, spin, max_memory
            )
        polarised = coefficients.ndim == 3
        kind = self._xc_type(xc_code)  # type: ignore[attr-defined]
        spins = [
            (c[:, n > 0], n[n > 0])
            for c, n in zip(
                coefficients if polarised else coefficients[None],
                numbers if polarised else numbers[None],
                strict=True,
            )
        ]
        rho = self._densities(mol, grids, kind, spins)
        if kind == "LDA":
            rho = rho[:, 0]
        if not polarised:
            rho = np.stack([0.5 * rho[0]] * 2) if spin == 1 else rho[0]
        _, vxc, fxc, *_ = self.eval_xc_eff(  # type: ignore[attr-defined]
            xc_code, rho, deriv=2, xctype=kind, spin=spin
        )
        return rho, vxc, fxc

    def densities(self, mol: Any, grids: Any, matrices: Any) -> NDArray:
        """Density, gradient and tau of symmetric real density matrices.

        Args:
            mol: PySCF molecule.
            grids: PySCF grid.
            matrices: [m, nao, nao].

        Returns:
            [m, 5, n].
        """
        return self._densities(mol, grids, "MGGA", [natural_orbitals(m) for m in matrices])

    def _densities(
        self, mol: Any, grids: Any, kind: str, spins: Sequence[tuple[NDArray, NDArray]]
    ) -> NDArray:
        parts = [
            [
                densities_of(block.orbitals, block.restrict(orbitals), numbers)[: _ROWS[kind]]
                for orbitals, numbers in spins
            ]
            for block in self._blocks(mol, grids, 0 if kind == "LDA" else 1)
        ]
        return np.concatenate(parts, axis=-1)

    def _respond(
        self, mol: Any, grids: Any, xc_code: str, matrices: Any, kernel: NDArray
    ) -> NDArray:
        """Changes of matrices [c, nao, nao] by second derivatives [c, rows, c, rows, n]."""
        kind = self._xc_type(xc_code)  # type: ignore[attr-defined]
        changes = changes_of(matrices)
        for block in self._blocks(mol, grids, 0 if kind == "LDA" else 1):
            change = np.stack([c.densities(block)[: _ROWS[kind]] for c in changes])
            here = kernel[..., block.points] * grids.weights[block.points]
            potentials = np.einsum("sag,satbg->tbg", change, here)
            for part, potential in zip(changes, potentials, strict=True):
                part.add(block, potential)
        return np.stack([c.matrix for c in changes])

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


def _parts(group: list[Block]) -> Iterator[tuple[Block, slice]]:
    """Blocks and where their points are within the group."""
    start = group[0].points.start
    for block in group:
        yield block, slice(block.points.start - start, block.points.stop - start)
