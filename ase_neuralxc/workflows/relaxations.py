"""Many relaxations of one kind: kept one by one, failures recorded, levels of theory compared."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import CalculationFailed

from ase_neuralxc.errors import InvalidInputError, NeuralXCError, SCFNotConverged
from ase_neuralxc.records import FidelityTag
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.workflows.band import read_band, write_band
from ase_neuralxc.workflows.batch import RelaxMany
from ase_neuralxc.workflows.common import Progress, max_force, snapshot
from ase_neuralxc.workflows.relax import UnconvergedWarning, relax

#: What is recorded, and not raised, where one of many calculations fails.
FAILURES = (SCFNotConverged, CalculationFailed)
#: Key of `atoms.info` for the level of theory of an energy.
_LEVEL = "neuralxc_level"


@dataclass(frozen=True)
class Relaxer:
    """Relaxes structures and keeps them.

    Attributes:
        make: gives a calculator for a structure.
        fmax: largest force at convergence in eV/Angstrom.
        steps: largest number of steps.
        optimizer: name in `ase.optimize`.
        directory: where relaxed structures are kept, by the content of their start, or None.
        relax_many: takes all structures of `all` in one call, or None.
    """

    make: Callable[[], Any]
    fmax: float
    steps: int
    optimizer: str = "BFGS"
    directory: Path | None = None
    relax_many: RelaxMany | None = None

    def converged(self, atoms: Atoms) -> bool:
        """Whether the forces of a structure are small enough."""
        return max_force(atoms.get_forces()) < self.fmax

    def one(self, atoms: Atoms, name: str, steps: int | None = None) -> Atoms:
        """A structure relaxed, or what an earlier run made of it.

        Args:
            atoms: the start; it is not changed.
            name: of the file it is kept in.
            steps: instead of the own number; 0 computes the structure as it is.

        Returns:
            A copy with energy and forces. One that is not converged is not kept, but its path is:
            the next run continues it.
        """
        path = self._file(atoms, name)
        if path is not None and (kept := read_band(path, atoms, 1)):
            return kept[0]
        calc = self.make()
        with warnings.catch_warnings():
            # Whoever relaxes many tells once.
            warnings.simplefilter("ignore", UnconvergedWarning)
            result = relax(
                atoms.copy(),
                calc,
                fmax=self.fmax,
                steps=self.steps if steps is None else steps,
                optimizer=self.optimizer,
                trajectory=None if path is None else path.with_suffix(".path"),
                restart=path is not None,
            )
        done = with_level(result.atoms, calc)
        self._keep(done, path, result.converged or steps == 0)
        return done

    def reference(self, atoms: Atoms, name: str) -> Atoms:
        """A structure whose energy is subtracted from all others, hence must be converged.

        Args:
            atoms: the start.
            name: of the file it is kept in.

        Returns:
            A copy with energy and forces.

        Raises:
            NeuralXCError: it is not converged.
        """
        done = self.one(atoms, name)
        if not self.converged(done):
            raise NeuralXCError(
                f"steps: expected {name} to relax below {self.fmax:g} eV/A in {self.steps} steps, "
                f"got {max_force(done.get_forces()):.4f} eV/A"
            )
        return done

    def all(
        self, structures: Sequence[Atoms], names: Sequence[str], progress: Progress | None = None
    ) -> list[Atoms | str]:
        """Many structures relaxed.

        Args:
            structures: the starts.
            names: for the progress.
            progress: called after each with (done, total, name).

        Returns:
            For each its relaxed copy, or why there is none.

        Raises:
            InvalidInputError: `relax_many` returns another number of structures.
        """
        if self.relax_many is not None:
            return list(self._batch(structures, self.relax_many))
        finished: list[Atoms | str] = []
        for atoms, name in zip(structures, names, strict=True):
            try:
                finished.append(self.one(atoms, "relaxed"))
            except FAILURES as error:
                finished.append(f"{type(error).__name__}: {error}")
            if progress is not None:
                progress(len(finished), len(structures), name)
        return finished

    def _batch(self, structures: Sequence[Atoms], relax_many: RelaxMany) -> list[Atoms]:
        """Structures relaxed in one call, those that are kept left out."""
        finished: dict[int, Atoms] = {}
        paths = [self._file(atoms, "relaxed") for atoms in structures]
        for k, (atoms, path) in enumerate(zip(structures, paths, strict=True)):
            if path is not None and (kept := read_band(path, atoms, 1)):
                finished[k] = kept[0]
        missing = [k for k in range(len(structures)) if k not in finished]
        done = relax_many([structures[k].copy() for k in missing]) if missing else []
        if len(done) != len(missing):
            raise InvalidInputError(
                f"relax_many: expected {len(missing)} structures, got {len(done)}"
            )
        for k, atoms in zip(missing, done, strict=True):
            finished[k] = snapshot(atoms)
            self._keep(finished[k], paths[k], self.converged(finished[k]))
        return [finished[k] for k in range(len(structures))]

    def _file(self, atoms: Atoms, name: str) -> Path | None:
        if self.directory is None:
            return None
        key = digest([atoms.numbers.tolist(), atoms.positions.tolist(), atoms.cell.tolist()])
        return self.directory / f"{name}-{key}.traj"

    def _keep(self, atoms: Atoms, path: Path | None, complete: bool) -> None:
        if path is None or not complete:
            return
        write_band(path, [atoms])
        walked = path.with_suffix(".path")
        for leftover in (walked, walked.with_name(walked.name + ".optimizer")):
            leftover.unlink(missing_ok=True)


def computed(atoms: Atoms, calc: Any) -> Atoms:
    """Single point.

    Args:
        atoms: the structure; it is not changed.
        calc: an ASE calculator.

    Returns:
        A copy with its energy and, where the calculator tells, its level of theory.
    """
    work = atoms.copy()
    work.info.pop(_LEVEL, None)
    work.calc = calc
    work.get_potential_energy()
    return with_level(snapshot(work), calc)


def with_level(atoms: Atoms, calc: Any) -> Atoms:
    """Note the level of theory of a calculator's last energy, where it can tell it.

    Args:
        atoms: the structure with that energy.
        calc: the calculator.

    Returns:
        The structure.
    """
    export = getattr(calc, "export_label", None)
    if export is not None:
        atoms.info[_LEVEL] = json.dumps(export().fidelity.to_dict())
    return atoms


def require_same_level(first: Atoms, second: Atoms) -> None:
    """Refuse to subtract energies of two levels of theory.

    Args:
        first: a structure with its energy.
        second: another one.

    Raises:
        InvalidInputError: both levels are known and differ; the differences are named.
    """
    texts = [atoms.info.get(_LEVEL) for atoms in (first, second)]
    if None in texts:
        return
    # A closed shell is the same in both spin treatments; everything else must agree.
    one, other = (
        replace(FidelityTag.from_dict(json.loads(text)), spin_treatment="") for text in texts
    )
    if one.digest != other.digest:
        raise InvalidInputError(
            f"calc: expected one level of theory for {first.get_chemical_formula()} and "
            f"{second.get_chemical_formula()}, got differences in {one.differences(other)}"
        )
