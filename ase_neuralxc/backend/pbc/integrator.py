"""PySCF's k-point integrator: orbitals kept on the grid, and a torch functional in it.

Gaussians of a crystal are sums over hundreds of images, and PySCF evaluates them anew in every
cycle, for the Coulomb potential and for the functional. They only depend on the geometry: here they
are kept for the whole calculation where they fit into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.pbc.dft.numint import KNumInt

from ase_neuralxc.backend.hook import TorchNumInt
from ase_neuralxc.backend.precision import GrowingPrecision
from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Part of the memory budget that the orbitals may take.
SHARE = 0.5


class CachingKNumInt(KNumInt):
    """The k-point integrator with orbitals and their gradients kept between cycles.

    Args:
        budget: memory for the calculation in MB.
    """

    def __init__(self, budget: float = 4000.0) -> None:
        super().__init__()
        self.budget = budget
        self._kept: tuple[tuple, list[tuple]] | None = None

    def block_loop(
        self,
        cell: Any,
        grids: Any,
        nao: int | None = None,
        deriv: int = 0,
        kpts: NDArray | None = None,
        kpts_band: NDArray | None = None,
        max_memory: float = 2000,
        non0tab: Any = None,
        blksize: int | None = None,
    ) -> Iterator[tuple]:
        """Blocks of orbitals, mask, weights and points, as in PySCF; kept up to first derivatives.

        Args:
            cell: PySCF cell.
            grids: its grid.
            nao: number of orbitals.
            deriv: highest derivative of the orbitals.
            kpts: [nk, 3] k-points in 1/Bohr.
            kpts_band: other k-points for the orbitals of the potential matrix.
            max_memory: of a block, in MB.
            non0tab: mask of negligible orbitals.
            blksize: points per block.

        Yields:
            Orbitals on both sets of k-points, mask, weights, points.
        """
        loop = super().block_loop
        if kpts is None or kpts_band is not None or deriv > 1 or not self._fits(cell, grids, kpts):
            yield from loop(cell, grids, nao, deriv, kpts, kpts_band, max_memory, non0tab, blksize)
            return
        key = (kpts.tobytes(), tuple(cell.mesh), cell._env.tobytes())
        if self._kept is None or self._kept[0] != key:
            blocks = list(loop(cell, grids, nao, 1, kpts, None, max_memory, non0tab, blksize))
            self._kept = key, blocks
        for orbitals, _, mask, weight, coords in self._kept[1]:
            chosen = orbitals if deriv else [ao[0] for ao in orbitals]
            yield chosen, chosen, mask, weight, coords

    def _fits(self, cell: Any, grids: Any, kpts: NDArray) -> bool:
        size = 16 if np.abs(kpts).max() > 1e-9 else 8
        megabytes = np.prod(cell.mesh) * len(kpts) * cell.nao * 4 * size / 1e6
        return grids is not None and megabytes < SHARE * self.budget

    def reset(self, cell: Any = None) -> CachingKNumInt:
        """Forget the orbitals."""
        self._kept = None
        return self


class TorchKNumInt(GrowingPrecision, CachingKNumInt, TorchNumInt):
    """The k-point integrator's loops with the molecular hook's evaluation of the functional.

    The order of the bases matters: what both integrators have (grids, density, matrices) is the
    k-point version; what the hook replaces (`eval_xc_eff` and the questions about the functional)
    the k-point integrator inherits from a common ancestor, and gets from the hook instead.

    Args:
        functional: a semi-local functional; it is moved to `device`.
        device: torch device on which the functional is evaluated.
        budget: memory for the calculation in MB.
    """

    def __init__(
        self, functional: SemilocalFunctional, device: str = "cpu", budget: float = 4000.0
    ) -> None:
        TorchNumInt.__init__(self, functional, device)
        CachingKNumInt.__init__(self, budget)
