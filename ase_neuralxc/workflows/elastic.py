"""Elastic constants of crystals from the stress of strained cells.

The stress is differentiated by central differences, with the atoms relaxed in each strained cell
("relaxed-ion" constants), and the point group of the crystal does the rest: a strain is computed
only if no rotation of the ones before gives it, so that cubic crystals need two strains and
triclinic ones six. Moduli of polycrystals are averages of Voigt, Reuss and Hill (Hill, Proc. Phys.
Soc. A 65, 349 (1952)); stability is Born's (Mouhat and Coudert, PRB 90, 224104 (2014)).
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import spglib
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress, voigt_6_to_full_3x3_stress
from ase.utils import spglib_new_errorhandling
from ase.utils.filecache import get_json_cache
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.units import EV_ANGSTROM3_GPA
from ase_neuralxc.workflows.cache import calculation_identity, claim_directory
from ase_neuralxc.workflows.common import (
    Progress,
    attach_calculator,
    new_figure,
    require_crystal,
    require_positive,
    resolve_settings,
    save_figure,
)
from ase_neuralxc.workflows.relax import relax

#: Names of the six strains and stresses, in Voigt's order.
COMPONENTS = ("xx", "yy", "zz", "yz", "xz", "xy")
#: Largest strain: beyond it the stress is no longer linear.
_LARGEST = 0.05


@dataclass(frozen=True)
class ElasticSettings:
    """How to strain.

    Attributes:
        strain: size of each strain, a component of the symmetric strain tensor.
        relax_ions: whether the atoms relax in the strained cells.
        fmax: largest force on an atom after that, in eV/Angstrom.
        steps: largest number of steps of each relaxation.
        symprec: tolerance of the symmetry search in Angstrom.
        directory: cache of the stresses; a run that was killed continues from it. None uses a
            temporary one.
    """

    strain: float = 0.005
    relax_ions: bool = True
    fmax: float = 0.005
    steps: int = 100
    symprec: float = 1e-5
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        for name in ("strain", "fmax", "symprec"):
            require_positive(name, getattr(self, name))
        if self.strain > _LARGEST:
            raise InvalidInputError(f"strain: expected at most {_LARGEST:g}, got {self.strain!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {self.steps!r}")


@dataclass(frozen=True)
class ElasticResult:
    """Elastic constants and what follows from them, in GPa.

    Attributes:
        stiffness: [6, 6] symmetric, Voigt order xx yy zz yz xz xy, engineering shear strains.
        residual: largest stress that the linear law leaves over, in GPa.
        pressure: of the unstrained cell, in GPa; at pressure the constants are those of the
            stress-strain law there.
        strains: [n, 3, 3] strains that were computed, in both signs.
        settings: what was asked for.
    """

    stiffness: NDArray
    residual: float
    pressure: float
    strains: NDArray
    settings: ElasticSettings

    @property
    def bulk_moduli(self) -> tuple[float, float]:
        """Bulk moduli of Voigt (upper bound) and Reuss (lower bound)."""
        stiff, soft = self.stiffness, np.linalg.inv(self.stiffness)
        return float(stiff[:3, :3].sum() / 9), float(1 / soft[:3, :3].sum())

    @property
    def shear_moduli(self) -> tuple[float, float]:
        """Shear moduli of Voigt (upper bound) and Reuss (lower bound)."""
        stiff, soft = self.stiffness, np.linalg.inv(self.stiffness)
        upper = (1.5 * np.trace(stiff[:3, :3]) - 0.5 * stiff[:3, :3].sum()) / 15
        upper += np.trace(stiff[3:, 3:]) / 5
        lower = 6 * np.trace(soft[:3, :3]) - 2 * soft[:3, :3].sum() + 3 * np.trace(soft[3:, 3:])
        return float(upper), float(15 / lower)

    @property
    def stable(self) -> bool:
        """Whether every strain costs energy (Born)."""
        return bool(np.linalg.eigvalsh(self.stiffness)[0] > 0)

    def table(self) -> str:
        """Text: the constants, the moduli of a polycrystal, stability."""
        lines = ["elastic constants / GPa", "      " + "".join(f"{c:>9}" for c in COMPONENTS)]
        for name, row in zip(COMPONENTS, self.stiffness, strict=True):
            lines.append(f"{name:>6}" + "".join(f"{value:9.2f}" for value in row))
        for name, (voigt, reuss) in (("bulk", self.bulk_moduli), ("shear", self.shear_moduli)):
            lines.append(
                f"{name + ' modulus':>13}: Voigt {voigt:.2f}, Reuss {reuss:.2f}, "
                f"Hill {(voigt + reuss) / 2:.2f}"
            )
        lines.append(
            f"pressure of the unstrained cell {self.pressure:.2f} GPa, largest residual "
            f"{self.residual:.3f} GPa, "
            + ("stable" if self.stable else "UNSTABLE: a strain lowers the energy")
        )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture of Young's modulus by direction, in the three planes of the axes.

        Args:
            path: target; the ending chooses the format.

        Returns:
            The path.
        """
        soft = np.linalg.inv(self.stiffness)
        angles = np.linspace(0, 2 * np.pi, 361)
        figure, (axes,) = new_figure()
        for first, second in ((0, 1), (1, 2), (0, 2)):
            ways = np.zeros((len(angles), 3))
            ways[:, first], ways[:, second] = np.cos(angles), np.sin(angles)
            x, y, z = ways.T
            pull = np.stack([x * x, y * y, z * z, y * z, x * z, x * y], axis=1)
            young = 1 / np.einsum("ni,ij,nj->n", pull, soft, pull)
            axes.plot(np.degrees(angles), young, label="xyz"[first] + "xyz"[second])
        axes.set(xlabel="angle from the first axis / degrees", ylabel="Young's modulus / GPa")
        axes.legend(title="plane")
        return save_figure(figure, path)


def elastic(
    atoms: Atoms, calc: Any | None = None, progress: Progress | None = None, **keywords: Any
) -> ElasticResult:
    """Elastic constants of a relaxed crystal.

    Args:
        atoms: a crystal with three periodic directions, relaxed beforehand; it is not changed.
        calc: an ASE calculator with stress; None uses the one that is attached.
        progress: called after each strained cell with (done, total, message).
        **keywords: fields of `ElasticSettings`.

    Returns:
        Stiffness, moduli and stability.

    Raises:
        InvalidInputError: for a structure that is not a crystal, an unknown setting, a directory
            that holds another calculation, or atoms that do not relax in a strained cell.
    """
    settings = resolve_settings(ElasticSettings, keywords)
    calc = attach_calculator(atoms, calc)
    require_crystal(atoms)
    rotations = _point_group(atoms, settings.symprec)
    patterns = _needed_patterns(rotations)
    identity = calculation_identity(
        atoms, calc, strain=settings.strain, relax_ions=settings.relax_ions, fmax=settings.fmax
    )
    temporary = tempfile.TemporaryDirectory() if settings.directory is None else None
    with temporary or nullcontext(str(settings.directory)) as directory:
        claim_directory(Path(directory), identity)
        cache = get_json_cache(directory)
        # A single point that was interrupted leaves an empty file, which ASE would skip.
        cache.strip_empties()
        total = 1 + 2 * len(patterns)
        at_rest = _stress(cache, "perfect", np.zeros((3, 3)), atoms, calc, settings)
        if progress is not None:
            progress(1, total, "perfect")
        changes = []
        for number, pattern in enumerate(patterns):
            both = []
            for sign, way in ((1, "plus"), (-1, "minus")):
                name = f"strain-{number}-{way}"
                tensor = sign * settings.strain * pattern
                both.append(_stress(cache, name, tensor, atoms, calc, settings))
                if progress is not None:
                    progress(1 + 2 * number + len(both), total, name)
            changes.append(0.5 * (both[0] - both[1]))
    strains = settings.strain * np.array(patterns)
    stiffness, residual = _fit(strains, np.array(changes), rotations)
    return ElasticResult(
        stiffness=stiffness * EV_ANGSTROM3_GPA,
        residual=residual * EV_ANGSTROM3_GPA,
        pressure=float(-np.trace(at_rest) / 3 * EV_ANGSTROM3_GPA),
        strains=strains,
        settings=settings,
    )


def _point_group(atoms: Atoms, symprec: float) -> NDArray:
    """Rotations of the crystal, [n, 3, 3] Cartesian; atoms with other moments are other atoms."""
    kinds = list(zip(atoms.numbers, atoms.get_initial_magnetic_moments().round(3), strict=True))
    types = [sorted(set(kinds)).index(kind) for kind in kinds]
    cell = np.array(atoms.cell)
    search = spglib_new_errorhandling(spglib.get_symmetry)
    try:
        found = search((cell, atoms.get_scaled_positions(), types), symprec=symprec)
    except spglib.SpglibError as error:
        raise InvalidInputError(
            f"atoms: expected a structure that spglib can find the symmetry of, got: {error}"
        ) from error
    unique = np.unique(found["rotations"], axis=0)
    return np.array([cell.T @ rotation @ np.linalg.inv(cell.T) for rotation in unique])


def _needed_patterns(rotations: NDArray) -> list[NDArray]:
    """Strain tensors whose rotations span all strains, in Voigt's order."""
    patterns: list[NDArray] = []
    known = np.zeros((0, 6))
    for component in range(6):
        # a component of a stress vector has no factor 2, so it makes a plain symmetric tensor
        tensor = np.array(voigt_6_to_full_3x3_stress(np.eye(6)[component]))
        orbit = [full_3x3_to_voigt_6_stress(r @ tensor @ r.T) for r in rotations]
        grown = np.vstack([known, orbit])
        if np.linalg.matrix_rank(grown, tol=1e-8) > np.linalg.matrix_rank(known, tol=1e-8):
            patterns.append(tensor)
            known = grown
    return patterns


def _stress(
    cache: Any, name: str, strain: NDArray, atoms: Atoms, calc: Any, settings: ElasticSettings
) -> NDArray:
    """Stress [3, 3] in eV/Angstrom^3 of a strained cell, from the cache or the calculator."""
    with cache.lock(name) as handle:
        if handle is not None:
            work = atoms.copy()
            work.calc = calc
            work.set_cell(atoms.cell @ (np.eye(3) + strain), scale_atoms=True)
            if settings.relax_ions and len(work) > 1:
                result = relax(work, fmax=settings.fmax, steps=settings.steps)
                if not result.converged:
                    raise InvalidInputError(
                        f"steps: expected enough to relax the atoms of {name!r}, got "
                        f"{settings.steps} and a force of {result.fmax:.4f} eV/Angstrom"
                    )
            handle.save({"stress": work.get_stress(voigt=False)})
    return np.asarray(cache[name]["stress"])


def _fit(strains: NDArray, stresses: NDArray, rotations: NDArray) -> tuple[NDArray, float]:
    """Symmetric stiffness [6, 6] by least squares over all rotated pairs, and what it leaves."""
    pulls, answers = [], []
    doubled = np.array([1, 1, 1, 2, 2, 2])
    for strain, stress in zip(strains, stresses, strict=True):
        for r in rotations:
            pulls.append(doubled * full_3x3_to_voigt_6_stress(r @ strain @ r.T))
            answers.append(full_3x3_to_voigt_6_stress(r @ stress @ r.T))
    rows, columns = np.triu_indices(6)
    # sigma_i = sum_j C_ij e_j as a linear map of the 21 independent C_ij
    design = np.zeros((len(pulls), 6, len(rows)))
    for unknown, (i, j) in enumerate(zip(rows, columns, strict=True)):
        design[:, i, unknown] += np.array(pulls)[:, j]
        if i != j:
            design[:, j, unknown] += np.array(pulls)[:, i]
    flat, wanted = design.reshape(-1, len(rows)), np.ravel(answers)
    values = np.linalg.lstsq(flat, wanted, rcond=None)[0]
    stiffness = np.zeros((6, 6))
    stiffness[rows, columns] = stiffness[columns, rows] = values
    return stiffness, float(np.abs(flat @ values - wanted).max())
