"""Which structures are worth a DFT calculation: uncertain ones that differ from each other.

Candidates below a threshold of uncertainty are passed over, the most uncertain of the rest make a
short list, and of these the farthest from everything known and chosen before are taken one by one
(farthest-point sampling in the model's features).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import require_positive
from mlip.calculator import MLIP, CloseContactWarning

#: Points closer than this are one structure: single precision does not tell them apart.
SAME = 1e-3


@dataclass(frozen=True)
class SelectionSettings:
    """How to choose.

    Attributes:
        budget: structures to choose at most: DFT calculations per round.
        uncertain_above: candidates whose largest expected force error is below this, in
            eV/Angstrom, are not asked about.
        broken_above: candidates above this are taken for broken, not for informative; None keeps
            them all.
        short_list: length of the list of the most uncertain, by the budget; 1 chooses by
            uncertainty alone, a large number by diversity alone.
    """

    budget: int = 10
    uncertain_above: float = 0.05
    broken_above: float | None = None
    short_list: float = 4.0

    def __post_init__(self) -> None:
        require_positive("selection.budget", self.budget)
        if self.uncertain_above < 0:
            raise InvalidInputError(
                f"selection.uncertain_above: expected at least 0, got {self.uncertain_above!r}"
            )
        if self.broken_above is not None and self.broken_above <= self.uncertain_above:
            raise InvalidInputError(
                f"selection.broken_above: expected above uncertain_above = {self.uncertain_above},"
                f" got {self.broken_above!r}"
            )
        if not self.short_list >= 1:
            raise InvalidInputError(
                f"selection.short_list: expected at least 1, got {self.short_list!r}"
            )


@dataclass(frozen=True, eq=False)
class Selection:
    """What was chosen, and what of.

    Attributes:
        indices: of the chosen candidates, in the order of choice.
        uncertainties: [candidates] largest expected force error of each in eV/Angstrom.
        n_uncertain: candidates within the thresholds.
    """

    indices: tuple[int, ...]
    uncertainties: NDArray
    n_uncertain: int


def require_uncertainty(calc: MLIP) -> None:
    """Refuse a model that does not know what it does not know.

    Args:
        calc: the potential.

    Raises:
        InvalidInputError: a single model with a single readout.
    """
    if not calc.has_uncertainty:
        raise InvalidInputError(
            "model: expected one with uncertainties for active learning (model.ensemble > 1, or "
            f"several models), got {calc!r}"
        )


def select(
    candidates: Sequence[Atoms],
    calc: MLIP,
    known: Sequence[Atoms] = (),
    settings: SelectionSettings | None = None,
) -> Selection:
    """Choose structures to label. Nothing in it is random; ties go to the earlier candidate.

    Args:
        candidates: structures.
        calc: the potential, with uncertainties.
        known: structures that are labelled already, from which the choice keeps its distance.
        settings: thresholds and budget.

    Returns:
        The choice.

    Raises:
        InvalidInputError: a potential without uncertainties.
    """
    settings = settings or SelectionSettings()
    require_uncertainty(calc)
    if not candidates:
        return Selection((), np.empty(0), 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloseContactWarning)  # the uncertainty says it better
        results = calc.evaluate(candidates, uncertainty=True)
    uncertainties = np.array([np.max(values["forces_uncertainty"]) for values in results])
    within = uncertainties >= settings.uncertain_above
    if settings.broken_above is not None:
        within &= uncertainties <= settings.broken_above
    length = int(np.ceil(settings.short_list * settings.budget))
    ranked = np.argsort(-uncertainties, kind="stable")
    short = ranked[within[ranked]][:length]
    if len(short):
        features = structure_features(calc, [*(candidates[i] for i in short), *known])
        chosen = farthest_points(features[: len(short)], features[len(short) :], settings.budget)
        short = short[list(chosen)]
    return Selection(tuple(int(i) for i in short), uncertainties, int(within.sum()))


def structure_features(calc: MLIP, images: Sequence[Atoms]) -> NDArray:
    """Structures as points: mean and scatter of the features of the atoms of each element.

    Args:
        calc: the potential.
        images: structures, at least one.

    Returns:
        [m, f], each column divided by its standard deviation over the atoms of all structures.
    """
    features = calc.features(images)
    scale = np.concatenate(features).std(axis=0)
    scale[scale == 0.0] = 1.0
    elements = np.unique(np.concatenate([atoms.numbers for atoms in images]))
    rows = []
    for atoms, values in zip(images, features, strict=True):
        scaled = values / scale
        row = []
        for z in elements:
            mine = scaled[atoms.numbers == z]
            share = np.sqrt(len(mine) / len(atoms))
            # an absent element counts nothing, not as an atom of features zero
            mean = mine.mean(axis=0) if len(mine) else np.zeros(scaled.shape[1])
            spread = mine.std(axis=0) if len(mine) else np.zeros(scaled.shape[1])
            row += [share * mean, share * spread]
        rows.append(np.concatenate(row))
    return np.array(rows)


def farthest_points(points: NDArray, known: NDArray, count: int) -> list[int]:
    """Farthest-point sampling.

    Args:
        points: [m, f] to choose from.
        known: [k, f] points that count as chosen; with none the first point opens.
        count: how many to choose at most.

    Returns:
        Indices of distinct points in the order of choice; points within `SAME` of a chosen
        one are duplicates and never chosen.
    """
    distance = np.full(len(points), np.inf)
    for point in known:
        distance = np.minimum(distance, np.linalg.norm(points - point, axis=1))
    chosen: list[int] = []
    while len(chosen) < min(count, len(points)):
        best = int(np.argmax(distance))
        if distance[best] <= SAME:
            break
        chosen.append(best)
        distance = np.minimum(distance, np.linalg.norm(points - points[best], axis=1))
    return chosen
