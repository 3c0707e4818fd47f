"""Phonons of crystals from finite displacements, through phonopy.

phonopy (Togo, J. Phys. Soc. Jpn. 92, 012001 (2023)) finds the symmetry-reduced displacements and
the force constants; this module runs the single points, with a cache that survives a kill, and
gathers bands, density of states and thermal properties.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.utils.filecache import get_json_cache
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import BOHR_ANGSTROM, HARTREE_EV
from ase_neuralxc.workflows.cache import calculation_identity, claim_directory
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    max_force,
    require_crystal,
    require_positive,
    resolve_settings,
)
from ase_neuralxc.workflows.phonon_result import PhononsResult, gather

if TYPE_CHECKING:
    from phonopy import Phonopy

__all__ = ["BornCharges", "PhononSettings", "PhononsResult", "phonons"]


@dataclass(frozen=True)
class BornCharges:
    """What the splitting of longitudinal and transverse optical modes needs.

    Attributes:
        charges: [n_primitive, 3, 3] Born effective charges in e, in the order of phonopy's
            primitive cell.
        dielectric: [3, 3] high-frequency dielectric tensor.
    """

    charges: NDArray
    dielectric: NDArray


@dataclass(frozen=True)
class PhononSettings:
    """How to displace and what to derive.

    Attributes:
        supercell: three integers, or a [3, 3] integer matrix.
        distance: displacement in Angstrom.
        snapshots: None for symmetry-reduced displacements of single atoms; a number of supercells
            with all atoms displaced at random, whose force constants symfc fits.
        seed: of the random displacements.
        mesh: length in Angstrom that sets the q-mesh of the density of states.
        points: q-points per segment of the band path (seekpath).
        temperatures: first, last and step of the thermal properties, in K.
        born: charges for the splitting at Gamma, or None.
        symprec: tolerance of the symmetry search in Angstrom.
        directory: cache of the forces; a run that was killed continues from it. None uses a
            temporary one.
    """

    supercell: Sequence[int] | NDArray = (2, 2, 2)
    distance: float = 0.01
    snapshots: int | None = None
    seed: int = 0
    mesh: float = 60.0
    points: int = 51
    temperatures: tuple[float, float, float] = (0.0, 1000.0, 50.0)
    born: BornCharges | None = None
    symprec: float = 1e-5
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        matrix = np.asarray(self.supercell)
        if matrix.shape not in ((3,), (3, 3)) or not np.issubdtype(matrix.dtype, np.integer):
            raise InvalidInputError(
                f"supercell: expected three integers or a [3, 3] integer matrix, got "
                f"{self.supercell!r}"
            )
        for name in ("distance", "mesh", "symprec"):
            require_positive(name, getattr(self, name))
        if self.snapshots is not None and self.snapshots < 1:
            raise InvalidInputError(f"snapshots: expected at least 1, got {self.snapshots!r}")
        if self.points < 2:
            raise InvalidInputError(f"points: expected at least 2, got {self.points!r}")

    @property
    def matrix(self) -> NDArray:
        """[3, 3] supercell matrix."""
        matrix = np.asarray(self.supercell)
        return np.diag(matrix) if matrix.ndim == 1 else matrix


def phonons(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> PhononsResult:
    """Phonons of a relaxed crystal.

    Initial magnetic moments are carried to the supercells and lower the symmetry as they should.
    The same calculator serves all supercells, so that one that keeps its density starts from it.

    Args:
        atoms: unit cell with three periodic directions, relaxed beforehand; it is not changed.
        calc: an ASE calculator; None uses the one that is attached.
        progress: called after each single point with (done, total, message).
        **keywords: fields of `PhononSettings`.

    Returns:
        Bands, density of states, thermal properties and a report of imaginary modes.

    Raises:
        InvalidInputError: for a structure that is not a crystal, an unknown setting, or a
            directory that holds another calculation.
    """
    settings = resolve_settings(PhononSettings, keywords)
    calc = attach_calculator(atoms, calc)
    require_crystal(atoms)
    phonopy = _displace(atoms, settings)
    cells = phonopy.supercells_with_displacements
    identity = calculation_identity(
        atoms,
        calc,
        supercell=settings.matrix.tolist(),
        distance=settings.distance,
        snapshots=settings.snapshots,
        seed=settings.seed,
    )
    temporary = tempfile.TemporaryDirectory() if settings.directory is None else None
    with temporary or nullcontext(str(settings.directory)) as directory:
        claim_directory(Path(directory), identity)
        cache = get_json_cache(directory)
        # A single point that was interrupted leaves an empty file, which ASE would skip.
        cache.strip_empties()
        total = 1 + len(cells)
        forces = []
        for number, cell in enumerate([phonopy.supercell, *cells]):
            name = "perfect" if number == 0 else f"displaced-{number:04d}"
            forces.append(_forces(cache, name, cell, calc))
            if progress is not None:
                progress(number + 1, total, name)
    # what is left in the perfect supercell (symmetry-breaking noise, an unrelaxed start) cancels
    residual, displaced = forces[0], np.array(forces[1:])
    phonopy.forces = displaced - residual
    fit = "symfc" if settings.snapshots is not None else None
    phonopy.produce_force_constants(fc_calculator=fit)
    drift = float(np.abs(np.asarray(phonopy.force_constants).sum(axis=1)).max())
    phonopy.symmetrize_force_constants()
    if settings.born is not None:
        phonopy.nac_params = {
            "born": np.asarray(settings.born.charges, dtype=float),
            "dielectric": np.asarray(settings.born.dielectric, dtype=float),
            "factor": HARTREE_EV * BOHR_ANGSTROM,  # e^2 / (4 pi epsilon_0) in eV Angstrom
        }
    return gather(
        phonopy,
        points=settings.points,
        mesh=settings.mesh,
        temperatures=settings.temperatures,
        drift=drift,
        fmax=max_force(residual),
        forces=displaced,
    )


def _displace(atoms: Atoms, settings: PhononSettings) -> Phonopy:
    """Phonopy object with its displaced supercells."""
    from phonopy import Phonopy
    from phonopy.structure.atoms import PhonopyAtoms
    from phonopy.structure.cells import guess_primitive_matrix

    moments = atoms.get_initial_magnetic_moments()
    magnetic = bool(np.any(moments))
    unit = PhonopyAtoms(
        symbols=atoms.get_chemical_symbols(),
        cell=np.array(atoms.cell),
        scaled_positions=atoms.get_scaled_positions(),
        magnetic_moments=moments if magnetic else None,
        masses=atoms.get_masses(),
    )
    phonopy = Phonopy(
        unit,
        supercell_matrix=settings.matrix,
        # the primitive cell of the lattice would mix antiparallel moments
        primitive_matrix=np.eye(3) if magnetic else guess_primitive_matrix(unit, settings.symprec),
        symprec=settings.symprec,
    )
    phonopy.generate_displacements(
        distance=settings.distance,
        number_of_snapshots=settings.snapshots,
        random_seed=settings.seed if settings.snapshots is not None else None,
    )
    return phonopy


def _forces(cache: Any, name: str, cell: Any, calc: Any) -> NDArray:
    """Forces on a supercell, [n, 3] in eV/Angstrom, from the cache or from the calculator."""
    with cache.lock(name) as handle:
        if handle is not None:
            work = Atoms(
                cell.symbols, cell=cell.cell, scaled_positions=cell.scaled_positions, pbc=True
            )
            work.set_masses(cell.masses)
            if cell.magnetic_moments is not None:
                work.set_initial_magnetic_moments(cell.magnetic_moments)
            handle.save({"forces": calc.get_property("forces", work)})
    return np.asarray(cache[name]["forces"])
