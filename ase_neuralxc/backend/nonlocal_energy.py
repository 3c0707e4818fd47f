"""The energy of a nonlocal functional and its derivatives with respect to all it sees.

A point's energy depends on other points, so that there is one energy of the whole grid instead of
one energy density per point, and its derivatives come with the quadrature weights in them. NumPy
arrays in, NumPy arrays out; all points are in the order of the atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ase_neuralxc.backend.atom_grid import AtomGrid
from ase_neuralxc.errors import FunctionalError
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.functional.protocol import XCFunctional

#: Spin density below which second derivatives are dropped: that of rho^(4/3) diverges.
NEGLIGIBLE_DENSITY = 1e-11


@dataclass(frozen=True)
class ExplicitDerivatives:
    """First derivatives of the energy, Hartree atomic units.

    Attributes:
        density: [5, n] or [2, 5, n], with respect to density, gradient and tau.
        coords: [n, 3], with respect to the points.
        weights: [n], with respect to the quadrature weights.
        atom_coords: [n_atoms, 3], with respect to the nuclei.
    """

    density: NDArray
    coords: NDArray
    weights: NDArray
    atom_coords: NDArray


@dataclass(frozen=True)
class _Part:
    """Tensors of the points that are evaluated together."""

    density: Tensor
    coords: Tensor
    weights: Tensor
    atom_coords: Tensor
    atomic_weights: Tensor
    atom_slices: tuple[slice, ...]

    def features(self) -> GridFeatures:
        """What the functional sees: two channels, views of one for a closed shell."""
        closed_shell = self.density.ndim == 2
        rows = (0.5 * self.density).expand(2, -1, -1) if closed_shell else self.density
        return GridFeatures(
            density=rows[:, 0],
            gradient=rows[:, 1:4],
            tau=rows[:, 4],
            coords=self.coords,
            weights=self.weights,
            atom_slices=self.atom_slices,
            atom_coords=self.atom_coords,
            closed_shell=closed_shell,
            atomic_weights=self.atomic_weights,
        )


class NonlocalEnergy:
    """E_xc[density, grid] of one functional.

    Densities are [5, n] (total: density, gradient, tau) or [2, 5, n] (spins); a total density is a
    closed shell. A functional with `atomwise` true is evaluated one atom at a time, which bounds
    the memory by the largest atom's grid.

    Args:
        functional: any `XCFunctional` that is a torch module, already on `device`.
        device: torch device on which it is evaluated.
    """

    def __init__(self, functional: XCFunctional, device: str = "cpu") -> None:
        self.functional = functional
        self.device = device
        self.atomwise = bool(getattr(functional, "atomwise", False))

    def potential(self, density: NDArray, grid: AtomGrid) -> tuple[float, NDArray]:
        """Energy and its derivative with respect to the density.

        Args:
            density: [5, n] or [2, 5, n].
            grid: the points.

        Returns:
            Energy in Hartree, and an array of the shape of `density`.
        """
        total, out = 0.0, np.empty_like(density)
        for _, points, part in self._parts(density, grid):
            energy = self._energy(part)
            out[..., points] = self._gradients(energy, part, [part.density])[0]
            total += float(energy.detach())
        return total, out

    def explicit_derivatives(self, density: NDArray, grid: AtomGrid) -> ExplicitDerivatives:
        """Derivatives with respect to the density and to the grid.

        Args:
            density: [5, n] or [2, 5, n].
            grid: the points; the atomic weights do not depend on the geometry.

        Returns:
            All first derivatives.
        """
        out = ExplicitDerivatives(
            *(np.zeros(a.shape) for a in (density, grid.coords, grid.weights, grid.atom_coords))
        )
        for atoms, points, part in self._parts(density, grid):
            leaves = [part.density, part.coords, part.weights, part.atom_coords]
            for leaf in leaves:
                leaf.requires_grad_(True)
            parts = self._gradients(self._energy(part), part, leaves)
            out.density[..., points] = parts[0]
            out.coords[points], out.weights[points], out.atom_coords[atoms] = parts[1:]
        return out

    def hessian_products(self, density: NDArray, trials: NDArray, grid: AtomGrid) -> NDArray:
        """Second derivative with respect to the density times trial densities.

        Args:
            density: [5, n] or [2, 5, n].
            trials: [m, *density.shape] changes of the density.
            grid: the points.

        Returns:
            [m, *density.shape]; zero where a spin density is negligible.
        """
        kept = (density[..., :1, :] > NEGLIGIBLE_DENSITY).astype(float)
        trials = trials * kept
        out = np.zeros_like(trials)
        for _, points, part in self._parts(density, grid):
            (first,) = torch.autograd.grad(
                self._energy(part), part.density, create_graph=True, materialize_grads=True
            )
            if not first.requires_grad:  # an energy linear in the density
                continue
            for trial, product in zip(trials, out, strict=True):
                (row,) = torch.autograd.grad(
                    first,
                    part.density,
                    torch.from_numpy(np.ascontiguousarray(trial[..., points])).to(self.device),
                    retain_graph=True,
                    materialize_grads=True,
                )
                product[..., points] = row.cpu().numpy()
        out = np.where(kept > 0, out, 0.0)
        if not np.isfinite(out).all():
            raise FunctionalError(
                f"functional {self.functional.name!r} has a second derivative that is not finite"
            )
        return out

    def _parts(self, density: NDArray, grid: AtomGrid) -> Iterator[tuple[slice, slice, _Part]]:
        def tensor(values: NDArray) -> Tensor:
            # a copy: PySCF's arrays may be read-only, and the leaves are differentiated
            return torch.tensor(values, dtype=torch.float64, device=self.device)

        # backward passes, from which the adjoint calls this, switch gradients off
        with torch.enable_grad(), _frozen(self.functional):
            for atoms, points in grid.parts(self.atomwise):
                part = _Part(
                    density=tensor(density[..., points]).requires_grad_(True),
                    coords=tensor(grid.coords[points]),
                    weights=tensor(grid.weights[points]),
                    atom_coords=tensor(grid.atom_coords[atoms]),
                    atomic_weights=tensor(grid.atomic_weights[points]),
                    atom_slices=tuple(
                        slice(s.start - points.start, s.stop - points.start)
                        for s in grid.atom_slices[atoms]
                    ),
                )
                yield atoms, points, part

    def _energy(self, part: _Part) -> Tensor:
        density = self.functional.energy_density(part.features())
        self._check("energy", ~torch.isfinite(density), part)
        return torch.dot(part.weights, density)

    def _gradients(self, energy: Tensor, part: _Part, leaves: list[Tensor]) -> list[NDArray]:
        gradients = torch.autograd.grad(energy, leaves, materialize_grads=True)
        bad = ~torch.isfinite(gradients[0]).reshape(-1, part.weights.numel()).all(0)
        self._check("derivative", bad, part)
        return [gradient.cpu().numpy() for gradient in gradients]

    def _check(self, what: str, bad: Tensor, part: _Part) -> None:
        if not bad.any():
            return
        rows = part.density.detach()[..., bad]
        ranges = ", ".join(
            f"{name} in [{float(values.min()):.3e}, {float(values.max()):.3e}]"
            for name, values in (
                ("density", rows[..., 0, :]),
                ("gradient norm", rows[..., 1:4, :].norm(dim=-2)),
                ("tau", rows[..., 4, :]),
            )
        )
        raise FunctionalError(
            f"functional {self.functional.name!r} returned a {what} that is not finite at "
            f"{int(bad.sum())} of {bad.numel()} points, where {ranges} (atomic units)"
        )


@contextmanager
def _frozen(functional: XCFunctional) -> Iterator[None]:
    """No graph for the weights, which would keep the inputs of all layers alive."""
    weights = (
        [w for w in functional.parameters() if w.requires_grad]
        if isinstance(functional, nn.Module)
        else []
    )
    try:
        for weight in weights:
            weight.requires_grad_(False)
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)
