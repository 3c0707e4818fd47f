"""Densities on a quadrature grid from density matrices, block by block of orbitals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.compact_integrator import CompactIntegration

_XCTYPE = "MGGA"  # rows density, gradient, tau


def grid_densities(
    ni: Any,
    mol: Any,
    grids: Any,
    matrices: Sequence[Any],
    hermi: int = 1,
    max_memory: float = 2e3,
) -> NDArray:
    """Density, gradient and tau of density matrices.

    Args:
        ni: PySCF's numerical integrator.
        mol: PySCF molecule.
        grids: PySCF grid.
        matrices: m density matrices, each [nao, nao] or a set [k, nao, nao].
        hermi: 1 if they are symmetric.
        max_memory: of the orbitals of a block, in MB.

    Returns:
        [m, 5, n] or [m, k, 5, n] in the host's order of points.
    """
    if isinstance(ni, CompactIntegration) and hermi == 1 and np.isrealobj(matrices[0]):
        plain = np.stack([np.asarray(m) for m in matrices])
        rows = ni.densities(mol, grids, plain.reshape(-1, *plain.shape[-2:]))
        return rows.reshape(*plain.shape[:-2], *rows.shape[-2:])
    stacks = [ni._gen_rho_evaluator(mol, d, hermi, False, grids) for d in matrices]
    size = stacks[0][1]
    if grids.coords is None:
        grids.build(with_non0tab=True)
    out = np.empty((len(stacks), size, 5, grids.weights.size))
    stop = 0
    for ao, mask, weight, _ in ni.block_loop(mol, grids, mol.nao, 1, max_memory=max_memory):
        start, stop = stop, stop + weight.size
        for i, (evaluate, _, _) in enumerate(stacks):
            for j in range(size):
                out[i, j, :, start:stop] = evaluate(j, ao, mask, _XCTYPE)
    return out[:, 0] if np.ndim(matrices[0]) == 2 else out
