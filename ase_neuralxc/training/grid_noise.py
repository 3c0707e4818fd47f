"""How far the energies of a functional depend on the grid: a coarse one against a fine one.

The enhancement varies fastest in the cores of atoms, where most of the energy is. What the grid of
production misses there cancels in reactions only in part, and nothing in reaction energies asks for
less of it. The penalty is the mean square of the energies of some species on stored densities with
the grid of the training minus those of the same orbitals on a finer grid, in kcal/mol; it is a
residual like the error of a reaction: `gauss_newton` takes both.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Energies on a coarse grid minus energies on a fine grid, as functions of the weights.

    Args:
        functional: semi-local or nonlocal.
        coarse: densities with all their points.
        fine: of the same species and orbitals, with more points.

    Raises:
        InvalidInputError: the two are not of the same species, or fine is not finer.
    """

    def __init__(
        self, functional: Any, coarse: Sequence[StoredDensity], fine: Sequence[StoredDensity]
    ) -> None:
        for one, other in zip(coarse, fine, strict=True):
            electrons = [float(np.sum(d.weights * d.density.sum(0))) for d in (one, other)]
            if (
                one.species.content_hash != other.species.content_hash
                or other.n_points <= one.n_points
                or abs(electrons[0] - electrons[1]) > _SAME
            ):
                raise InvalidInputError(
                    f"fine_densities: expected {one.species.name!r} with more than "
                    f"{one.n_points} points and {electrons[0]:.3f} electrons, got "
                    f"{other.species.name!r} with {other.n_points} and {electrons[1]:.3f}"
                )
        self.functional = functional
        self.densities = [*coarse, *fine]

    @classmethod
    def load(cls, functional: Any, densities: str, fine: str) -> GridNoise:
        """Open the species of a folder of fine densities, and the same ones of another folder.

        Args:
            functional: semi-local or nonlocal.
            densities: folder of the densities of the training.
            fine: folder of densities on a finer grid (`scripts/prepare_xc.py --grid-level 6`).

        Returns:
            The differences of these species.

        Raises:
            InvalidInputError: no species, one that is not in both folders, or see the class.
        """
        opened = [open_density(p) for p in sorted((Path(fine) / "results").glob(f"*{SUFFIX}"))]
        if not opened:
            raise InvalidInputError(f"fine_densities: expected densities in {fine!r}, got none")
        coarse = [open_density(density_path(densities, d.species)) for d in opened]
        return cls(functional, coarse, opened)

    def residuals(self) -> NDArray:
        """Differences [k] in kcal/mol, divided by the root of their number."""
        with torch.no_grad():
            return self._differences(xc_energies(self.functional, self.densities))

    def jacobian(self) -> NDArray:
        """Derivatives of the residuals by all weights that are trained, [k, p]."""
        return self._differences(energy_jacobian(self.functional, self.densities)[1])

    def _differences(self, values: torch.Tensor) -> NDArray:
        half = len(self.densities) // 2
        differences: NDArray = (values[:half] - values[half:]).numpy() / units.KCALMOL_HARTREE
        return differences / np.sqrt(half)
