"""Functionals side by side, on the reactions that all of them have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.training.reactions import ReactionSet
from ase_neuralxc.validation.energies import reaction_energies
from ase_neuralxc.validation.statistics import ReactionKey, SubsetErrors, subset_errors


@dataclass(frozen=True)
class SCFSummary:
    """How the SCFs of one functional went.

    Attributes:
        n: species with an energy.
        median_cycles: over these; cycles of all strategies that were tried count.
        most_cycles: the largest number.
        hard: species that the first strategy did not converge, or whose instability was followed.
        second_attempts: species that needed a second attempt on the fine grid.
        seconds: of all species together.
        failures: name of a species without an energy -> reason.
    """

    n: int
    median_cycles: float
    most_cycles: int
    hard: int
    second_attempts: int
    seconds: float
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[Mapping[str, Any]], failures: Mapping[str, str]) -> SCFSummary:
        """Sum up results of `SinglePointTask`.

        Args:
            results: of the species that have an energy.
            failures: reasons for those that have none, by name.

        Returns:
            The summary.

        Raises:
            InvalidInputError: there is no result.
        """
        found = list(results)
        if not found:
            raise InvalidInputError("results: expected at least one energy, got none")
        scf = [result["scf"] for result in found]
        return cls(
            n=len(found),
            median_cycles=float(median(s["cycles"] for s in scf)),
            most_cycles=max(s["cycles"] for s in scf),
            hard=sum(s["attempts"] > 1 for s in scf),
            second_attempts=sum(s["task_attempt"] > 0 for s in scf),
            seconds=sum(result["seconds"] for result in found),
            failures=dict(failures),
        )


@dataclass(frozen=True)
class Column:
    """A functional with its dispersion.

    Attributes:
        label: as in the table.
        energies: total energy by content hash of the species, in Hartree.
        scf: how the SCFs went; None for energies on stored densities.
    """

    label: str
    energies: Mapping[str, float]
    scf: SCFSummary | None = None


@dataclass(frozen=True)
class Comparison:
    """Errors of several functionals over the same reactions.

    Attributes:
        sets: complete sets, as read.
        listed: the reactions that were to be computed; what is missing was left out beforehand.
        columns: the functionals.
        protocol: what the numbers depend on, in plain values.
    """

    sets: Sequence[ReactionSet]
    listed: Sequence[ReactionSet]
    columns: Sequence[Column]
    protocol: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.columns:
            raise InvalidInputError("columns: expected at least one functional, got none")
        if not self.common:
            raise InvalidInputError(
                "columns: expected at least one reaction for which all functionals have energies, "
                "got none"
            )

    @cached_property
    def energies(self) -> dict[str, dict[ReactionKey, float]]:
        """Reaction energies in kcal/mol by label; of the listed reactions that each one has."""
        return {c.label: reaction_energies(self.listed, c.energies) for c in self.columns}

    @cached_property
    def common(self) -> list[ReactionKey]:
        """Reactions that every functional has: the statistics are taken over these."""
        return [
            (one.name, r.name)
            for one in self.listed
            for r in one.reactions
            if all((one.name, r.name) in e for e in self.energies.values())
        ]

    @cached_property
    def subsets(self) -> dict[str, list[SubsetErrors]]:
        """Statistics by label, the same sets in the same order for each."""
        return {
            label: subset_errors(self.sets, {key: energies[key] for key in self.common})
            for label, energies in self.energies.items()
        }

    @property
    def left_out(self) -> dict[str, tuple[int, int]]:
        """Set -> reactions left out beforehand, and reactions that some functional lacks."""
        listed = {one.name: len(one.reactions) for one in self.listed}
        done: dict[str, int] = {}
        for name, _ in self.common:
            done[name] = done.get(name, 0) + 1
        out = {}
        for one in self.sets:
            count = listed.get(one.name, 0)
            out[one.name] = (len(one.reactions) - count, count - done.get(one.name, 0))
        return {name: pair for name, pair in out.items() if any(pair)}
