"""What a search for adsorption structures gives: a ranked list, its reference, its picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import new_figure, save_figure
from ase_neuralxc.workflows.outcome import ADSORBED, Surface, nearest_copy

if TYPE_CHECKING:
    from ase_neuralxc.workflows.adsorption import AdsorptionSettings


@dataclass(frozen=True, eq=False)
class AdsorptionEntry:
    """One placement and what became of it.

    Attributes:
        atoms: relaxed slab with adsorbate, with energy and forces; as placed where it failed.
        origin: where it was placed, and how it was turned.
        site: site where it ended, "" where it is not adsorbed.
        outcome: adsorbed, desorbed, dissociated, isomerised, reconstructed or failed.
        energy: adsorption energy in eV, None where it failed.
        converged: whether the relaxation is.
        duplicate_of: number of the entry, in order of placement, that this one repeats, or None.
        refined: adsorption energy of the second calculator at this geometry in eV, or None.
        reason: why it failed, "" otherwise.
    """

    atoms: Atoms
    origin: str
    site: str
    outcome: str
    energy: float | None
    converged: bool
    duplicate_of: int | None = None
    refined: float | None = None
    reason: str = ""

    @property
    def distinct(self) -> bool:
        """Whether it is adsorbed, converged, and repeats no other entry."""
        return self.outcome == ADSORBED and self.converged and self.duplicate_of is None


@dataclass(frozen=True, eq=False)
class AdsorptionResult:
    """Adsorption structures of one species on one slab.

    Attributes:
        entries: one per placement, in the order of placement.
        slab: the clean slab with its energy.
        gas: the reference species with their energies, by name.
        reference: coefficients of the reference species: the adsorption energy is
            E(slab and adsorbate) - E(slab) - sum of coefficient * E(species), negative where
            adsorption is exothermic, without zero-point energies.
        coverage: in adsorbates per exposed atom of the slab.
        settings: what was asked for.
    """

    entries: tuple[AdsorptionEntry, ...]
    slab: Atoms
    gas: Mapping[str, Atoms]
    reference: Mapping[str, float]
    coverage: float
    settings: AdsorptionSettings

    @property
    def ranked(self) -> list[AdsorptionEntry]:
        """Distinct adsorbed entries, strongest first.

        By the second calculator where it was used (those without its energy follow), else by the
        first.
        """
        distinct = [entry for entry in self.entries if entry.distinct]
        return sorted(
            distinct,
            key=lambda e: (e.refined is None, e.energy if e.refined is None else e.refined),
        )

    @property
    def best(self) -> AdsorptionEntry:
        """The strongest adsorption.

        Raises:
            InvalidInputError: nothing is adsorbed.
        """
        if not self.ranked:
            counts = ", ".join(f"{n} {name}" for name, n in self.outcomes.items())
            raise InvalidInputError(f"entries: expected one that is adsorbed, got {counts}")
        return self.ranked[0]

    def path_ends(self, first: int = 1, second: int = 2) -> tuple[Atoms, Atoms]:
        """Two ranked structures as the ends of a short path.

        Args:
            first: rank of the start, from 1.
            second: rank of the end.

        Returns:
            The start, and the copy of the end by the symmetry of the slab that is nearest to it.

        Raises:
            InvalidInputError: a rank that does not exist.
        """
        ranked = self.ranked
        for name, rank in (("first", first), ("second", second)):
            if not 1 <= rank <= len(ranked):
                raise InvalidInputError(
                    f"{name}: expected a rank of 1 to {len(ranked)}, got {rank}"
                )
        start, end = ranked[first - 1].atoms, ranked[second - 1].atoms
        return start, nearest_copy(end, start, Surface.of(self.slab, self.settings.symprec))

    @property
    def outcomes(self) -> dict[str, int]:
        """Number of placements by outcome."""
        names = [entry.outcome for entry in self.entries]
        return {name: names.count(name) for name in sorted(set(names))}

    @property
    def reference_text(self) -> str:
        """The reference in words, for example "0.5 H2(g)"."""
        parts = [
            f"{'' if coefficient == 1 else f'{coefficient:g} '}{name}(g)"
            for name, coefficient in self.reference.items()
        ]
        return " + ".join(parts)

    def table(self) -> str:
        """Text: distinct structures by strength, then counts and the reference."""
        lines = [f"{'rank':>4} {'E_ads / eV':>11} {'refined':>9}  {'site':28} placed at"]
        for rank, entry in enumerate(self.ranked, start=1):
            refined = "" if entry.refined is None else f"{entry.refined:9.4f}"
            lines.append(
                f"{rank:4d} {entry.energy:11.4f} {refined:>9}  {entry.site:28} {entry.origin}"
            )
        if not self.ranked:
            lines.append("nothing is adsorbed")
        adsorbed = [entry for entry in self.entries if entry.outcome == ADSORBED]
        repeated = sum(entry.duplicate_of is not None for entry in adsorbed)
        unconverged = sum(not entry.converged for entry in self.entries if not entry.reason)
        counts = ", ".join(f"{n} {name}" for name, n in self.outcomes.items())
        lines.append(f"{len(self.entries)} placements: {counts}; {repeated} duplicates")
        if unconverged:
            lines.append(f"NOT CONVERGED: {unconverged} relaxations, which are not ranked")
        lines += [f"FAILED: {e.origin}: {e.reason}" for e in self.entries if e.reason]
        lines.append(
            f"E_ads = E(slab + adsorbate) - E(slab) - E({self.reference_text}), coverage "
            f"{self.coverage:.3g} ML, no zero-point energy"
        )
        return "\n".join(lines)

    def plot(self, path: str | Path) -> Path:
        """Write a picture: adsorption energies of the distinct structures by rank.

        Args:
            path: target file.

        Returns:
            The path.
        """
        figure, (axes,) = new_figure()
        ranked = self.ranked
        places = list(range(len(ranked)))
        axes.plot(places, [entry.energy for entry in ranked], "o", label="relaxed with")
        refined = [(n, e.refined) for n, e in enumerate(ranked) if e.refined is not None]
        if refined:
            axes.plot(*zip(*refined, strict=True), "s", label="single points")
            axes.legend()
        axes.set_xticks(places, [entry.site for entry in ranked], rotation=30, ha="right")
        axes.set_ylabel("adsorption energy / eV")
        axes.set_title(f"reference: {self.reference_text}, {self.coverage:.3g} ML")
        return save_figure(figure, path)
