"""The ASE calculator: Kohn-Sham density-functional theory with a torch functional."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from numpy.typing import NDArray

from ase_neuralxc.backend.libxc import PREFIX, LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.population import atomic_populations
from ase_neuralxc.backend.restart import read_density, write_density
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.fidelity import convergence_record, fidelity_tag, provenance
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.records import LabelRecord, SpinState, units
from ase_neuralxc.report import write_report
from ase_neuralxc.terms.dispersion import parse_dispersion
from ase_neuralxc.terms.field import ElectricField


class NeuralXC(Calculator):
    """Kohn-Sham DFT for molecules with a neural or conventional functional.

    Energies are in eV, lengths in Angstrom, dipoles in e*Angstrom, moments in mu_B.

    Args:
        xc: name of a reference or shipped functional, path of a checkpoint (`.safetensors`, or a
            Skala `.fun` file, whose TorchScript is run), an `XCFunctional`, or "libxc:NAME" for
            the host's own implementation of a functional.
        charge: total charge in e.
        multiplicity: 2S+1; None takes it from the magnetic moments, or else the lowest possible.
        magmoms: [n_atoms] initial moments; None takes `atoms.get_initial_magnetic_moments()`.
            Signed moments start a broken-symmetry solution.
        dispersion: "d3bj", "d4", either with ":NAME" for another functional's damping, or None.
        label: path without suffix; the density is kept in `label.npz` and read on restart.
        txt: file for the log ("-" for standard output), or None.
        atoms: attach the calculator to these atoms.
        **settings: fields of `KSSettings`: basis, ecp, density_fit, auxbasis, reference,
            grid_level, grid_response, conv_tol, conv_tol_grad, max_cycle, stability, solvent,
            electric_field, device, max_memory.

    Raises:
        InvalidInputError: unknown keyword (with the nearest valid name) or impossible input.
        SCFNotConverged: on a calculation that no strategy of the ladder converged.
    """

    implemented_properties = [
        "energy", "free_energy", "forces", "dipole", "magmom", "magmoms", "charges",
    ]  # fmt: skip
    default_parameters: dict[str, Any] = {}
    ignored_changes = {"cell"}

    def __init__(
        self,
        xc: str | Path | XCFunctional = "r2scan",
        *,
        charge: int = 0,
        multiplicity: int | None = None,
        magmoms: Sequence[float] | None = None,
        dispersion: str | None = None,
        label: str | Path | None = None,
        txt: str | Path | None = None,
        atoms: Atoms | None = None,
        **settings: Any,
    ) -> None:
        self.backend = MolecularBackend()
        self.solution: KSSolution | None = None
        self._state_key: tuple | None = None
        super().__init__()
        self._configure(
            {
                "xc": xc, "charge": charge, "multiplicity": multiplicity, "magmoms": magmoms,
                "dispersion": dispersion, "label": label, "txt": txt, **settings,
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
        own = {"xc", "charge", "multiplicity", "magmoms", "dispersion", "label", "txt"}
        names = own | set(inspect.signature(KSSettings).parameters)
        for name in parameters:
            if name not in names:
                raise unknown_name("parameter", name, names)
        settings = KSSettings(**{k: v for k, v in parameters.items() if k not in own})
        functional = _functional(parameters["xc"])
        charge, multiplicity = parameters["charge"], parameters["multiplicity"]
        if int(charge) != charge:
            raise InvalidInputError(f"charge: expected an integer, got {charge!r}")
        if multiplicity is not None and (int(multiplicity) != multiplicity or multiplicity < 1):
            raise InvalidInputError(
                f"multiplicity: expected a positive integer 2S+1, got {multiplicity!r}"
            )
        terms: list[Any] = []
        dispersion = parse_dispersion(parameters["dispersion"], functional.name)
        if dispersion is not None:
            terms.append(dispersion)
        if settings.electric_field is not None:
            x, y, z = (f / units.HARTREE_BOHR_EV_ANGSTROM for f in settings.electric_field)
            terms.append(ElectricField((x, y, z)))
        # nothing is assigned before everything has been checked
        self.settings, self.functional, self.terms = settings, functional, tuple(terms)
        self.parameters.update(parameters)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Solve the Kohn-Sham equations and fill `results` (ASE's interface)."""
        for name in properties:
            if name not in self.implemented_properties:
                raise PropertyNotImplementedError(f"{name} of a molecule is not available")
        if atoms is not None and atoms.pbc.any():
            raise InvalidInputError(
                f"atoms.pbc: expected a molecule without periodic boundaries, got "
                f"{atoms.pbc.tolist()}; periodic systems are not supported yet"
            )
        super().calculate(atoms, properties, system_changes)
        missing = "energy" not in self.results
        wanted = "forces" in properties and "forces" not in self.results
        # a solution that travelled through a pickle has no host any more
        gone = self.solution is None or (wanted and self.solution.host is None)
        if system_changes or missing or gone:
            self._solve()
        if "forces" in properties and "forces" not in self.results:
            forces = self.backend.forces(self._solved())
            self.results["forces"] = forces * units.HARTREE_BOHR_EV_ANGSTROM
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
        system = System(self.atoms.numbers.copy(), self.atoms.positions.copy(), state)
        key = (tuple(self.atoms.numbers), state, str(self.settings.basis), str(self.settings.ecp))
        guess = None
        if self.solution is not None and key == self._state_key:
            guess = self.solution.density_matrix
        elif self.parameters["label"] is not None:
            guess = read_density(self.parameters["label"], key)
        self.solution = None
        self.results.clear()
        self.solution = self.backend.solve(
            system, self.functional, self.settings, self.terms, guess
        )
        self._state_key = key
        if self.parameters["label"] is not None:
            write_density(self.parameters["label"], key, self.solution.density_matrix)
        self._fill(self.solution)

    def _fill(self, solution: KSSolution) -> None:
        energy = solution.energy * units.HARTREE_EV
        charges, magmoms = atomic_populations(solution)
        dipole = solution.host.dip_moment(unit="AU", verbose=0)
        self.results.update(
            energy=energy,
            free_energy=energy,
            dipole=np.asarray(dipole) * units.BOHR_ANGSTROM,
            charges=charges,
            magmom=float(solution.system.spin_state.pyscf_spin),
            magmoms=magmoms,
        )

    def _solved(self) -> KSSolution:
        if self.solution is None:
            raise InvalidInputError("calculator: no calculation has been done yet")
        return self.solution

    def get_charges(self, atoms: Atoms | None = None) -> NDArray:
        """Atomic charges, [n_atoms] in e (meta-Loewdin populations)."""
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
            **{
                key: results.get(key)
                for key in ("energy", "free_energy", "forces", "dipole", "charges", "magmoms")
            },
        )

    def __getstate__(self) -> dict[str, Any]:
        """Pickle everything but the host object; the density travels as the next guess."""
        state = self.__dict__.copy()
        if self.solution is not None:
            state["solution"] = replace(self.solution, host=None)
        return state

    def __repr__(self) -> str:
        own = ("charge", "multiplicity", "dispersion")
        parts = [f"xc={self.functional.name!r}"]
        parts += [f"{k}={self.parameters[k]!r}" for k in own if self.parameters[k]]
        defaults = asdict(KSSettings())
        parts += [
            f"{k}={v!r}"
            for k, v in asdict(self.settings).items()
            if k == "basis" or v != defaults[k]
        ]
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


def _functional(spec: str | Path | XCFunctional) -> Any:
    if isinstance(spec, LibxcFunctional):
        return spec
    if isinstance(spec, str) and spec.lower().startswith(PREFIX):
        return LibxcFunctional(spec[len(PREFIX) :])
    return load_functional(spec)


def _same(a: Any, b: Any) -> bool:
    try:
        return bool(np.all(a == b))
    except (TypeError, ValueError):
        return False
