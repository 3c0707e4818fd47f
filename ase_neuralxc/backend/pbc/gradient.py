"""Nuclear gradients of k-point Kohn-Sham energies, meta-GGAs included.

PySCF stops at GGAs. A meta-GGA needs second derivatives of the orbitals and one more term, the
kinetic-energy density, exactly as in its molecular gradients. The uniform grid does not move with
the atoms, so that there is no response of the grid: these are the exact derivatives.

PySCF evaluates all orbitals again for the local pseudopotential of each atom. Its derivative with
the atom needs no more than the density, and that with the orbitals those which the integrator has
kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.grad import rks as molecular
from pyscf.lib import current_memory
from pyscf.pbc import tools
from pyscf.pbc.grad import krks, krks_stress, kuks, kuks_stress
from pyscf.pbc.gto.pseudo import get_alphas, get_vlocG


def nuclear_gradient(mf: Any) -> NDArray:
    """dF/dR of a converged KRKS or KUKS object, [n_atoms, 3] in Hartree/Bohr.

    With smearing it is the derivative of the free energy, whose occupations are stationary.
    """
    gradient = _gradients(mf)
    gradient.verbose = 0
    return np.asarray(gradient.kernel())


def strain_gradient(mf: Any) -> NDArray:
    """(1/V) dF/d(strain) of a converged KRKS or KUKS object, symmetric [3, 3] in Hartree/Bohr^3."""
    kernel = kuks_stress.kernel if mf.istype("KUKS") else krks_stress.kernel
    stress = np.asarray(kernel(_gradients(mf)))
    return 0.5 * (stress + stress.T)


def _gradients(mf: Any) -> Any:
    meta = mf._numint._xc_type(mf.xc) == "MGGA"
    if mf.istype("KUKS"):
        return (_MetaUnrestricted if meta else _Unrestricted)(mf)
    return (_MetaRestricted if meta else _Restricted)(mf)


class _LocalPotential:
    """The local pseudopotential's part of the gradient, from kept orbitals and the density."""

    def hcore_generator(self, cell: Any, kpts: NDArray) -> Callable[[int], NDArray]:
        """For each atom, the derivative of kinetic energy and local potential by its orbitals.

        Args:
            cell: PySCF cell with pseudopotentials.
            kpts: [nk, 3] in 1/Bohr.

        Returns:
            Function of the index of an atom, giving [3, nk, nao, nao] in Hartree/Bohr.
        """
        mf = self.base  # type: ignore[attr-defined]
        local = get_vlocG(cell)  # [n_atoms, n_grid]
        total = -np.einsum("ag,ag->g", cell.get_SI(), local)
        total[0] = np.sum(get_alphas(cell))
        potential = tools.ifft(total, cell.mesh).real
        bra = np.stack(cell.pbc_intor("int1e_ipkin", kpts=kpts), axis=1)  # [3, nk, nao, nao]
        start = 0
        for orbitals, *_, weight, _ in mf._numint.block_loop(cell, mf.grids, cell.nao, 1, kpts):
            here = slice(start, start + weight.size)
            start += weight.size
            for k, ao in enumerate(orbitals):
                scaled = ao[0] * potential[here, None]
                bra[:, k] += np.stack([ao[x].conj().T @ scaled for x in (1, 2, 3)])
        slices = cell.aoslice_by_atom()

        def derivative(atom: int) -> NDArray:
            first, last = slices[atom, 2:]
            moved = np.zeros_like(bra)
            moved[:, :, first:last] -= bra[:, :, first:last]
            moved[..., first:last] -= bra[:, :, first:last].transpose(0, 1, 3, 2).conj()
            return moved

        return derivative

    def extra_force(self, atom: int, variables: dict[str, Any]) -> NDArray:
        """Derivative of the local pseudopotential of an atom at fixed density, [3]."""
        mf, cell = self.base, self.cell  # type: ignore[attr-defined]
        if atom == 0:  # once for all atoms
            density = np.asarray(variables["dm0"])
            total = density.sum(axis=0) if density.ndim == 4 else density
            rho = mf._numint.get_rho(cell, total, mf.grids, mf.kpts, mf.max_memory)
            spectrum = tools.fft(np.asarray(rho).real, cell.mesh).conj() / rho.size
            weights = spectrum * cell.get_SI() * get_vlocG(cell)
            self._by_atom = -np.einsum("ag,gx->ax", weights, cell.Gv).imag
        return self._by_atom[atom]


class _Restricted(_LocalPotential, krks.Gradients):
    """Gradients of KRKS with an LDA or GGA."""


class _Unrestricted(_LocalPotential, kuks.Gradients):
    """Gradients of KUKS with an LDA or GGA."""


class _MetaRestricted(_LocalPotential, krks.Gradients):
    """Gradients of KRKS with a meta-GGA."""

    def get_veff(self, dm: Any = None, kpts: Any = None) -> NDArray:
        """Derivative of the potentials on the bra, [3, nk, nao, nao]."""
        dm = self.base.make_rdm1() if dm is None else dm
        kpts = self.kpts if kpts is None else kpts
        return _meta_potential(self, np.asarray(dm)[None], kpts)[:, 0] + self.get_j(dm, kpts)


class _MetaUnrestricted(_LocalPotential, kuks.Gradients):
    """Gradients of KUKS with a meta-GGA."""

    def get_veff(self, dm: Any = None, kpts: Any = None) -> NDArray:
        """Derivative of the potentials on the bra, [3, 2, nk, nao, nao]."""
        dm = self.base.make_rdm1() if dm is None else dm
        kpts = self.kpts if kpts is None else kpts
        coulomb = self.get_j(dm, kpts)
        return _meta_potential(self, np.asarray(dm), kpts) + coulomb.sum(axis=1)[:, None]


def _meta_potential(gradient: Any, density_matrix: NDArray, kpts: NDArray) -> NDArray:
    """-<nabla i| v_xc |j> of a meta-GGA; `density_matrix` is [1 or 2, nk, nao, nao]."""
    mf, cell = gradient.base, gradient.cell
    ni, spins = mf._numint, len(density_matrix)
    nao, slices = cell.nao, cell.ao_loc_nr()
    potential = np.zeros((3, spins, len(kpts), nao, nao), dtype=density_matrix.dtype)
    memory = max(1000, gradient.max_memory * 0.9 - current_memory()[0])
    make_rho, _, _ = ni._gen_rho_evaluator(cell, density_matrix, hermi=1)
    for orbitals, _, mask, weight, _ in ni.block_loop(cell, mf.grids, nao, 2, kpts, None, memory):
        values = [ao[:4] for ao in orbitals]
        rho = np.stack([make_rho(s, values, mask, "MGGA").real for s in range(spins)])
        vxc = ni.eval_xc_eff(mf.xc, rho if spins == 2 else rho[0], 1, xctype="MGGA")[1]
        weighted = (vxc * weight).reshape(spins, 5, -1)
        weighted[:, 0] *= 0.5  # bra and ket share the density
        weighted[:, 4] *= 0.5  # tau is half the sum of squared gradients
        for s in range(spins):
            for k, ao in enumerate(orbitals):
                target = potential[:, s, k]
                molecular._gga_grad_sum_(target, cell, ao, weighted[s], mask, slices)
                molecular._tau_grad_dot_(target, cell, ao, weighted[s, 4], mask, slices, True)
    return -potential
