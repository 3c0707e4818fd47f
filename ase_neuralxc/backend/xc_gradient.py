"""The functional's part of nuclear gradients, with the response of the grid.

The energy E[rho(r), r, w, R] of the grid depends on a nuclear position through the orbitals that
sit on the nucleus, through the points that move with it (their densities and their coordinates),
through the partition weights of all points, and, for nonlocal functionals, through the position
itself. All but the first are "grid response".

A derivative of the whole potential matrix is never made: what the forces need is its product with
the density matrix, which occupied orbitals give for the price of a density.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.grad import rks as grad_rks

from ase_neuralxc.backend.atom_grid import AtomGrid, in_order_of_atoms
from ase_neuralxc.backend.compact_integrator import BLOCK
from ase_neuralxc.backend.grid_density import grid_densities
from ase_neuralxc.backend.nonlocal_hook import NonlocalNumInt
from ase_neuralxc.backend.orbital_sums import densities_of, natural_orbitals
from ase_neuralxc.errors import InvalidInputError

#: Where PySCF keeps the second derivative along axes i and j of an orbital.
_SECOND = np.array([[4, 5, 6], [5, 7, 8], [6, 8, 9]])
_ROWS = {"LDA": 1, "GGA": 4, "MGGA": 5}


def attach_gradient(mf: Any) -> Any:
    """Give a mean-field object with one of our integrators the gradients that belong to it."""
    nonlocal_functional = isinstance(mf._numint, NonlocalNumInt)
    mixin = _WithoutHessian if nonlocal_functional else _WithGradient
    return lib.set_class(mf, (mixin, mf.__class__))


class _WithGradient:
    """Mean-field mixin: the gradients that match the integrator."""

    __name_mixin__ = "OwnGradient"

    def Gradients(self) -> Any:
        gradient = super().Gradients()  # type: ignore[misc]
        return lib.set_class(gradient, (_Gradients, gradient.__class__))

    def nuc_grad_method(self) -> Any:
        return self.Gradients()


class _WithoutHessian(_WithGradient):
    """The same for nonlocal functionals, which have no analytic Hessian."""

    def Hessian(self) -> Any:
        raise InvalidInputError(
            "hessian: not available for nonlocal functionals; use finite differences of forces"
        )


class _Gradients:
    """Gradient mixin: Coulomb and exact exchange are the host's, the functional's part is ours."""

    __name_mixin__ = "OwnGradient"
    base: Any
    mol: Any
    grid_response: bool

    def get_veff(self, mol: Any = None, dm: Any = None) -> Any:
        """Derivative of the effective potential matrix, tagged with the functional's forces."""
        mol = self.mol if mol is None else mol
        dm = self.base.make_rdm1() if dm is None else dm
        integrator, response = self.base._numint, self.grid_response
        with (
            lib.temporary_env(self, grid_response=False),
            lib.temporary_env(integrator, xctype="HF"),
        ):
            veff = super().get_veff(mol, dm)  # type: ignore[misc]
        grids, dm = self.base.grids, np.asarray(dm)
        if isinstance(integrator, NonlocalNumInt):
            veff.exc1_grid = nonlocal_gradient(integrator, mol, grids, dm)
        else:
            veff.exc1_grid = local_gradient(integrator, mol, grids, self.base.xc, dm, response)
        return veff

    def extra_force(self, atom_id: int, envs: Any) -> Any:
        """The functional's part for one atom, and what the host has of its own."""
        with lib.temporary_env(self, grid_response=False):
            rest = super().extra_force(atom_id, envs)  # type: ignore[misc]
        return rest + envs["vhf"].exc1_grid[atom_id]


def local_gradient(
    integrator: Any, mol: Any, grids: Any, xc: str, dm: NDArray, grid_response: bool = True
) -> NDArray:
    """Exchange-correlation part of the nuclear gradient, of a functional of points.

    Args:
        integrator: PySCF's integrator, or one of its interface.
        mol: PySCF molecule.
        grids: PySCF grid of the energy.
        xc: PySCF's description of the functional, for a functional of libxc.
        dm: [nao, nao] total or [2, nao, nao] spin density matrices.
        grid_response: whether points and weights move with the nuclei.

    Returns:
        [n_atoms, 3] in Hartree/Bohr.
    """
    spins = [natural_orbitals(m) for m in (dm[None] if dm.ndim == 2 else dm)]
    kind = integrator._xc_type(xc)
    total = _Total(mol)
    if grid_response:
        parts: Any = enumerate(grad_rks.grids_response_cc(grids))
    else:
        parts = [(None, (grids.coords, grids.weights, None))]
    for atom, (coords, weights, moved_weights) in parts:
        rho = np.empty((len(spins), _ROWS[kind], len(weights)))
        blocks = list(_blocks(integrator, mol, coords, grids.cutoff))
        for block in blocks:
            for spin, (orbitals, numbers) in enumerate(spins):
                values = densities_of(block.orbitals[:4], block.restrict(orbitals), numbers)
                rho[spin, :, block.points] = values[: _ROWS[kind]]
        given = rho if len(rho) == 2 else rho[0]
        if kind == "LDA":
            given = given[..., 0, :]
        exc, vxc, *_ = integrator.eval_xc_eff(xc, given, deriv=1, xctype=kind)
        rows = np.zeros((len(spins), 5, len(weights)))
        rows[:, : _ROWS[kind]] = (vxc * weights).reshape(rho.shape)
        for block in blocks:
            total.add(block, rows[..., block.points], spins, atom)
        if moved_weights is not None:
            total.explicit += moved_weights @ (exc * rho[:, 0].sum(0))
    return total.by_atom()


def nonlocal_gradient(integrator: NonlocalNumInt, mol: Any, grids: Any, dm: NDArray) -> NDArray:
    """Exchange-correlation part of the nuclear gradient, of a nonlocal functional.

    Args:
        integrator: the integrator that gave the energy.
        mol: PySCF molecule.
        grids: PySCF grid of the energy.
        dm: [nao, nao] total or [2, nao, nao] spin density matrices.

    Returns:
        [n_atoms, 3] in Hartree/Bohr, with the response of the grid, which a functional that
        measures points relative to nuclei always needs.
    """
    grids = in_order_of_atoms(grids)
    grid = AtomGrid.of(grids)
    matrices = dm[None] if dm.ndim == 2 else dm
    spins = [natural_orbitals(m) for m in matrices]
    density = grid_densities(integrator, mol, grids, list(matrices))
    energy = integrator.energy.explicit_derivatives(density.reshape(*dm.shape[:-2], 5, -1), grid)
    rows = energy.density.reshape(density.shape)
    total = _Total(mol)
    total.explicit += energy.atom_coords
    for atom, (coords, _, moved_weights) in enumerate(grad_rks.grids_response_cc(grids)):
        points = grid.atom_slices[atom]
        own = rows[..., points]
        for block in _blocks(integrator, mol, coords, grids.cutoff):
            total.add(block, own[..., block.points], spins, atom)
        total.explicit += moved_weights @ energy.weights[points]
        total.explicit[atom] += energy.coords[points].sum(axis=0)
    return total.by_atom()


class _Total:
    """Sums over blocks: by orbital, and what belongs to atoms directly."""

    def __init__(self, mol: Any) -> None:
        self.mol = mol
        self.by_orbital = np.zeros((3, mol.nao))
        self.explicit = np.zeros((mol.natm, 3))

    def add(
        self, block: MovedBlock, rows: NDArray, spins: list[tuple[NDArray, NDArray]],
        atom: int | None,
    ) -> None:  # fmt: skip
        """Add a block whose points move with an atom, or with none."""
        moved = np.zeros((3, len(block.index)))
        for row, (orbitals, numbers) in zip(rows, spins, strict=True):
            coefficients = block.restrict(orbitals)
            moved += center_derivatives(block.orbitals, coefficients, numbers, row)
        self.by_orbital[:, block.index] += moved
        if atom is not None:
            # points that move are orbitals that all move the other way
            self.explicit[atom] -= moved.sum(axis=1)

    def by_atom(self) -> NDArray:
        """[n_atoms, 3]."""
        slices = self.mol.aoslice_by_atom()[:, 2:]
        orbitals = [self.by_orbital[:, start:stop].sum(axis=1) for start, stop in slices]
        return self.explicit + np.stack(orbitals)


@dataclass(frozen=True)
class MovedBlock:
    """Orbitals with second derivatives on some points.

    Attributes:
        points: where they are among the points that were given.
        orbitals: [10, m, n] values, gradients and second derivatives, in PySCF's order.
        index: [m] which orbitals these are.
    """

    points: slice
    orbitals: NDArray
    index: NDArray

    def restrict(self, coefficients: NDArray) -> NDArray:
        """Rows [m, ...] of coefficients [nao, ...] that belong to the orbitals of the block."""
        return coefficients[self.index]


def _blocks(integrator: Any, mol: Any, coords: NDArray, cutoff: float) -> Iterator[MovedBlock]:
    ao_loc = np.diff(mol.ao_loc_nr())
    for start in range(0, len(coords), BLOCK):
        points = slice(start, min(start + BLOCK, len(coords)))
        mask = integrator.make_mask(mol, coords[points])
        reached = np.flatnonzero(np.repeat(mask.any(axis=0), ao_loc))
        values = integrator.eval_ao(mol, coords[points], deriv=2, non0tab=mask, cutoff=cutoff)
        yield MovedBlock(points, values.transpose(0, 2, 1)[:, reached], reached)


def center_derivatives(
    orbitals: NDArray, occupied: NDArray, occupations: NDArray, rows: NDArray
) -> NDArray:
    """Derivative of the energy with respect to the centre of each orbital, on some points.

    Args:
        orbitals: [10, m, n] atomic orbitals with first and second derivatives.
        occupied: [m, k] coefficients of natural orbitals.
        occupations: [k].
        rows: [5, n] derivatives of the energy with respect to density, gradient and tau, with
            weights.

    Returns:
        [3, m] in Hartree/Bohr.
    """
    weighted = occupied * occupations
    # D phi and D grad phi of the density matrix D
    images = [weighted @ (occupied.T @ component) for component in orbitals[:4]]
    first = rows[0] * images[0]
    for axis in (1, 2, 3):
        first += rows[axis] * images[axis]
    second = [2.0 * rows[a] * images[0] + rows[4] * images[a] for a in (1, 2, 3)]
    out = np.empty((3, orbitals.shape[1]))
    for x in range(3):
        out[x] = -2.0 * np.einsum("mn,mn->m", orbitals[1 + x], first)
        for axis in range(3):
            out[x] -= np.einsum("mn,mn->m", orbitals[_SECOND[x, axis]], second[axis])
    return out
