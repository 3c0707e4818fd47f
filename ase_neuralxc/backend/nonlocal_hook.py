"""A nonlocal torch functional inside PySCF's numerical integrator.

Nothing here goes point by point: densities are collected on the whole grid, block by block of
orbitals, the functional is evaluated once, and the derivatives of its energy are contracted to
matrices block by block again. Only [5, n] rows per density outlive a block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.dft import numint
from pyscf.dft.gen_grid import NBINS

from ase_neuralxc.backend.atom_grid import AtomGrid
from ase_neuralxc.backend.grid_density import grid_densities
from ase_neuralxc.backend.hook import TorchNumInt
from ase_neuralxc.backend.nonlocal_energy import NonlocalEnergy
from ase_neuralxc.errors import InvalidInputError

_XCTYPE = "MGGA"  # rows density, gradient, tau


@dataclass(frozen=True)
class NonlocalKernel:
    """Stands where PySCF carries the array of second derivatives from `cache_xc_kernel`.

    It is an operator: the derivatives between all pairs of points would not fit anywhere.

    Attributes:
        density: [5, n] or [2, 5, n] in the host's order, where the operator is taken.
        scale: factor.
    """

    density: NDArray
    scale: float = 1.0

    def __mul__(self, factor: float) -> NonlocalKernel:
        return replace(self, scale=factor * self.scale)


class NonlocalNumInt(TorchNumInt):
    """PySCF's integrator for functionals whose energy is not a sum over independent points.

    Args:
        functional: an `XCFunctional` that is a torch module; it is moved to `device`.
        device: torch device on which the functional is evaluated.
    """

    def __init__(self, functional: Any, device: str = "cpu") -> None:
        super().__init__(functional, device)
        self.xctype = _XCTYPE
        self.energy = NonlocalEnergy(self.functional, device)

    def eval_xc_eff(self, *args: Any, **kwargs: Any) -> Any:
        """Refuse: no point has derivatives of its own, which analytic Hessians would need."""
        raise InvalidInputError(
            f"xc: this method needs a functional that is evaluated point by point, got the "
            f"nonlocal {self.functional.name!r}; use finite differences of forces"
        )

    def matrices(self, mol: Any, grids: Any, rows: NDArray, max_memory: float = 2e3) -> NDArray:
        """Matrices of potentials given as derivatives of the energy, weights included.

        Args:
            mol: PySCF molecule.
            grids: PySCF grid.
            rows: [..., 5, n] derivatives with respect to density, gradient and tau.
            max_memory: of the orbitals of a block, in MB.

        Returns:
            [..., nao, nao], symmetric.
        """
        flat = rows.reshape(-1, *rows.shape[-2:])
        # halves: the matrix of density and gradient is added to its transpose, tau has a 1/2
        flat = flat * np.array([0.5, 1, 1, 1, 0.5])[:, None]
        nao, ao_loc = mol.nao, mol.ao_loc_nr()
        half, kinetic = np.zeros((2, len(flat), nao, nao))
        pairs = mol.get_overlap_cond() < -np.log(self.cutoff)
        bins = NBINS * 2 - int(NBINS * np.log(grids.cutoff * 1e2) / np.log(grids.cutoff))
        scaled = None
        stop = 0
        for ao, mask, weight, _ in self.block_loop(mol, grids, nao, 1, max_memory=max_memory):
            start, stop = stop, stop + weight.size
            for i, row in enumerate(np.ascontiguousarray(flat[..., start:stop])):
                scaled = numint._scale_ao_sparse(ao[:4], row[:4], mask, ao_loc, out=scaled)
                numint._dot_ao_ao_sparse(
                    ao[0], scaled, None, bins, mask, pairs, ao_loc, hermi=0, out=half[i]
                )
                numint._tau_dot_sparse(ao, ao, row[4], bins, mask, pairs, ao_loc, out=kinetic[i])
        total = half + half.transpose(0, 2, 1) + kinetic
        return total.reshape(*rows.shape[:-2], nao, nao)

    def nr_rks(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        dms: Any,
        relativity: int = 0,
        hermi: int = 1,
        max_memory: float = 2000,
        verbose: Any = None,
    ) -> tuple[Any, float, NDArray]:
        """Electrons, energy and potential matrix of a closed shell (PySCF's interface)."""
        (density,) = grid_densities(self, mol, grids, [dms], hermi, max_memory)
        return self._integrate(mol, grids, density, max_memory)

    def nr_uks(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        dms: Any,
        relativity: int = 0,
        hermi: int = 1,
        max_memory: float = 2000,
        verbose: Any = None,
    ) -> tuple[Any, float, NDArray]:
        """Electrons, energy and potential matrices of two spins (PySCF's interface)."""
        density = grid_densities(self, mol, grids, numint._format_uks_dm(dms), hermi, max_memory)
        return self._integrate(mol, grids, density, max_memory)

    def _integrate(
        self, mol: Any, grids: Any, density: NDArray, max_memory: float
    ) -> tuple[Any, float, NDArray]:
        grid = AtomGrid.of(grids)
        energy, rows = self.energy.potential(grid.gather(density), grid)
        electrons = density[..., 0, :] @ grids.weights
        return electrons, energy, self.matrices(mol, grids, grid.scatter(rows), max_memory)

    def cache_xc_kernel(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        mo_coeff: Any,
        mo_occ: Any,
        spin: int = 0,
        max_memory: float = 2000,
    ) -> tuple[NDArray, None, NonlocalKernel]:
        """Second derivatives at the density of some orbitals (PySCF's interface)."""

        def matrix(coefficients: NDArray, occupations: NDArray) -> NDArray:
            occupations = np.asarray(occupations, dtype=float)
            return lib.tag_array(
                (coefficients * occupations) @ coefficients.T,
                mo_coeff=coefficients,
                mo_occ=occupations,
            )

        restricted = np.ndim(mo_coeff[0]) == 1
        dm = (
            matrix(mo_coeff, mo_occ)
            if restricted
            else [matrix(c, o) for c, o in zip(mo_coeff, mo_occ, strict=True)]
        )
        return self.cache_xc_kernel1(mol, grids, xc_code, dm, spin, max_memory)

    def cache_xc_kernel1(
        self, mol: Any, grids: Any, xc_code: str, dm: Any, spin: int = 0, max_memory: float = 2000
    ) -> tuple[NDArray, None, NonlocalKernel]:
        """Second derivatives at a density matrix (PySCF's interface)."""
        restricted = np.ndim(dm) == 2
        density = grid_densities(self, mol, grids, [dm] if restricted else dm, 1, max_memory)
        if restricted:
            density = np.stack([0.5 * density[0]] * 2) if spin else density[0]
        return density, None, NonlocalKernel(density)

    def nr_rks_fxc(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        dm0: Any,
        dms: Any,
        relativity: int = 0,
        hermi: int = 0,
        rho0: Any = None,
        vxc: Any = None,
        fxc: NonlocalKernel | None = None,
        max_memory: float = 2000,
        verbose: Any = None,
    ) -> NDArray:
        """Change of the potential with a closed-shell density (PySCF's interface)."""
        kernel = fxc or self.cache_xc_kernel1(mol, grids, xc_code, dm0, 0, max_memory)[2]
        (trials,) = grid_densities(self, mol, grids, [np.asarray(dms)], hermi, max_memory)
        return self._respond(mol, grids, kernel, trials, max_memory)

    def nr_rks_fxc_st(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        dm0: Any,
        dms_alpha: Any,
        hermi: int = 0,
        singlet: bool = True,
        rho0: Any = None,
        vxc: Any = None,
        fxc: NonlocalKernel | None = None,
        max_memory: float = 2000,
        verbose: Any = None,
    ) -> NDArray:
        """Change of the spin-up potential of a closed shell, the spins moving together or not."""
        kernel = fxc or self.cache_xc_kernel1(mol, grids, xc_code, dm0, 1, max_memory)[2]
        (up,) = grid_densities(self, mol, grids, [np.asarray(dms_alpha)], hermi, max_memory)
        trials = np.stack([up, up if singlet else -up], axis=-3)
        return self._respond(mol, grids, kernel, trials, max_memory)[..., 0, :, :]

    def nr_uks_fxc(
        self,
        mol: Any,
        grids: Any,
        xc_code: str,
        dm0: Any,
        dms: Any,
        relativity: int = 0,
        hermi: int = 0,
        rho0: Any = None,
        vxc: Any = None,
        fxc: NonlocalKernel | None = None,
        max_memory: float = 2000,
        verbose: Any = None,
    ) -> NDArray:
        """Change of both potentials with both spin densities (PySCF's interface)."""
        kernel = fxc or self.cache_xc_kernel1(mol, grids, xc_code, dm0, 1, max_memory)[2]
        spins = [np.asarray(d) for d in numint._format_uks_dm(dms)]
        trials = np.moveaxis(grid_densities(self, mol, grids, spins, hermi, max_memory), 0, -3)
        return np.moveaxis(self._respond(mol, grids, kernel, trials, max_memory), -3, 0)

    def _respond(
        self, mol: Any, grids: Any, kernel: NonlocalKernel, trials: NDArray, max_memory: float
    ) -> NDArray:
        grid = AtomGrid.of(grids)
        shape = kernel.density.shape
        products = self.energy.hessian_products(
            grid.gather(kernel.density), grid.gather(trials.reshape(-1, *shape)), grid
        )
        rows = grid.scatter(kernel.scale * products).reshape(trials.shape)
        return self.matrices(mol, grids, rows, max_memory)
