"""In which order to compute species, so that reactions become usable early.

Stages (the paths that were given) come one after the other. Within a stage the sets share the time
fairly: the set that has cost least so far is next, with its cheapest reaction. Cheap sets are then
complete early, and of an expensive one the small reactions.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species


@dataclass(frozen=True)
class Plan:
    """Species in the order of their computation.

    Attributes:
        species: each once, by content.
        costs: estimated cost of each, in arbitrary units.
        n_reactions: reactions that the species are for.
        n_left_out: reactions with a species that is too large.
        too_large: species that are left out.
    """

    species: tuple[Species, ...]
    costs: tuple[float, ...]
    n_reactions: int
    n_left_out: int
    too_large: tuple[Species, ...]


def plan(
    stages: Sequence[Sequence[ReactionSet]],
    size: Callable[[Species], int],
    max_size: int | None = None,
) -> Plan:
    """Order the species of all reactions; whole reactions only.

    Args:
        stages: sets of reactions, the most urgent first.
        size: number of basis functions of a species.
        max_size: species with more are left out, and the reactions that need them.

    Returns:
        The plan.
    """
    order: dict[str, Species] = {}
    costs: dict[str, float] = {}
    too_large: dict[str, Species] = {}
    n_reactions = n_left_out = 0
    sizes: dict[str, int] = {}

    def size_of(species: Species) -> int:
        key = species.content_hash
        if key not in sizes:
            sizes[key] = size(species)
        return sizes[key]

    for stage in stages:
        queues: list[list[tuple[float, Reaction]]] = []
        for one in stage:
            queue = []
            for reaction in one.reactions:
                members = one.species_of(reaction)
                large = [s for s in members if max_size and size_of(s) > max_size]
                too_large.update((s.content_hash, s) for s in large)
                if large:
                    n_left_out += 1
                else:
                    price = sum(_cost(s, size_of(s)) for s in members)
                    queue.append((price, reaction))
            queues.append(sorted(queue, key=lambda pair: pair[0], reverse=True))
        heap = [(0.0, index) for index, queue in enumerate(queues) if queue]
        heapq.heapify(heap)
        while heap:
            spent, index = heapq.heappop(heap)
            _, reaction = queues[index].pop()
            n_reactions += 1
            for species in stage[index].species_of(reaction):
                key = species.content_hash
                if key not in order:
                    order[key] = species
                    costs[key] = _cost(species, size_of(species))
                    spent += costs[key]
            if queues[index]:
                heapq.heappush(heap, (spent, index))
    return Plan(
        species=tuple(order.values()),
        costs=tuple(costs.values()),
        n_reactions=n_reactions,
        n_left_out=n_left_out,
        too_large=tuple(too_large.values()),
    )


def count_basis_functions(species: Species, basis: str, cache: dict[str, int]) -> int:
    """Number of spherical basis functions of a species, without building the molecule.

    Args:
        species: the species.
        basis: basis set.
        cache: numbers by element, filled as needed; one dictionary per basis.

    Returns:
        The number.
    """
    from pyscf import gto

    for element in set(species.symbols) - cache.keys():
        shells = gto.basis.load(basis, element)
        cache[element] = sum(
            (2 * shell[0] + 1)
            * (len(next(row for row in shell[1:] if isinstance(row, list | tuple))) - 1)
            for shell in shells
        )
    return sum(cache[element] for element in species.symbols)


def _cost(species: Species, size: int) -> float:
    """Points times pairs of orbitals, twice for two spins, plus what every calculation costs."""
    channels = 1 if species.multiplicity == 1 else 2
    return 0.3 + channels * len(species.symbols) * (size / 100) ** 2 / 5
