"""Molecules in PySCF: RKS, UKS and ROKS, with and without density fitting.

The array module is injected (`dft_module`), so that GPU4PySCF's `gpu4pyscf.dft` can take the place
of `pyscf.dft` without a second implementation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import df, dft, lib

from ase_neuralxc.backend.compact_integrator import CompactIntegration
from ase_neuralxc.backend.guess import initial_density
from ase_neuralxc.backend.hook import TorchNumInt, check_device
from ase_neuralxc.backend.ladder import DEFAULT_LADDER, Strategy, climb
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.nonlocal_hook import NonlocalNumInt
from ase_neuralxc.backend.orbital_gradient import remember_gradient
from ase_neuralxc.backend.population import atomic_populations
from ase_neuralxc.backend.precision import GrowingPrecision
from ase_neuralxc.backend.protocol import EnergyTerm
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution, SCFAttempt
from ase_neuralxc.backend.solvent import attach_solvent
from ase_neuralxc.backend.stability import doubtful
from ase_neuralxc.backend.system import System, build_mole, resolve_reference, resolve_spin
from ase_neuralxc.backend.xc_gradient import attach_gradient
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional


class MolecularBackend:
    """`KSBackend` for isolated molecules.

    Args:
        dft_module: `pyscf.dft` or a module of the same interface.
        ladder: SCF strategies, cheapest first.
    """

    name = "pyscf"
    Settings = KSSettings
    #: Integrals of density fitting are kept up to this size, and else computed in every cycle.
    fitting_bytes = 2e8

    def __init__(
        self, dft_module: ModuleType = dft, ladder: Sequence[Strategy] = DEFAULT_LADDER
    ) -> None:
        self.dft = dft_module
        self.ladder = tuple(ladder)

    def __reduce__(self) -> tuple[Any, ...]:
        """Modules cannot be pickled: travel by name."""
        return _restore, (type(self), self.dft.__name__, self.ladder)

    def solve(
        self,
        system: System,
        functional: XCFunctional | LibxcFunctional,
        settings: KSSettings,
        terms: Sequence[EnergyTerm] = (),
        guess: NDArray | None = None,
    ) -> KSSolution:
        """Converge the SCF.

        Args:
            system: atoms and spin state; an open spin is resolved first.
            functional: a torch functional (semi-local ones take the pointwise path), or a
                functional of libxc.
            settings: basis, grid, tolerances.
            terms: additive energy terms.
            guess: density matrix of the same shape to start from, or None.

        Returns:
            The converged solution.

        Raises:
            InvalidInputError: inconsistent input, before any integral is computed.
            SCFNotConverged: no strategy converged; carries the history.
        """
        system = resolve_spin(system)
        reference = resolve_reference(system, settings)
        mol = build_mole(system, settings)
        template = self.mean_field(mol, functional, settings, reference, terms)
        template.grids.build(with_non0tab=True)

        if guess is None or guess.shape[-1] != mol.nao or (guess.ndim == 3) == (reference == "rks"):
            guess = initial_density(template, system, reference)

        def follow(mf: Any, attempts: int) -> bool:
            if settings.stability == "never":
                return False
            if settings.stability == "always":
                return True
            return attempts > 1 or doubtful(mf, system.numbers)

        mf, history = converge(template, guess, self.ladder, follow)
        density = np.asarray(mf.make_rdm1())
        return KSSolution(
            system=system,
            settings=settings,
            reference=reference,
            energies=itemise(mf, mol, density, terms),
            density_matrix=density,
            mo_energy=np.asarray(mf.mo_energy),
            mo_coeff=np.asarray(mf.mo_coeff),
            mo_occ=np.asarray(mf.mo_occ),
            history=history,
            host=mf,
            sizes={"n_basis_functions": int(mol.nao), "n_grid_points": int(mf.grids.weights.size)},
        )

    def forces(self, solution: KSSolution) -> NDArray:
        """Analytic forces, [n_atoms, 3] in Hartree/Bohr, the derivative of the energy returned.

        A density-fitted energy gets the density-fitted gradient with the response of the
        auxiliary basis; the quadrature grid moves with the atoms unless
        `settings.grid_response` is off.
        """
        mf = first_order(solution.host)
        gradient = mf.nuc_grad_method()
        gradient.verbose = 0
        gradient.grid_response = solution.settings.grid_response
        forces = -np.asarray(gradient.kernel())
        for term in getattr(mf, "energy_terms", ()):
            forces += term.forces(mf.mol, solution.density_matrix)
        return forces

    def properties(self, solution: KSSolution) -> dict[str, Any]:
        """Dipole [3] in e*Bohr, charges [n] in e, moments [n] and total moment in mu_B."""
        charges, magmoms = atomic_populations(solution)
        return {
            "dipole": np.asarray(
                solution.host.dip_moment(dm=solution.density_matrix, unit="AU", verbose=0)
            ),
            "charges": charges,
            "magmom": float(solution.system.spin_state.pyscf_spin),
            "magmoms": magmoms,
        }

    def spectrum(self, solution: KSSolution) -> dict[str, Any]:
        """Levels of a converged molecule, in Hartree.

        Args:
            solution: a converged solution.

        Returns:
            "eigenvalues" [spins, 1, nmo], "fermi_level" (in the middle of the gap), "band_gap",
            "kpoints" [1, 3] and "weights" [1] of the one point there is.
        """
        levels = np.atleast_2d(solution.mo_energy)
        filled = np.atleast_2d(solution.mo_occ) > 0
        highest = levels[filled].max()
        lowest = levels[~filled].min(initial=np.inf)
        return {
            "eigenvalues": levels[:, None],
            "fermi_level": float(0.5 * (highest + lowest)),
            "band_gap": float(max(lowest - highest, 0.0)),
            "kpoints": np.zeros((1, 3)),
            "weights": np.ones(1),
        }

    def mean_field(
        self,
        mol: Any,
        functional: XCFunctional | LibxcFunctional,
        settings: KSSettings,
        reference: str,
        terms: Sequence[EnergyTerm],
    ) -> Any:
        """A host object that is ready to be converged.

        Args:
            mol: PySCF's molecule.
            functional: a torch functional or one of libxc.
            settings: grid, tolerances, fitting, solvent.
            reference: "rks", "uks" or "roks".
            terms: additive energy terms.

        Returns:
            PySCF's mean-field object.
        """
        mf = getattr(self.dft, reference.upper())(mol)
        mf.verbose = 0
        mf.chkfile = mf._chkfile = None  # the density is kept by the calculator, not by PySCF
        if isinstance(functional, LibxcFunctional):
            mf.xc = functional.xc_code
            mf.nlc = "" if functional.has_vv10 else 0
        else:
            mf.xc = "torch"  # neutral: PySCF reads meaning into parts of functional names
            mf._numint = _integrator(functional, settings)
        mf.grids.level = settings.grid_level
        mf.small_rho_cutoff = 0  # dropping points would break the grid response
        mf.conv_tol = settings.conv_tol
        mf.conv_tol_grad = settings.gradient_tolerance
        mf.max_cycle = settings.max_cycle
        mf.max_memory = settings.max_memory
        if settings.density_fit:
            auxbasis = settings.auxbasis or df.make_auxbasis(mol, mp2fit=False)
            mf = mf.density_fit(auxbasis=auxbasis)
            pairs = mol.nao * (mol.nao + 1) // 2
            if 8 * pairs * df.make_auxmol(mol, auxbasis).nao <= self.fitting_bytes:
                mf.with_df.build()
        if isinstance(mf._numint, TorchNumInt):
            mf = attach_gradient(mf)
        if terms:
            mf = lib.set_class(mf, (_WithTerms, mf.__class__))
            mf.energy_terms = tuple(terms)
        if settings.solvent is not None:
            mf = attach_solvent(mf, settings.solvent)
        return remember_gradient(mf)


class MolecularNumInt(GrowingPrecision, CompactIntegration, TorchNumInt):
    """A torch functional, with dense matrix products over the orbitals of a block of points."""


def _integrator(functional: XCFunctional, settings: KSSettings) -> TorchNumInt:
    device = check_device(settings.device)
    if isinstance(functional, SemilocalFunctional):
        return MolecularNumInt(functional, device)
    if not settings.grid_response:
        raise InvalidInputError(
            "grid_response: expected True for a nonlocal functional, whose points move with the "
            f"atoms, got False with {functional.name!r}"
        )
    return NonlocalNumInt(functional, device)


def _restore(cls: type, module: str, ladder: tuple[Strategy, ...]) -> MolecularBackend:
    return cls(importlib.import_module(module), ladder)


class _WithTerms:
    """Mean-field mixin that adds energy terms to the effective potential."""

    __name_mixin__ = "WithTerms"
    _keys = {"energy_terms"}
    energy_terms: tuple[EnergyTerm, ...]

    def get_veff(self, mol: Any = None, dm: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Effective potential with the operators of the terms, their energies in `exc`."""
        mol = mol if mol is not None else self.mol  # type: ignore[attr-defined]
        dm = dm if dm is not None else self.make_rdm1()  # type: ignore[attr-defined]
        veff = super().get_veff(mol, dm, *args, **kwargs)  # type: ignore[misc]
        total = np.asarray(veff)
        exc = veff.exc
        for term in self.energy_terms:
            exc = exc + term.energy(mol, np.asarray(dm))
            operator = term.ao_operator(mol, np.asarray(dm))
            if operator is not None:
                total = total + operator
        return lib.tag_array(total, ecoul=veff.ecoul, exc=exc, vj=veff.vj, vk=veff.vk)


def converge(
    template: Any,
    guess: NDArray,
    ladder: Sequence[Strategy],
    follow_instabilities: Callable[[Any, int], bool] = lambda mf, attempts: False,
) -> tuple[Any, tuple[SCFAttempt, ...]]:
    """Climb the ladder on copies of a host object, which give back the memory of their orbitals.

    Args:
        template: what `MolecularBackend.mean_field` made, with its grid.
        guess: starting density matrix.
        ladder: strategies, cheapest first.
        follow_instabilities: as for `climb`.

    Returns:
        The converged host object and the history.

    Raises:
        SCFNotConverged: no strategy converged.
    """

    def make() -> Any:
        fresh = template.copy()
        fresh.diis = True
        return fresh

    mf, history = climb(make, guess, ladder, follow_instabilities)
    if isinstance(mf._numint, CompactIntegration):
        mf._numint.forget_orbitals()
    return mf, history


def first_order(mf: Any) -> Any:
    """The first-order object behind a second-order one: same orbitals, plain methods.

    Args:
        mf: PySCF's mean-field object of a solution.

    Returns:
        The object whose derivatives and response can be asked for.

    Raises:
        InvalidInputError: it keeps some orbitals frozen, which none of these accounts for.
    """
    if getattr(mf, "frozen_orbitals", None) is not None:
        raise InvalidInputError(
            "solution: expected a ground state; derivatives and response of a state with frozen "
            "orbitals (excitation=) are not available"
        )
    return mf.undo_newton() if hasattr(mf, "undo_newton") else mf


def itemise(mf: Any, mol: Any, density: NDArray, terms: Sequence[EnergyTerm]) -> dict[str, float]:
    """Energies of a converged host object in Hartree, as `KSSolution.energies` has them.

    Args:
        mf: PySCF's mean-field object.
        mol: its molecule.
        density: its density matrix.
        terms: additive energy terms.

    Returns:
        Name -> energy.
    """
    summary = mf.scf_summary
    energies = {
        "nuclear": float(summary["nuc"]),
        "core": float(summary["e1"]),
        "coulomb": float(summary["coul"]),
    }
    extra = {term.name: float(term.energy(mol, density)) for term in terms}
    solvent = float(summary.get("e_solvent", 0.0)) + float(summary.get("e_cds", 0.0))
    if solvent:
        energies["solvent"] = solvent
    energies["xc"] = float(mf.e_tot) - sum(energies.values()) - sum(extra.values())
    return {**energies, **extra, "total": float(mf.e_tot)}
