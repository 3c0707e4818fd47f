"""Energies of species from single points or stored densities, and reaction energies from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.training.reactions import ReactionSet, Species
from ase_neuralxc.training.solve import system_of
from ase_neuralxc.training.stored import density_path, open_density
from ase_neuralxc.training.stored_energies import xc_energies
from ase_neuralxc.validation.statistics import ReactionKey

#: Densities that are opened at a time: each is a file that is mapped into memory.
_OPEN = 100


def reaction_energies(
    sets: Iterable[ReactionSet], energies: Mapping[str, float]
) -> dict[ReactionKey, float]:
    """Energies of all reactions whose species are there.

    Args:
        sets: sets of reactions.
        energies: by content hash of the species, in Hartree.

    Returns:
        (set, reaction) -> kcal/mol.
    """
    out = {}
    for one in sets:
        for reaction in one.reactions:
            found = [energies.get(s.content_hash) for s in one.species_of(reaction)]
            if None not in found:
                total = sum(
                    c * e
                    for c, e in zip(reaction.coefficients, found, strict=True)
                    if e is not None
                )
                out[one.name, reaction.name] = total / units.KCALMOL_HARTREE
    return out


def without_species(sets: Iterable[ReactionSet], excluded: Iterable[Species]) -> list[ReactionSet]:
    """Drop the reactions that need a species, and the sets and species that nobody needs then.

    Args:
        sets: sets of reactions.
        excluded: species that will not be computed.

    Returns:
        The sets that have reactions left.
    """
    hashes = {species.content_hash for species in excluded}
    return _of_reactions(sets, lambda members: all(s.content_hash not in hashes for s in members))


def with_larger_species(
    sets: Iterable[ReactionSet], size: Callable[[Species], int], limit: int
) -> list[ReactionSet]:
    """Keep the reactions that a list limited by the size of species has left out.

    Args:
        sets: sets of reactions.
        size: number of basis functions of a species.
        limit: reactions whose species all have at most this number are dropped.

    Returns:
        The sets that have reactions left.
    """
    return _of_reactions(sets, lambda members: any(size(s) > limit for s in members))


def _of_reactions(
    sets: Iterable[ReactionSet], keep: Callable[[tuple[Species, ...]], bool]
) -> list[ReactionSet]:
    out = []
    for one in sets:
        kept = tuple(r for r in one.reactions if keep(one.species_of(r)))
        if kept:
            names = dict.fromkeys(name for r in kept for name in r.species)
            species = {name: one.species[name] for name in names}
            out.append(replace(one, species=species, reactions=kept))
    return out


def stored_energies(
    functional: SemilocalFunctional, species: Mapping[str, Species], directory: str | Path
) -> dict[str, float]:
    """Energies of a functional on the densities of another one, those that are there.

    Args:
        functional: semi-local, with any fraction of exact exchange.
        species: by content hash.
        directory: folder of prepared densities, which may still be growing.

    Returns:
        By content hash, in Hartree, without dispersion.
    """
    paths = {key: density_path(directory, one) for key, one in species.items()}
    keys = [key for key, path in paths.items() if path.exists()]
    out: dict[str, float] = {}
    fraction = float(functional.exchange_fraction)
    for start in range(0, len(keys), _OPEN):
        part = keys[start : start + _OPEN]
        densities = [open_density(paths[key]) for key in part]
        with torch.no_grad():
            xc = xc_energies(functional, densities).tolist()
        for key, density, energy in zip(part, densities, xc, strict=True):
            exact = density.exact_exchange(fraction)
            out[key] = density.energy_without_xc + exact + energy
    return out


def dispersion_energies(
    term: Dispersion, species: Mapping[str, Species], keys: Sequence[str]
) -> dict[str, float]:
    """Dispersion energies, which depend on the geometry alone.

    Args:
        term: the dispersion model.
        species: by content hash.
        keys: the species that are wanted.

    Returns:
        By content hash, in Hartree.
    """
    return {key: term.energy(system_of(species[key])) for key in keys}
