"""The ASE calculator: Kohn-Sham density-functional theory with a torch functional."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray

from ase_neuralxc.backend.hosts import (
    AUTO,
    check_keywords,
    choose_host,
    host_settings,
    load_host,
)
from ase_neuralxc.backend.libxc import find_functional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.restart import read_density, write_density
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.excited.backend import TransitionBackend
from ase_neuralxc.excited.transition import TransitionConstraint
from ase_neuralxc.fidelity import convergence_record, fidelity_tag, provenance
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.levels import ElectronicLevels
from ase_neuralxc.recommended import RECOMMENDED, recommended_settings, with_dispersion
from ase_neuralxc.records import LabelRecord, SpinState, units
from ase_neuralxc.records.label import RESULTS
from ase_neuralxc.report import write_report
from ase_neuralxc.terms.field import ElectricField

#: The shipped semi-local functional: for molecules and crystals alike.
DEFAULT_XC = "nxc-s9"
_OWN = (
    "xc", "charge", "multiplicity", "magmoms", "excitation", "dispersion", "backend", "label",
    "txt",
)  # fmt: skip
#: From the names and units of a host's properties to those of ASE.
_UNITS = {
    "dipole": units.BOHR_ANGSTROM,
    "charges": 1.0,
    "magmom": 1.0,
    "magmoms": 1.0,
    "excitation_energy": units.HARTREE_EV,
}


class NeuralXC(ElectronicLevels, Calculator):
    """Kohn-Sham DFT for molecules, slabs and crystals with a neural or conventional functional.

    Energies are in eV, lengths in Angstrom, dipoles in e*Angstrom, moments in mu_B, stress in
    eV/Angstrom^3 with ASE's sign.

    Args:
        xc: name of a shipped functional ("nxc-s9", the default, and its forerunner
            "nxc-s8" are semi-local; "nxc-h4" has exact exchange) or of a reference ("pbe",
            "r2scan" and so on), path of a checkpoint (`.safetensors`, or a Skala `.fun` file,
            whose TorchScript is run), an `XCFunctional`, or "libxc:NAME" for the host's own
            implementation of a functional.
        charge: total charge in e.
        multiplicity: 2S+1; None takes it from the magnetic moments, or else the lowest possible.
        magmoms: [n_atoms] initial moments; None takes `atoms.get_initial_magnetic_moments()`.
            Signed moments start a broken-symmetry solution.
        excitation: a `TransitionConstraint`: energies, dipoles and populations are those of the
            excited state of a molecule, and `results["excitation_energy"]` (eV) is its distance
            from the ground state, whose charge and multiplicity the arguments before describe.
        dispersion: "d3bj", "d4", either with ":NAME" for another functional's damping, None, or
            "recommended": what the card of a trained functional names, nothing for others. A
            Skala file that names the damping that belongs to it gets that one. VV10, which some
            functionals of libxc have, is left out with it.
        backend: "pyscf" (molecules), "pyscf-pbc" or "gpaw" (crystals, slabs, boxed molecules), or
            "auto": PySCF for molecules; for periodic structures GPAW where it is installed.
        label: path without suffix; the density is kept in `label.npz` and read on restart.
        txt: file for the log ("-" for standard output), or None.
        atoms: attach the calculator to these atoms.
        **settings: settings of the backend; basis and grid_level of a molecule are by default
            those that the card of a trained functional recommends. Molecules (`KSSettings`):
            basis, ecp, density_fit, auxbasis, reference, grid_level, grid_response, conv_tol,
            conv_tol_grad, max_cycle, stability, solvent, electric_field, device, max_memory.
            Periodic backends: kpts, smearing (Fermi-Dirac k_B T in eV), ecut (eV) and their own.

    Raises:
        InvalidInputError: unknown keyword (with the nearest valid name) or impossible input.
        SCFNotConverged: on a calculation that no strategy of the ladder converged.
    """

    implemented_properties = [
        "energy", "free_energy", "forces", "stress", "dipole", "magmom", "magmoms", "charges",
    ]  # fmt: skip
    default_parameters: dict[str, Any] = {}

    def __init__(
        self,
        xc: str | Path | XCFunctional = DEFAULT_XC,
        *,
        charge: int = 0,
        multiplicity: int | None = None,
        magmoms: Sequence[float] | None = None,
        excitation: TransitionConstraint | None = None,
        dispersion: str | None = RECOMMENDED,
        backend: str = AUTO,
        label: str | Path | None = None,
        txt: str | Path | None = None,
        atoms: Atoms | None = None,
        **settings: Any,
    ) -> None:
        self.backend: Any = None
        self.solution: KSSolution | None = None
        self._chosen = ("", "")
        self._state_key: tuple | None = None
        super().__init__()
        self._configure(
            {
                "xc": xc, "charge": charge, "multiplicity": multiplicity, "magmoms": magmoms,
                "excitation": excitation, "dispersion": dispersion, "backend": backend,
                "label": label, "txt": txt, **settings,
            }
        )  # fmt: skip
        if atoms is not None:
            atoms.calc = self

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Change parameters; the results, and if need be the density, are forgotten.

        Args:
            **kwargs: parameters of the constructor by name.

        Returns:
            The parameters that changed.
        """
        changed = {
            key: value
            for key, value in kwargs.items()
            if key not in self.parameters or not _same(self.parameters[key], value)
        }
        if changed:
            self._configure({**self.parameters, **changed})
            self.reset()
        return changed

    def _configure(self, parameters: Mapping[str, Any]) -> None:
        keywords = {k: v for k, v in parameters.items() if k not in _OWN}
        check_keywords(parameters["backend"], keywords, _OWN)
        functional = find_functional(parameters["xc"])
        charge, multiplicity = parameters["charge"], parameters["multiplicity"]
        if int(charge) != charge:
            raise InvalidInputError(f"charge: expected an integer, got {charge!r}")
        if multiplicity is not None and (int(multiplicity) != multiplicity or multiplicity < 1):
            raise InvalidInputError(
                f"multiplicity: expected a positive integer 2S+1, got {multiplicity!r}"
            )
        excitation = parameters["excitation"]
        if not isinstance(excitation, TransitionConstraint | None):
            raise InvalidInputError(
                f"excitation: expected a TransitionConstraint or None, got {excitation!r}"
            )
        functional, dispersion = with_dispersion(functional, parameters["dispersion"])
        # nothing is assigned before everything has been checked
        self.functional, self._dispersion, self._keywords = functional, dispersion, keywords
        self.backend, self._chosen = None, ("", "")
        self.parameters.update(parameters)

    def _prepare(self, atoms: Atoms) -> None:
        """Choose host, settings and terms for a structure; keeps what is already right."""
        name, reason = choose_host(self.parameters["backend"], atoms.pbc)
        if self.backend is not None and name == self._chosen[0]:
            return
        keywords = {**recommended_settings(self.functional, name), **self._keywords}
        settings = host_settings(name, keywords, reason)
        terms: list[Any] = [self._dispersion] if self._dispersion is not None else []
        field = getattr(settings, "electric_field", None)
        if field is not None:
            x, y, z = (f / units.HARTREE_BOHR_EV_ANGSTROM for f in field)
            terms.append(ElectricField((x, y, z)))
        backend, excitation = load_host(name), self.parameters["excitation"]
        if excitation is not None:
            if not isinstance(backend, MolecularBackend):
                raise InvalidInputError(
                    f"excitation: expected a molecule in PySCF, got backend {name!r} ({reason})"
                )
            backend = TransitionBackend(backend, excitation)
        self.backend, self._chosen = backend, (name, reason)
        self.settings, self.terms = settings, tuple(terms)
        self.solution = None

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What changed since the last calculation; the cell of a molecule does not count."""
        changes: list[str] = super().check_state(atoms, tol)
        if "cell" in changes and not atoms.pbc.any() and self._chosen[0] in ("", "pyscf"):
            changes.remove("cell")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Solve the Kohn-Sham equations and fill `results` (ASE's interface)."""
        periodic = atoms is not None and bool(atoms.pbc.any())
        refused = {"stress"} if not periodic else set()
        refused |= {"forces", "stress"} if self.parameters["excitation"] is not None else set()
        for name in properties:
            if name not in self.implemented_properties or name in refused:
                kind = "an excited state" if self.parameters["excitation"] else "a molecule"
                raise PropertyNotImplementedError(f"{name} of {kind} is not available")
        super().calculate(atoms, properties, system_changes)
        self._prepare(self.atoms)
        missing = "energy" not in self.results
        derivatives = {"forces", "stress"} & {*properties} - {*self.results}
        # a solution that travelled through a pickle has no host any more
        gone = self.solution is None or (bool(derivatives) and self.solution.host is None)
        if system_changes or missing or gone:
            self._solve()
        if "forces" in derivatives:
            forces = self.backend.forces(self._solved())
            self.results["forces"] = forces * units.HARTREE_BOHR_EV_ANGSTROM
        if "stress" in derivatives:
            stress = self.backend.stress(self._solved())
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress) * units.STRESS_EV_ANGSTROM3
        for name in properties:
            if name not in self.results:
                raise PropertyNotImplementedError(
                    f"{name} is not defined for this structure ({self._chosen[0]})"
                )
        self._log()

    def _solve(self) -> None:
        magmoms = self.parameters["magmoms"]
        if magmoms is None:
            magmoms = self.atoms.get_initial_magnetic_moments()
        magmoms = np.asarray(magmoms, dtype=float)
        multiplicity = self.parameters["multiplicity"]
        state = SpinState(
            charge=int(self.parameters["charge"]),
            n_unpaired=None if multiplicity is None else int(multiplicity) - 1,
            magmoms=tuple(magmoms.tolist()) if np.any(magmoms) else None,
        )
        cell = np.array(self.atoms.cell)
        system = System(
            self.atoms.numbers.copy(),
            self.atoms.positions.copy(),
            state,
            cell if cell.any() else None,
            tuple(self.atoms.pbc.tolist()),
        )
        key = (self._chosen[0], tuple(self.atoms.numbers), state, self.settings.guess_key)
        guess = None
        if self.solution is not None and key == self._state_key:
            guess = self.solution.restart
        elif self.parameters["label"] is not None:
            guess = read_density(self.parameters["label"], key)
        self.solution = None
        self.results.clear()
        self.solution = self.backend.solve(
            system, self.functional, self.settings, self.terms, guess
        )
        self._state_key = key
        if self.parameters["label"] is not None:
            write_density(self.parameters["label"], key, self.solution.restart)
        self._fill(self.solution)

    def _fill(self, solution: KSSolution) -> None:
        self.results.update(
            energy=solution.energy * units.HARTREE_EV,
            free_energy=solution.free_energy * units.HARTREE_EV,
        )
        for name, value in self.backend.properties(solution).items():
            self.results[name] = value * _UNITS[name]

    def _solved(self) -> KSSolution:
        if self.solution is None:
            raise InvalidInputError("calculator: no calculation has been done yet")
        return self.solution

    def get_charges(self, atoms: Atoms | None = None) -> NDArray:
        """Atomic charges, [n_atoms] in e, from the host's populations (docs/conventions.md)."""
        return self.get_property("charges", atoms)

    def export_label(self) -> LabelRecord:
        """The last calculation as a training label, with its fidelity and provenance.

        Returns:
            The record, in ASE units.

        Raises:
            InvalidInputError: nothing has been calculated yet.
        """
        solution = self._solved()
        results = self.results
        return LabelRecord.from_atoms(
            self.atoms,
            spin_state=solution.system.spin_state,
            fidelity=fidelity_tag(self.functional, solution, self.terms),
            convergence=convergence_record(solution),
            provenance=provenance(solution),
            **{key: results.get(key) for key in RESULTS},
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the host object; the density travels as the next guess."""
        state = self.__dict__.copy()
        if self.solution is not None:
            state["solution"] = replace(self.solution, host=None)
        return state

    def __repr__(self) -> str:
        parts = [f"xc={self.functional.name!r}"]
        shown = ("charge", "multiplicity", "excitation")
        parts += [f"{k}={self.parameters[k]!r}" for k in shown if self.parameters[k]]
        if self._dispersion is not None:
            parts.append(f"dispersion={self._dispersion.name!r}")
        parts += [f"{k}={v!r}" for k, v in self._keywords.items()]
        name, reason = self._chosen
        parts.append(
            f"backend={name!r}: {reason}" if name else f"backend={self.parameters['backend']!r}"
        )
        return f"{type(self).__name__}({', '.join(parts)})"

    def _log(self) -> None:
        txt = self.parameters["txt"]
        if txt is None:
            return
        if txt == "-":
            write_report(sys.stdout, self._solved(), self.results, repr(self))
            return
        try:
            with open(txt, "a", encoding="utf-8") as stream:
                write_report(stream, self._solved(), self.results, repr(self))
        except OSError as error:
            raise InvalidInputError(f"txt: cannot write {str(txt)!r}: {error}") from error


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(np.all(a == b))
    except (TypeError, ValueError):
        return False
