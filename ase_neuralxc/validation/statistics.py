"""Errors of reaction energies by subset, and the weighted mean of GMTKN55.

WTMAD-2 (Goerigk et al., PCCP 19, 32184 (2017), equation 4) is the mean over all reactions of the
absolute error times 56.84 kcal/mol over the mean size of the reference energies of the subset:
sum_i N_i (56.84 / |dE|_i) MAD_i / sum_i N_i. Two things differ where subsets are not complete,
because only some are given or large species are left out: the sums run over the reactions that were
computed, while the mean size |dE|_i is always that of all reactions of the subset, so that the
weight of a reaction does not depend on which others were computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.training.reactions import ReactionSet

#: kcal/mol, as published. The mean over the 55 subsets of their mean reference energies, which it
#: is named after, is 57.82 for today's reference values; published WTMAD-2 keep the constant.
WTMAD2_CONSTANT = 56.84

#: Set and name of a reaction.
ReactionKey = tuple[str, str]


@dataclass(frozen=True)
class SubsetErrors:
    """Errors of one set; all in kcal/mol.

    Attributes:
        name: of the set.
        n: reactions that were computed.
        n_all: reactions of the set.
        mean_reference: mean absolute reference energy over all reactions of the set.
        mae: mean absolute error.
        mse: mean signed error, positive where reaction energies are too high.
        largest: error of largest size, with its sign.
        worst: the reaction that has it.
    """

    name: str
    n: int
    n_all: int
    mean_reference: float
    mae: float
    mse: float
    largest: float
    worst: str

    @property
    def weight(self) -> float:
        """Factor of absolute errors in WTMAD-2."""
        return WTMAD2_CONSTANT / self.mean_reference


def subset_errors(
    sets: Sequence[ReactionSet], energies: Mapping[ReactionKey, float]
) -> list[SubsetErrors]:
    """Errors set by set.

    Args:
        sets: complete sets, as read.
        energies: computed reaction energies in kcal/mol; reactions that are not there are counted
            as left out.

    Returns:
        Statistics of the sets that have computed reactions, in the order of the sets.
    """
    out = []
    for one in sets:
        done = [r for r in one.reactions if (one.name, r.name) in energies]
        if not done:
            continue
        errors = np.array([energies[one.name, r.name] - r.reference for r in done])
        worst = int(np.abs(errors).argmax())
        out.append(
            SubsetErrors(
                name=one.name,
                n=len(done),
                n_all=len(one.reactions),
                mean_reference=float(np.mean([abs(r.reference) for r in one.reactions])),
                mae=float(np.abs(errors).mean()),
                mse=float(errors.mean()),
                largest=float(errors[worst]),
                worst=done[worst].name,
            )
        )
    return out


def wtmad2(subsets: Iterable[SubsetErrors]) -> float:
    """Weighted mean absolute deviation over subsets (see the module).

    Args:
        subsets: their errors.

    Returns:
        WTMAD-2 in kcal/mol.

    Raises:
        InvalidInputError: there is no subset.
    """
    given = list(subsets)
    if not given:
        raise InvalidInputError("subsets: expected at least one, got none")
    return sum(s.n * s.weight * s.mae for s in given) / sum(s.n for s in given)
