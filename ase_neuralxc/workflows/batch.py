"""Many structures relaxed in step with each other, so that a potential can take them in batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ase.optimize
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows.common import Progress, max_force, snapshot
from ase_neuralxc.workflows.relax import RelaxResult, RelaxSettings

#: Energies and forces of many structures: for each a mapping with at least "energy" and "forces".
Evaluate = Callable[[Sequence[Atoms]], Sequence[Mapping[str, Any]]]
#: Relaxes many structures at once; returns them in the same order, with energies and forces.
RelaxMany = Callable[[Sequence[Atoms]], Sequence[Atoms]]
#: Optimisers that need one evaluation for a step: no line search, which would ask in between.
OPTIMIZERS = ("BFGS", "FIRE", "LBFGS", "MDMin")
_KEPT = ("energy", "free_energy", "forces", "stress")


def evaluate_onto(structures: Sequence[Atoms], evaluate: Evaluate) -> None:
    """Evaluate structures in one call and attach what comes back.

    Args:
        structures: each receives a `SinglePointCalculator`.
        evaluate: computes energies and forces.

    Raises:
        InvalidInputError: another number of results than of structures.
    """
    found = evaluate(structures)
    if len(found) != len(structures):
        raise InvalidInputError(
            f"evaluate: expected results of {len(structures)} structures, got {len(found)}"
        )
    for atoms, results in zip(structures, found, strict=True):
        kept = {name: results[name] for name in _KEPT if name in results}
        atoms.calc = SinglePointCalculator(atoms, **kept)


def relax_together(
    structures: Sequence[Atoms],
    evaluate: Evaluate,
    *,
    fmax: float = 0.02,
    steps: int = 200,
    optimizer: str = "BFGS",
    progress: Progress | None = None,
) -> list[RelaxResult]:
    """Relax the positions of many structures, each with an optimiser of its own.

    Args:
        structures: of any size and composition; their constraints are honoured; they are not
            changed.
        evaluate: computes energies and forces of many structures (`MLIP.evaluate`); structures
            that are converged are left out.
        fmax: largest force on an atom at convergence in eV/Angstrom.
        steps: largest number of steps.
        optimizer: name in `ase.optimize` of one without line search.
        progress: called after each step with (converged, total, message).

    Returns:
        The results in the same order.

    Raises:
        InvalidInputError: an unknown optimiser, a setting out of range, or another number of
            results than of structures.
    """
    settings = RelaxSettings(optimizer=optimizer, fmax=fmax, steps=steps)
    if optimizer not in OPTIMIZERS:
        raise unknown_name("optimizer", optimizer, OPTIMIZERS)
    images = [atoms.copy() for atoms in structures]
    optimizers = [getattr(ase.optimize, optimizer)(image, logfile=None) for image in images]
    paths: list[list[tuple[float, float]]] = [[] for _ in images]
    active = list(range(len(images)))
    for step in range(steps + 1):
        if not active:
            break
        evaluate_onto([images[k] for k in active], evaluate)
        for k in active:
            energy, forces = images[k].get_potential_energy(), images[k].get_forces()
            paths[k].append((float(energy), max_force(forces)))
        active = [k for k in active if paths[k][-1][1] >= fmax]
        if progress is not None:
            progress(len(images) - len(active), len(images), f"step {step}")
        for k in active if step < steps else ():
            optimizers[k].step()
    return [
        RelaxResult(
            snapshot(image),
            path[-1][1] < fmax,
            len(path) - 1,
            tuple(energy for energy, _ in path),
            tuple(force for _, force in path),
            settings,
        )
        for image, path in zip(images, paths, strict=True)
    ]


def batch_relaxer(evaluate: Evaluate, **options: Any) -> RelaxMany:
    """What `adsorption` takes as `relax_many`.

    Args:
        evaluate: computes energies and forces of many structures.
        **options: of `relax_together`.

    Returns:
        A function that relaxes many structures.
    """

    def relax_many(structures: Sequence[Atoms]) -> list[Atoms]:
        return [result.atoms for result in relax_together(structures, evaluate, **options)]

    return relax_many
