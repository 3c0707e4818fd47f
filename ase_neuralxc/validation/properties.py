"""Bond lengths and static polarisabilities of a functional: tasks and their reference values."""

from __future__ import annotations

import csv
import json
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.optimize import BFGS

from ase_neuralxc.backend.libxc import find_functional
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.calculator import NeuralXC
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.records import units
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.response.polarizability import polarizability
from ase_neuralxc.training.reactions import ReactionSet, Species
from ase_neuralxc.training.solve import solve_species

_AXES = "xyz"
#: Largest force at which a geometry is relaxed (eV/Angstrom), and steps after which it is not.
_FMAX, _STEPS = 0.005, 100


@dataclass(frozen=True)
class PropertySettings:
    """How properties are computed.

    Attributes:
        basis: basis set; polarisabilities need diffuse functions.
        density_fit: expand the density in an auxiliary basis.
        grid_level: PySCF's grid level.
    """

    basis: str = "def2-svpd"
    density_fit: bool = True
    grid_level: int = 3

    def identity(self, kind: str, functional: Any) -> str:
        """What a folder of results depends on.

        Args:
            kind: of property.
            functional: of torch or libxc.

        Returns:
            A line of text.
        """
        weights = functional_hash(functional) if hasattr(functional, "state_dict") else ""
        content = {**asdict(self), "xc": functional.name, "weights": weights}
        return f"{kind} 1 {functional.name}/{self.basis} {digest(content)}"


class PolarizabilityTask:
    """The task function of polarisabilities. Travels as its settings.

    Args:
        xc: functional as `find_functional` takes it.
        settings: of the calculations.
    """

    kind = "polarizabilities"

    def __init__(self, xc: str, settings: PropertySettings) -> None:
        self.xc, self.settings = xc, settings

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.xc, self.settings)

    def __call__(self, species: Species, attempt: int = 0) -> dict[str, Any]:
        """Compute one species.

        Args:
            species: what to compute.
            attempt: number of failed attempts before; later ones get three times the cycles.

        Returns:
            "polarizability" [3, 3] in Angstrom^3, and "seconds".

        Raises:
            NeuralXCError: the SCF or the response did not converge.
        """
        start = time.perf_counter()
        settings = self.settings
        solution = solve_species(
            species,
            find_functional(self.xc),
            KSSettings(
                basis=settings.basis,
                density_fit=settings.density_fit,
                grid_level=settings.grid_level,
                conv_tol_grad=1e-6,
                max_cycle=150 if attempt else 50,
            ),
        )
        found = polarizability(solution, tolerance=1e-5) * units.BOHR3_ANGSTROM3
        return {"polarizability": found.tolist(), "seconds": time.perf_counter() - start}


class GeometryTask(PolarizabilityTask):
    """The task function of equilibrium geometries, relaxed from those of the species."""

    kind = "geometries"

    def __call__(self, species: Species, attempt: int = 0) -> dict[str, Any]:
        """Relax one species.

        Args:
            species: what to relax.
            attempt: number of failed attempts before; later ones get three times the cycles.

        Returns:
            "positions" [n, 3] in Angstrom, "steps" and "seconds".

        Raises:
            NeuralXCError: the SCF or the relaxation did not converge.
        """
        start = time.perf_counter()
        settings = self.settings
        atoms = Atoms(species.symbols, species.positions)
        atoms.calc = NeuralXC(
            xc=self.xc,
            charge=species.charge,
            multiplicity=species.multiplicity,
            basis=settings.basis,
            density_fit=settings.density_fit,
            grid_level=settings.grid_level,
            max_cycle=150 if attempt else 50,
        )
        relaxation = BFGS(atoms, logfile=None)
        if not relaxation.run(fmax=_FMAX, steps=_STEPS):
            raise NeuralXCError(
                f"geometry: expected forces below {_FMAX} eV/A within {_STEPS} steps for "
                f"{species.name!r}, got {np.linalg.norm(atoms.get_forces(), axis=1).max():.4f}"
            )
        return {
            "positions": atoms.positions.tolist(),
            "steps": relaxation.nsteps,
            "seconds": time.perf_counter() - start,
        }


@dataclass(frozen=True)
class PolarizabilityReference:
    """Reference components of one species in Angstrom^3, by axis; equivalent axes given once."""

    species: Species
    components: Mapping[str, float]


@dataclass(frozen=True)
class BondReference:
    """Reference length of one bond in Angstrom; indices count from zero."""

    species: Species
    first: int
    second: int
    length: float


def read_polarizabilities(path: str | Path) -> list[PolarizabilityReference]:
    """Read a JSON-lines file of species with `polarizability_diag_A3`.

    Args:
        path: the file.

    Returns:
        The references.

    Raises:
        InvalidInputError: a file that cannot be read, or an entry that is malformed.
    """
    out = []
    try:
        lines = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        for line in lines:
            if line["type"] == "species":
                components = line["polarizability_diag_A3"]
                if not components or any(axis not in _AXES for axis in components):
                    raise InvalidInputError(
                        f"polarizability_diag_A3: expected axes among x, y, z, got {components}"
                    )
                out.append(PolarizabilityReference(_species(line), components))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise InvalidInputError(f"path: cannot read {str(path)!r}: {error}") from error
    return out


def read_bonds(path: str | Path, geometries: ReactionSet) -> list[BondReference]:
    """Read a CSV file of bond lengths: molecule, charge, multiplicity, atom_i, atom_j, pair, r_A.

    Args:
        path: the file; lines that begin with # are comments.
        geometries: species by the names of the molecules, from which relaxations start.

    Returns:
        The references; molecules without a geometry are left out.

    Raises:
        InvalidInputError: a file that cannot be read, or an entry that is malformed.
    """
    out = []
    try:
        text = Path(path).read_text("utf-8").splitlines()
        for row in csv.DictReader(line for line in text if not line.startswith("#")):
            species = geometries.species.get(row["molecule"])
            if species is not None:
                pair = int(row["atom_i"]), int(row["atom_j"])
                out.append(BondReference(species, *pair, float(row["r_A"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"path: cannot read {str(path)!r}: {error}") from error
    return out


def polarizability_errors(
    references: Iterable[PolarizabilityReference], results: Mapping[str, Mapping[str, Any]]
) -> list[float]:
    """Relative errors of components in per cent.

    Args:
        references: reference values.
        results: of `PolarizabilityTask`, by content hash of the species.

    Returns:
        One per component of the species that have a result.
    """
    out = []
    for reference in references:
        found = results.get(reference.species.content_hash)
        if found is not None:
            for axis, value in reference.components.items():
                index = _AXES.index(axis)
                out.append(100.0 * (found["polarizability"][index][index] / value - 1.0))
    return out


def bond_errors(
    references: Iterable[BondReference], results: Mapping[str, Mapping[str, Any]]
) -> list[float]:
    """Errors of bond lengths in Angstrom.

    Args:
        references: reference values.
        results: of `GeometryTask`, by content hash of the species.

    Returns:
        One per bond of the species that have a result.
    """
    out = []
    for reference in references:
        found = results.get(reference.species.content_hash)
        if found is not None:
            a, b = (found["positions"][i] for i in (reference.first, reference.second))
            out.append(math.dist(a, b) - reference.length)
    return out


def _species(line: Mapping[str, Any]) -> Species:
    return Species(
        name=str(line["name"]),
        symbols=tuple(line["symbols"]),
        positions=tuple((float(x), float(y), float(z)) for x, y, z in line["positions"]),
        charge=int(line["charge"]),
        multiplicity=int(line["multiplicity"]),
    )
