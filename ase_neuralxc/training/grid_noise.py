"""How far the energies of a functional depend on the grid: a coarse one against a fine one.

The enhancement varies fastest in the cores of atoms, where most of the energy is. What the grid of
production misses there cancels in reactions only in part, and nothing in reaction energies asks for
less of it. The penalty is the mean square of the energies of some species on stored densities with
the grid of the training, or coarser ones, minus those of the same orbitals on a finer grid, in
kcal/mol; it is a residual like the error of a reaction: `gauss_newton` takes both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units
from ase_neuralxc.training.stored import SUFFIX, StoredDensity, density_path, open_density
from ase_neuralxc.training.stored_energies import energy_jacobian, xc_energies

#: Largest difference in electrons of the orbitals' densities on the two grids.
_SAME = 0.01


class GridNoise:
    """Energies on coarse grids minus energies on a fine grid, as functions of the weights.

    Args:
        functional: semi-local or nonlocal.
        coarse: densities with all their points, one sequence per coarse grid.
        factors: of the mean square difference of each coarse grid.
        fine: of the same species and orbitals, with more points.

    Raises:
        InvalidInputError: the grids are not of the same species, or fine is not finer.
    """

    def __init__(
        self,
        functional: Any,
        coarse: Sequence[Sequence[StoredDensity]],
        factors: Sequence[float],
        fine: Sequence[StoredDensity],
    ) -> None:
        for grid in coarse:
            for one, other in zip(grid, fine, strict=True):
                _require_finer(one, other)
        self.functional = functional
        self.factors = np.sqrt(np.array(factors, dtype=float) / max(len(fine), 1))
        self.densities = [density for grid in (*coarse, fine) for density in grid]

    @classmethod
    def load(cls, functional: Any, coarse: Mapping[str, float], fine: str) -> GridNoise:
        """Open the species of a folder of fine densities, and the same ones of other folders.

        Args:
            functional: semi-local or nonlocal.
            coarse: folders of densities on coarser grids, with the factors of their differences.
            fine: folder of densities on a finer grid (`scripts/prepare_xc.py --grid-level 6`).

        Returns:
            The differences of these species.

        Raises:
            InvalidInputError: no species, one that is not in all folders, or see the class.
        """
        opened = [open_density(p) for p in sorted((Path(fine) / "results").glob(f"*{SUFFIX}"))]
        if not opened:
            raise InvalidInputError(f"fine_densities: expected densities in {fine!r}, got none")
        grids = [[open_density(density_path(f, d.species)) for d in opened] for f in coarse]
        return cls(functional, grids, list(coarse.values()), opened)

    def residuals(self) -> NDArray:
        """Differences [k] in kcal/mol, times the root of their factor over their number."""
        with torch.no_grad():
            return self._differences(xc_energies(self.functional, self.densities))

    def jacobian(self) -> NDArray:
        """Derivatives of the residuals by all weights that are trained, [k, p]."""
        return self._differences(energy_jacobian(self.functional, self.densities)[1])

    def _differences(self, values: torch.Tensor) -> NDArray:
        grids = values.numpy().reshape(len(self.factors) + 1, -1, *values.shape[1:])
        differences = (grids[:-1] - grids[-1]) / units.KCALMOL_HARTREE
        scaled: NDArray = np.concatenate(
            [factor * part for factor, part in zip(self.factors, differences, strict=True)]
        )
        return scaled


def _require_finer(coarse: StoredDensity, fine: StoredDensity) -> None:
    electrons = [float(np.sum(d.weights * d.density.sum(0))) for d in (coarse, fine)]
    if (
        coarse.species.content_hash != fine.species.content_hash
        or fine.n_points <= coarse.n_points
        or abs(electrons[0] - electrons[1]) > _SAME
    ):
        raise InvalidInputError(
            f"fine_densities: expected {coarse.species.name!r} with more than {coarse.n_points} "
            f"points and {electrons[0]:.3f} electrons, got {fine.species.name!r} with "
            f"{fine.n_points} and {electrons[1]:.3f}"
        )
