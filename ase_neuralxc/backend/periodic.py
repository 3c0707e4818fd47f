"""Crystals, slabs and boxed molecules in PySCF: KRKS and KUKS with Gaussians, GTH and FFTs.

k-point classes also at Gamma, where PySCF's own single-point classes have no forces or stress.
There is no choice of other integral schemes: with k-points, Gaussian density fitting, multigrids,
k-point symmetry, two-dimensional cells and restricted open shells have no forces in PySCF, or
wrong ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.pbc import dft

from ase_neuralxc.backend.guess import split_by_moments
from ase_neuralxc.backend.hook import check_device
from ase_neuralxc.backend.kpoints import resolve_kpoints
from ase_neuralxc.backend.ladder import Strategy, climb
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.pbc.cell import build_cell
from ase_neuralxc.backend.pbc.gradient import nuclear_gradient, strain_gradient
from ase_neuralxc.backend.pbc.integrator import CachingKNumInt, TorchKNumInt
from ase_neuralxc.backend.pbc.ladder import SOLID_LADDER
from ase_neuralxc.backend.pbc.occupation import attach_occupations
from ase_neuralxc.backend.pbc.properties import (
    bands,
    box_dipole,
    density_on_grid,
    populations,
    spectrum,
    total_moment,
)
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.backend.pbc.spin import PeriodicSpin, resolve_periodic_spin
from ase_neuralxc.backend.protocol import EnergyTerm
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.records import units

#: Electrons that the grid may miss, as a part of all of them.
MISSED_ELECTRONS = 1e-4
#: A gap (Hartree) below which whole occupations are those of a metal.
METALLIC_GAP = 0.002


class PeriodicBackend:
    """`KSBackend` for periodic systems; molecules are put in a box and sampled at Gamma.

    Args:
        ladder: SCF strategies, cheapest first.
    """

    name = "pyscf-pbc"
    Settings = PeriodicSettings

    def __init__(self, ladder: Sequence[Strategy] = SOLID_LADDER) -> None:
        self.ladder = tuple(ladder)

    def solve(
        self,
        system: System,
        functional: XCFunctional | LibxcFunctional,
        settings: PeriodicSettings,
        terms: Sequence[EnergyTerm] = (),
        guess: NDArray | None = None,
    ) -> KSSolution:
        """Converge the SCF.

        Args:
            system: atoms, cell and spin state.
            functional: a semi-local torch functional, or a functional of libxc.
            settings: basis, pseudopotentials, grid, k-points, smearing, tolerances.
            terms: additive energy terms of the geometry alone.
            guess: density matrix of the same shape to start from, or None.

        Returns:
            The converged solution.

        Raises:
            InvalidInputError: what this host cannot do, or inconsistent input; a grid that misses
                electrons.
            SCFNotConverged: no strategy converged; carries the history.
        """
        semilocal = _check_functional(functional)
        cell = build_cell(system, settings)
        kpoints = resolve_kpoints(settings.kpts, system.cell, system.pbc).scaled
        spin = resolve_periodic_spin(system, settings, int(cell.tot_electrons()), len(kpoints))
        _check_terms(terms, cell)
        template = _mean_field(cell, cell.get_abs_kpts(kpoints), semilocal, settings, spin)
        shape = (2,) * (spin.reference == "uks") + (len(kpoints), cell.nao, cell.nao)
        if guess is None or guess.shape != shape:
            guess = _initial_density(template, spin)

        def make() -> Any:
            fresh = template.copy()
            fresh.diis = True
            return fresh

        mf, history = climb(make, guess, self.ladder)
        density = np.asarray(mf.make_rdm1())
        solution = KSSolution(
            system=spin.system,
            settings=settings,
            reference=spin.reference,
            energies=_itemise(mf, spin.system, density, terms),
            density_matrix=density,
            mo_energy=np.asarray(mf.mo_energy),
            mo_coeff=np.asarray(mf.mo_coeff),
            mo_occ=np.asarray(mf.mo_occ),
            history=history,
            host=mf,
            sizes={
                "n_basis_functions": int(cell.nao),
                "n_grid_points": int(mf.grids.weights.size),
                "n_kpoints": len(kpoints),
            },
        )
        mf.energy_terms = tuple(terms)
        _check_grid(solution)
        if not mf.sigma and mf.gap < METALLIC_GAP and system.periodic:
            warnings.warn(
                f"smearing: whole occupations with a gap of {mf.gap * units.HARTREE_EV:.3f} eV; a "
                "metal needs a width, for example smearing=0.1",
                stacklevel=2,
            )
        return solution

    def forces(self, solution: KSSolution) -> NDArray:
        """Forces, [n_atoms, 3] in Hartree/Bohr, minus the derivative of the free energy."""
        forces = -nuclear_gradient(solution.host)
        for term in solution.host.energy_terms:
            forces += term.forces(solution.system, solution.density_matrix)
        return forces

    def stress(self, solution: KSSolution) -> NDArray:
        """Stress (1/V) dF/d(strain), symmetric [3, 3] in Hartree/Bohr^3.

        The derivative is that at a constant number of grid points and k-points.

        Args:
            solution: a converged solution of a periodic system.

        Returns:
            The stress; its volume is that of the cell, with the vacuum of a slab.

        Raises:
            InvalidInputError: the system is not periodic.
        """
        if not solution.system.periodic:
            raise InvalidInputError(
                f"stress: expected a periodic system, got pbc = {list(solution.system.pbc)}"
            )
        stress = strain_gradient(solution.host)
        for term in solution.host.energy_terms:
            stress += term.stress(solution.system)
        return stress

    def properties(self, solution: KSSolution) -> dict[str, Any]:
        """Charges [n] in e, moments [n] and total moment in mu_B, dipole [3] of a molecule."""
        charges, magmoms = populations(solution)
        found: dict[str, Any] = {
            "charges": charges,
            "magmoms": magmoms,
            "magmom": total_moment(solution),
        }
        if not solution.system.periodic:
            found["dipole"] = box_dipole(solution)
        return found

    def spectrum(self, solution: KSSolution) -> dict[str, Any]:
        """Levels, k-points, Fermi level and gap (see `pbc.properties.spectrum`)."""
        return spectrum(solution)

    def bands(self, solution: KSSolution, kpoints: NDArray) -> NDArray:
        """Band energies at any k-points (see `pbc.properties.bands`)."""
        return bands(solution, kpoints)


def _check_functional(
    functional: XCFunctional | LibxcFunctional,
) -> SemilocalFunctional | LibxcFunctional:
    if not isinstance(functional, (LibxcFunctional, SemilocalFunctional)):
        raise InvalidInputError(
            f"xc: expected a semi-local functional for periodic PySCF, got the nonlocal "
            f"{functional.name!r}"
        )
    if functional.exchange_fraction:
        raise InvalidInputError(
            f"xc: expected a functional without exact exchange for periodic PySCF, got "
            f"{functional.name!r} with a fraction of {functional.exchange_fraction:g}; there is no "
            "stress of hybrids, and their finite-size error is not corrected"
        )
    if isinstance(functional, LibxcFunctional):
        functional.refuse_vv10("periodic PySCF")
    return functional


def _check_terms(terms: Sequence[EnergyTerm], cell: Any) -> None:
    for term in terms:
        if term.ao_operator(cell, np.zeros((cell.nao, cell.nao))) is not None:
            raise InvalidInputError(
                f"terms: expected terms of the geometry alone in a periodic cell, got {term.name!r}"
            )


def _mean_field(
    cell: Any,
    kpts: NDArray,
    functional: SemilocalFunctional | LibxcFunctional,
    settings: PeriodicSettings,
    spin: PeriodicSpin,
) -> Any:
    mf = (dft.KUKS if spin.reference == "uks" else dft.KRKS)(cell, kpts, exxdiv=None)
    mf.verbose = 0
    mf.chkfile = mf._chkfile = None  # the density is kept by the calculator, not by PySCF
    if isinstance(functional, LibxcFunctional):
        mf.xc, mf.nlc = functional.xc_code, 0
        mf._numint = CachingKNumInt(settings.max_memory)
    else:
        mf.xc = "torch"  # neutral: PySCF reads meaning into parts of functional names
        mf._numint = TorchKNumInt(functional, check_device(settings.device), settings.max_memory)
    mf.with_df._numint = mf._numint  # the Coulomb potential is on the same grid
    mf.conv_tol = settings.conv_tol
    mf.conv_tol_grad = settings.conv_tol_grad
    # PySCF ends with one cycle without DIIS, which for a small gap amplifies what is left of the
    # error (50 times for diamond at Gamma) and undoes the convergence. The ladder checks instead.
    mf.conv_check = False
    mf.max_cycle = settings.max_cycle
    mf.max_memory = settings.max_memory
    mf.grids.build()
    width = (settings.smearing or 0.0) * units.EV_HARTREE
    return attach_occupations(mf, width, float(cell.tot_electrons()), spin.moment)


def _initial_density(mf: Any, spin: PeriodicSpin) -> NDArray:
    """Superposed atoms, split by the initial moments, with the right number of electrons."""
    cell, points = mf.cell, len(mf.kpts)
    total = np.asarray(mf.init_guess_by_minao(cell))
    if total.ndim == 4:
        total = total.sum(axis=0)
    overlap = np.asarray(mf.get_ovlp())
    total = total * (mf.electrons * points / np.einsum("kij,kji->", total, overlap).real)
    if spin.reference == "rks":
        return total
    moments = np.zeros(cell.natm)
    if spin.system.spin_state.magmoms is not None:
        moments = np.asarray(spin.system.spin_state.magmoms, dtype=float)
    elif spin.moment:
        moments = spin.moment * cell.atom_charges() / mf.electrons
    return split_by_moments(cell, total, moments)


def _itemise(
    mf: Any, system: System, density: NDArray, terms: Sequence[EnergyTerm]
) -> dict[str, float]:
    summary = mf.scf_summary
    energies = {
        "nuclear": float(mf.energy_nuc()),
        "core": float(np.real(summary["e1"])),
        "coulomb": float(np.real(summary["coul"])),
    }
    energies["xc"] = float(mf.e_tot) - sum(energies.values())
    for term in terms:
        energies[term.name] = float(term.energy(system, density))
    total = sum(energies.values())
    if not mf.sigma:
        return {**energies, "total": total}
    # Fermi-Dirac: (E + F) / 2 is the energy without smearing to second order
    energies["entropy"] = -0.5 * mf.sigma * mf.entropy
    total += energies["entropy"]
    return {**energies, "total": total, "free": total + energies["entropy"]}


def _check_grid(solution: KSSolution) -> None:
    mf = solution.host
    found = float(density_on_grid(solution) @ mf.grids.weights)
    if abs(found - mf.electrons) > MISSED_ELECTRONS * mf.electrons:
        mesh = [int(n) for n in mf.cell.mesh]
        raise InvalidInputError(
            f"ecut: expected a grid on which {mf.electrons:g} electrons are found, got "
            f"{found:.4f} on {mesh}; raise ecut (or mesh), or take pseudopotentials without "
            "semicore electrons"
        )
