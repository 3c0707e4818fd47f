"""What is trained on and what is held out, by species and not by reaction.

Sets overlap: a molecule of the held-out fold may stand in reactions of other sets, under another
name and in a slightly different geometry. Species are therefore told apart by formula, charge and
multiplicity, and a reaction that is made of atoms and molecules of the validation set alone, one of
them held out, is dropped from the training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.training.reactions import ReactionSet, Species

#: Formula, charge and multiplicity.
Kind = tuple[tuple[str, ...], int, int]


@dataclass(frozen=True)
class Split:
    """Reactions by the use that is made of them.

    Attributes:
        training: (set, reaction) names.
        validation: (set, reaction) names of the held-out fold.
        dropped: (set, reaction) names that would tell about the held-out fold.
    """

    training: tuple[tuple[str, str], ...]
    validation: tuple[tuple[str, str], ...]
    dropped: tuple[tuple[str, str], ...]


def kind_of(species: Species) -> Kind:
    """Formula, charge and multiplicity of a species."""
    return tuple(sorted(species.symbols)), species.charge, species.multiplicity


def split(
    sets: Sequence[ReactionSet], validation_set: str, folds: int, fold: int | None, seed: int
) -> Split:
    """Hold out a fold of the molecules of one set, and all that tells about them.

    Args:
        sets: all sets.
        validation_set: name of the set whose molecules make the folds.
        folds: number of folds.
        fold: the fold that is held out, or None to hold out nothing.
        seed: of the assignment of molecules to folds.

    Returns:
        The names of the reactions.

    Raises:
        InvalidInputError: there is no such set.
    """
    names = {one.name: one for one in sets}
    if fold is None:
        everything = tuple((one.name, r.name) for one in sets for r in one.reactions)
        return Split(everything, (), ())
    if validation_set not in names:
        raise InvalidInputError(
            f"validation_set: expected one of {sorted(names)}, got {validation_set!r}"
        )
    own = names[validation_set]
    molecules = sorted({kind_of(s) for s in own.species.values() if len(s.symbols) > 1})
    order = np.random.default_rng(seed).permutation(len(molecules))
    held = {molecules[i] for i in order[fold::folds]}
    known = set(molecules)
    training, validation, dropped = [], [], []
    for one in sets:
        for reaction in one.reactions:
            # a crystal of the formula of a molecule tells nothing about it
            kinds = [kind_of(s) for s in one.species_of(reaction) if s.cell is None]
            entry = (one.name, reaction.name)
            touched = any(kind in held for kind in kinds)
            if touched and one.name == validation_set:
                validation.append(entry)
            elif touched and all(len(kind[0]) == 1 or kind in known for kind in kinds):
                dropped.append(entry)
            else:
                training.append(entry)
    return Split(tuple(training), tuple(validation), tuple(dropped))
