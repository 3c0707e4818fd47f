"""Derivatives of the exchange-correlation energy with respect to a functional's parameters.

At a converged density the total derivative dE/dtheta is the explicit one at fixed density, since
the energy is stationary (its error is of first order in what is left of the orbital gradient:
tighten `conv_tol_grad`). All other derivatives need the mixed one, d2 E_xc / dtheta dD along a
change of the density matrix.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_neuralxc.backend.atom_grid import AtomGrid
from ase_neuralxc.backend.grid_density import grid_densities
from ase_neuralxc.backend.hook import DENSITY_THRESHOLD
from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Points whose graph is held at a time, for functionals that go point by point.
_POINTS = 16384


def trainable(functional: nn.Module) -> list[Tensor]:
    """Parameters of a functional that ask for a gradient, in the module's order."""
    return [p for p in functional.parameters() if p.requires_grad]


def energy_gradient(solution: KSSolution, functional: Any) -> list[Tensor]:
    """dE/dtheta of the total energy of a converged solution.

    Args:
        solution: a converged solution with its host object.
        functional: the torch functional it was solved with.

    Returns:
        One tensor per trainable parameter, Hartree per unit of the parameter.
    """
    return _accumulate(solution, functional, None)


def mixed_gradient(solution: KSSolution, functional: Any, change: NDArray) -> list[Tensor]:
    """d/dtheta of the derivative of E_xc along a change of the density matrix.

    Args:
        solution: a converged solution with its host object.
        functional: the torch functional it was solved with.
        change: symmetric [nao, nao] for a closed shell, else [2, nao, nao].

    Returns:
        One tensor per trainable parameter: d/dtheta of Tr(v_xc change).
    """
    return _accumulate(solution, functional, change)


def _accumulate(solution: KSSolution, functional: Any, change: NDArray | None) -> list[Tensor]:
    parameters = trainable(functional)
    totals = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for part in _parts(solution, functional, change):
        with torch.enable_grad():  # backward passes, from which this is called, switch it off
            value = part.energy(functional)
            gradients = torch.autograd.grad(value, parameters, materialize_grads=True)
        for total, gradient in zip(totals, gradients, strict=True):
            total += gradient
    return [total.to(p.dtype) for total, p in zip(totals, parameters, strict=True)]


@dataclass(frozen=True)
class _Part:
    """Points that are evaluated together, with a change of their density or without."""

    rows: Tensor  # [2, 5, n]
    change: Tensor | None
    grid: dict[str, Any]
    closed_shell: bool

    def energy(self, functional: Any) -> Tensor:
        """E_xc of the points, or its derivative along the change; a graph of the parameters."""
        if self.change is None:
            return self._integral(functional, self.rows)
        step = torch.zeros((), dtype=torch.float64, requires_grad=True)
        value = self._integral(functional, self.rows + step * self.change)
        (slope,) = torch.autograd.grad(value, step, create_graph=True, materialize_grads=True)
        return slope

    def _integral(self, functional: Any, rows: Tensor) -> Tensor:
        features = GridFeatures(
            density=rows[:, 0],
            gradient=rows[:, 1:4],
            tau=rows[:, 4],
            closed_shell=self.closed_shell,
            **self.grid,
        )
        return torch.dot(self.grid["weights"], functional.energy_density(features))


def _parts(solution: KSSolution, functional: Any, change: NDArray | None) -> Iterator[_Part]:
    mf = first_order(solution.host)
    grid = AtomGrid.of(mf.grids)
    matrices = [solution.density_matrix, *([] if change is None else [change])]
    closed_shell = solution.reference == "rks"
    densities = []
    for matrix in matrices:
        # one set per call: a change has no orbitals, from which PySCF would build the density
        plain = np.array(matrix, dtype=float)
        spins = plain[None] if closed_shell else plain
        rows = grid_densities(mf._numint, mf.mol, mf.grids, list(spins))
        densities.append(np.stack([0.5 * rows[0]] * 2) if closed_shell else rows)
    own, *changes = (torch.from_numpy(grid.gather(d)) for d in densities)
    for points, extra in _groups(functional, grid, own):
        yield _Part(
            rows=own[..., points],
            change=changes[0][..., points] if changes else None,
            grid={
                "coords": torch.from_numpy(grid.coords[points]),
                "weights": torch.from_numpy(grid.weights[points]),
                "atomic_weights": torch.from_numpy(grid.atomic_weights[points]),
                **extra,
            },
            closed_shell=closed_shell,
        )


def _groups(functional: Any, grid: AtomGrid, rows: Tensor) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Indices of the points to evaluate together, and what belongs to them beside the points."""
    if isinstance(functional, SemilocalFunctional):
        (kept,) = np.nonzero(rows[:, 0].sum(0).numpy() > DENSITY_THRESHOLD)
        for start in range(0, kept.size, _POINTS):
            yield kept[start : start + _POINTS], {}
        return
    for atoms, points in grid.parts(bool(getattr(functional, "atomwise", False))):
        yield (
            points,
            {
                "atom_coords": torch.from_numpy(grid.atom_coords[atoms]),
                "atom_slices": tuple(
                    slice(s.start - points.start, s.stop - points.start)
                    for s in grid.atom_slices[atoms]
                ),
            },
        )
