"""Crystals, slabs and boxed molecules in GPAW: plane waves and PAW.

Energies are those of GPAW, relative to its scalar-relativistic PBE reference atoms. The PAW data
are made with PBE for every functional.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_neuralxc.backend.gpaw.levels import bands, gap, run_of, spectrum
from ase_neuralxc.backend.gpaw.scf import GPAWRun, solve_structure
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw.structure import build_structure
from ase_neuralxc.backend.gpaw.xc import make_xc
from ase_neuralxc.backend.hook import check_device
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.protocol import EnergyTerm
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.records import units

#: Hartree: with a smaller gap and no smearing there is a warning.
METALLIC = 0.05 / units.HARTREE_EV


class GPAWBackend:
    """`KSBackend` for periodic systems, and for molecules in a box."""

    name = "gpaw"
    Settings = GPAWSettings

    def solve(
        self,
        system: System,
        functional: XCFunctional | LibxcFunctional,
        settings: GPAWSettings,
        terms: Sequence[EnergyTerm] = (),
        guess: GPAWRun | NDArray | None = None,
    ) -> KSSolution:
        """Converge the SCF.

        Args:
            system: atoms, spin state, cell.
            functional: a semi-local torch functional, or one of libxc, which GPAW evaluates.
            settings: cutoff, k-points, smearing, tolerances.
            terms: additive energy terms that depend on the geometry alone.
            guess: `host` of an earlier solution: with the same functional, settings and elements
                its density (and orbitals, if the symmetry is kept) is continued, and it cannot be
                asked for derivatives any more; or its density, `numpy.asarray(host)`.

        Returns:
            The converged solution; its `host` is what `guess` takes.

        Raises:
            MissingDependencyError: GPAW is not installed.
            InvalidInputError: inconsistent input, before the first integral.
            SCFNotConverged: no strategy converged; carries the history.
        """
        check_device(settings.device)
        box = guess.structure.system.cell if isinstance(guess, GPAWRun) else None
        structure = build_structure(system, settings, box)
        extra = {term.name: _energy_of(term, structure.system) for term in terms}
        if isinstance(functional, XCFunctional):
            functional.to(settings.device)  # type: ignore[attr-defined]
        xc = make_xc(functional, settings.clamps_for(functional), settings.device)
        run, history = solve_structure(structure, settings, functional, xc, guess)
        run.terms = tuple(terms)
        dft = run.active()
        eigenvalues, occupations = dft.ibzwfs.get_all_eigs_and_occs(broadcast=True)
        solution = KSSolution(
            system=structure.system,
            settings=settings,
            reference=structure.reference,
            energies=_itemise(dft.energies, settings, extra),
            density_matrix=None,
            mo_energy=eigenvalues,
            mo_coeff=None,
            mo_occ=occupations * (1 if structure.reference == "uks" else 2),
            history=history,
            host=run,
            sizes={
                "n_bands": int(dft.ibzwfs.nbands),
                "n_grid_points": int(np.prod(dft.density.nt_sR.desc.size)),
                "n_kpoints": len(dft.ibzwfs.ibz),
            },
        )
        if settings.smearing is None and system.periodic and gap(dft) < METALLIC:
            warnings.warn(
                f"smearing: None for a system with a band gap of {gap(dft) * units.HARTREE_EV:.3f}"
                " eV; expected Fermi-Dirac smearing, 0.05 to 0.2 eV, for a metal",
                stacklevel=2,
            )
        return solution

    def forces(self, solution: KSSolution) -> NDArray:
        """Forces, [n_atoms, 3] in Hartree/Bohr, minus the derivative of the free energy."""
        dft = run_of(solution).active()
        dft.calculate_forces()
        forces = np.array(dft.results["forces"])
        for term in run_of(solution).terms:
            forces += term.forces(solution.system, None)
        return forces

    def stress(self, solution: KSSolution) -> NDArray:
        """Stress (1/V) dF/d(strain), symmetric [3, 3] in Hartree/Bohr^3.

        Args:
            solution: of a periodic system.

        Returns:
            The stress; the volume is that of the cell, with the vacuum of a slab.

        Raises:
            InvalidInputError: the system is not periodic.
        """
        if not solution.system.periodic:
            raise InvalidInputError(
                f"stress: expected a periodic system, got pbc = {list(solution.system.pbc)}"
            )
        dft = run_of(solution).active()
        dft.calculate_stress()
        stress = np.array(voigt_6_to_full_3x3_stress(dft.results["stress"]))
        for term in run_of(solution).terms:
            stress += term.stress(solution.system)
        return stress

    def properties(self, solution: KSSolution) -> dict[str, Any]:
        """Moments and dipole, in Hartree atomic units.

        Args:
            solution: a converged solution.

        Returns:
            "magmom" and "magmoms" [n] in mu_B (those of the atoms within their PAW spheres), and
            "dipole" [3] of a molecule.
        """
        run = run_of(solution)
        dft = run.active()
        total, local = dft.magmoms()
        found: dict[str, Any] = {"magmom": float(total[2]), "magmoms": np.array(local[:, 2])}
        if not solution.system.periodic:
            dft.calculate_dipole()
            # the origin is that of the coordinates, not that of the box
            shift = (run.structure.atoms.positions - solution.system.positions)[0]
            charge = solution.system.spin_state.charge
            found["dipole"] = dft.results["dipole"] - charge * shift / units.BOHR_ANGSTROM
        return found

    def spectrum(self, solution: KSSolution) -> dict[str, Any]:
        """Levels, k-points, Fermi level and gap (see `gpaw.levels.spectrum`)."""
        return spectrum(solution)

    def bands(self, solution: KSSolution, kpoints: NDArray) -> NDArray:
        """Band energies at any k-points (see `gpaw.levels.bands`)."""
        return bands(solution, kpoints)


def _energy_of(term: Any, system: System) -> float:
    if not hasattr(term, "stress"):  # terms of the geometry alone know that of a cell
        raise InvalidInputError(
            f"terms: expected terms of the geometry alone for backend='gpaw', got {term.name!r}, "
            "which acts on the electrons"
        )
    return float(term.energy(system, None))


def _itemise(energies: Any, settings: GPAWSettings, extra: Mapping[str, float]) -> dict[str, float]:
    parts = {"kinetic": float(energies.kinetic)}
    for name in ("coulomb", "zero", "external", "xc", "entropy"):
        parts[name] = float(energies._energies.get(name, 0.0))
    # GPAW's entropy is -TS; the extrapolation to zero smearing gives half of it back
    parts["entropy"] += float(energies._energies["extrapolation"])
    parts.update(extra)
    shift = sum(extra.values())
    out = {**parts, "total": float(energies.total_extrapolated) + shift}
    if settings.smearing is not None:
        out["free"] = float(energies.total_free) + shift
    return out
