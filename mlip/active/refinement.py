"""DFT at the points that matter: minima and saddle points that the potential found.

Each point gets a single point of DFT: by how much the energy of the potential is off, how large the
DFT forces are, and with that whether the point still stands. Where the potential itself is given,
what is left of the budget moves the points that do not stand to the stationary points of DFT.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_neuralxc.campaign import Failure
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records import LabelRecord, read_records, require_single_fidelity, write_records
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows.common import Progress, max_force, require_positive
from ase_neuralxc.workflows.saddle import Saddle
from mlip.active.energies import computed_energy, labelled_surface
from mlip.active.labeller import Source, as_source, label_all
from mlip.active.refined import RefinedRelaxation, relax_refined, saddle_refined
from mlip.active.refinement_report import FAILED, MOVE, NOT_ASKED, STANDS, Point, RefineReport

__all__ = ["Point", "RefineReport", "distinct_points", "refine"]


def refine(
    points: Sequence[Any],
    dft: Any,
    budget: int = 12,
    *,
    potential: Any | None = None,
    stands_below: float = 0.1,
    fmax: float = 0.02,
    reference: str | None = None,
    directory: str | Path | None = None,
    append_to: str | Path | None = None,
    expect: Iterable[LabelRecord] = (),
    progress: Progress | None = None,
) -> RefineReport:
    """Ask DFT about stationary points of a potential.

    Args:
        points: atoms with results of the potential, or what workflows return (with `.atoms`):
            results of `relax`, saddles of `neb`. `info["name"]` names a point in tables,
            `info["kind"]` "saddle" marks a saddle point.
        dft: a labeller, `NeuralXC(...)` or any other calculator of ASE.
        budget: DFT calculations at most. Points beyond it are not asked about, in their order.
        potential: the calculator that found the points. With it, points whose DFT forces are too
            large are moved to DFT's own stationary points, within the budget.
        stands_below: largest DFT force, in eV/Angstrom, at which a point still stands.
        fmax: largest DFT force of a point that was moved, in eV/Angstrom.
        reference: name of the point that is zero in the diagram; the lowest minimum if None.
        directory: folder of the labels; a refinement that was killed continues from it.
        append_to: file of labels to which those made here are added.
        expect: labels that these are to be used with; another level of theory is refused.
        progress: called after each point that was moved with (DFT calculations, budget, name).

    Returns:
        The report. A point whose DFT calculation failed is in it, with the reason.

    Raises:
        InvalidInputError: no points, points without results, an unknown reference, or labels of
            several levels of theory.
    """
    require_positive("budget", budget)
    require_positive("stands_below", stands_below)
    source = as_source(dft)
    named = _named(points, potential)
    if not named:
        raise InvalidInputError("points: expected at least one, got none")
    names = [point.name for point in named]
    if reference is not None and reference not in names:
        raise InvalidInputError(f"reference: expected one of {names}, got {reference!r}")
    others = [*expect, *_existing(append_to)]
    asked, waiting = named[:budget], named[budget:]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch if directory is None else directory) / "labels"
        results, n_dft, records = _single_points(asked, source, folder, stands_below)
    if others and records:
        require_single_fidelity([*records, *others])
    for index, point in enumerate(results):
        if potential is None or point.verdict != MOVE:
            continue
        if budget - n_dft < 1:
            break
        known = [r for r in records if np.array_equal(r.positions, point.atoms.positions)]
        moved, extra = _move(point, known, potential, source, (budget - n_dft, fmax))
        results[index] = moved
        records += extra
        n_dft += moved.n_dft - point.n_dft
        if progress is not None:
            progress(n_dft, budget, point.name)
    results += [replace(point, verdict=NOT_ASKED) for point in waiting]
    if append_to is not None and records:
        _append(append_to, records)
    return RefineReport(
        points=tuple(results), n_dft=n_dft, budget=budget, reference=reference,
        records=tuple(records),
    )  # fmt: skip


def distinct_points(points: Sequence[Atoms], energy: float = 0.005, distance: float = 0.05) -> list:
    """Points without those that are the same up to rotation, translation and equal atoms.

    Args:
        points: atoms with energies.
        energy: in eV, within which two points may be the same.
        distance: largest difference of sorted interatomic distances in Angstrom.

    Returns:
        The first of each kind, in their order.
    """
    kept: list[tuple[Atoms, np.ndarray]] = []
    for atoms in points:
        fingerprint = _fingerprint(atoms)
        value = atoms.get_potential_energy()
        same = any(
            sorted(other.numbers) == sorted(atoms.numbers)
            and abs(other.get_potential_energy() - value) < energy
            and np.abs(known - fingerprint).max(initial=0.0) < distance
            for other, known in kept
        )
        if not same:
            kept.append((atoms, fingerprint))
    return [atoms for atoms, _ in kept]


def _fingerprint(atoms: Atoms) -> np.ndarray:
    """Distances, sorted within each pair of elements."""
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))
    i, j = np.triu_indices(len(atoms), 1)
    low = np.minimum(atoms.numbers[i], atoms.numbers[j])
    high = np.maximum(atoms.numbers[i], atoms.numbers[j])
    return distances[i, j][np.lexsort((distances[i, j], high, low))]


def _named(points: Sequence[Any], potential: Any | None) -> list[Point]:
    """Points with distinct names and the results of the potential."""
    made: list[Point] = []
    counts: dict[str, int] = {}
    for number, point in enumerate(points):
        atoms = point if isinstance(point, Atoms) else getattr(point, "atoms", None)
        if not isinstance(atoms, Atoms):
            raise InvalidInputError(
                f"points: expected atoms or results with atoms, got {type(point).__name__} "
                f"(point {number})"
            )
        saddle = isinstance(point, Saddle)
        kind = "saddle" if saddle else str(atoms.info.get("kind", "minimum"))
        if kind not in ("minimum", "saddle"):
            raise InvalidInputError(
                f"points: expected kind 'minimum' or 'saddle', got {kind!r} (point {number})"
            )
        name = str(atoms.info.get("name", f"{kind} {number}"))
        counts[name] = counts.get(name, 0) + 1
        if counts[name] > 1:
            name = f"{name} ({counts[name]})"
        mode = None
        if saddle and point.modes is not None:
            mode = np.zeros((len(atoms), 3))
            mode[point.modes.indices] = point.modes.modes[0]
        made.append(_with_potential(atoms, potential, name, kind, mode, number))
    return made


def _with_potential(
    atoms: Atoms, potential: Any | None, name: str, kind: str, mode: Any, number: int
) -> Point:
    work = atoms.copy()
    work.calc = atoms.calc if potential is None else potential
    if work.calc is None:
        raise InvalidInputError(
            f"points: expected results of the potential with each point or `potential`, point "
            f"{number} ({name}) has none"
        )
    forces, energy = work.get_forces(), computed_energy(work)
    spread = work.calc.results.get("energy_uncertainty")
    bare = atoms.copy()
    bare.calc = SinglePointCalculator(bare, energy=energy, forces=forces)
    return Point(
        name=name,
        kind=kind,
        atoms=bare,
        mode=mode,
        potential_energy=energy,
        potential_fmax=max_force(forces),
        uncertainty=None if spread is None else float(spread),
    )


def _single_points(
    points: Sequence[Point], source: Source, folder: Path, stands_below: float
) -> tuple[list[Point], int, list[LabelRecord]]:
    """One DFT calculation for each point; failures become part of the points."""
    results: list[Point] = []
    records: dict[str, LabelRecord] = {}
    answers = label_all([point.atoms for point in points], source, folder)
    for point, answer in zip(points, answers, strict=True):
        if isinstance(answer, Failure):
            results.append(
                replace(point, verdict=FAILED, reason=answer.reasons[-1], n_dft=answer.attempts)
            )
            continue
        records[answer.content_hash] = answer
        results.append(_judged(point, answer, 1, stands_below))
    if records:
        require_single_fidelity(records.values())
    return results, sum(point.n_dft for point in results), list(records.values())


def _judged(point: Point, record: LabelRecord, n_dft: int, stands_below: float) -> Point:
    """The point with what DFT says about it."""
    free, _ = labelled_surface(record)
    atoms = record.to_atoms()
    atoms.set_constraint([constraint.copy() for constraint in point.atoms.constraints])
    largest = max_force(atoms.get_forces())
    return replace(
        point,
        dft_energy=free if record.energy is None else record.energy,
        correction=free - point.potential_energy,
        dft_fmax=largest,
        n_dft=n_dft,
        verdict=STANDS if largest < stands_below else MOVE,
    )


def _move(
    point: Point,
    known: Sequence[LabelRecord],
    potential: Any,
    source: Source,
    limits: tuple[int, float],
) -> tuple[Point, list[LabelRecord]]:
    """The DFT stationary point next to one of the potential, within a budget and to an fmax."""
    budget, fmax = limits
    if point.kind == "saddle" and point.mode is None:
        return replace(point, reason="no mode given: not moved"), []
    atoms = point.atoms.copy()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)  # the verdict says it
            found: RefinedRelaxation
            if point.kind == "saddle":
                found = saddle_refined(
                    atoms, point.mode, potential, source, known=known, fmax=fmax, budget=budget
                )
            else:
                found = relax_refined(
                    atoms, potential, source, known=known, fmax=fmax, budget=budget
                )
    except NeuralXCError as error:
        # what was known before stays true; the failed calculation counts
        reason = f"moving failed: {type(error).__name__}: {error}"
        return replace(point, reason=reason, n_dft=point.n_dft + 1), []
    records = list(found.records)
    last = _judged(point, records[-1], point.n_dft + len(records), fmax)
    return replace(last, atoms=found.atoms, moved=True, correction=point.correction), records


def _existing(path: str | Path | None) -> list[LabelRecord]:
    return read_records(path) if path is not None and Path(path).exists() else []


def _append(path: str | Path, records: Sequence[LabelRecord]) -> None:
    """Add labels to a file, each structure once, at once or not at all."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    everything = {record.content_hash: record for record in [*_existing(path), *records]}
    write_records(path, everything.values())
