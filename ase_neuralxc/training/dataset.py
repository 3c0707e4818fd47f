"""Reactions over stored densities: reaction energies of functionals, whole sets or batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.records import units
from ase_neuralxc.training.batches import CHUNK
from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species
from ase_neuralxc.training.stored import StoredDensity, density_path, open_density
from ase_neuralxc.training.stored_energies import xc_energies


@dataclass(frozen=True)
class ReactionTable:
    """Reactions of many sets over one list of stored densities.

    Attributes:
        densities: of the species, each once.
        reactions: [m] the reactions.
        sets: [m] name of the set of each.
        references: [m] in kcal/mol.
        rows: [k] index of a reaction, for each of k terms.
        columns: [k] index of a species.
        coefficients: [k].
        dispersion: key of the dispersion energy that is added, or None.
        missing: reactions that were left out because a density is not there.
    """

    densities: tuple[StoredDensity, ...]
    reactions: tuple[Reaction, ...]
    sets: tuple[str, ...]
    references: Tensor
    rows: Tensor
    columns: Tensor
    coefficients: Tensor
    dispersion: str | None
    missing: int

    @classmethod
    def load(
        cls, sets: Iterable[ReactionSet], directory: str | Path, dispersion: str | None = None
    ) -> ReactionTable:
        """Open the densities of all reactions whose species are there.

        Args:
            sets: sets of reactions.
            directory: folder of prepared densities, which may still be growing.
            dispersion: which stored dispersion energy to add, for example "d4(r2scan)".

        Returns:
            The table.

        Raises:
            InvalidInputError: no reaction is complete, a file is damaged, or the dispersion energy
                is not stored.
        """
        densities: list[StoredDensity] = []
        index: dict[str, int | None] = {}

        def find(species: Species) -> int | None:
            key = species.content_hash
            if key not in index:
                path = density_path(directory, species)
                index[key] = len(densities) if path.exists() else None
                if index[key] is not None:
                    densities.append(open_density(path))
            return index[key]

        reactions: list[Reaction] = []
        names: list[str] = []
        terms: list[tuple[int, Any, float]] = []
        missing = 0
        for one in sets:
            for reaction in one.reactions:
                found = [find(s) for s in one.species_of(reaction)]
                if None in found:
                    missing += 1
                    continue
                pairs = zip(found, reaction.coefficients, strict=True)
                terms += [(len(reactions), column, c) for column, c in pairs]
                reactions.append(reaction)
                names.append(one.name)
        if not reactions:
            raise InvalidInputError(
                f"directory: expected the densities of at least one reaction in "
                f"{str(directory)!r}, got none of {missing}"
            )
        for density in densities:
            if dispersion is not None and dispersion not in density.energies:
                raise InvalidInputError(
                    f"dispersion: expected one of the stored energies "
                    f"{sorted(density.energies)}, got {dispersion!r}"
                )
        rows, columns, coefficients = zip(*terms, strict=True)
        return cls(
            densities=tuple(densities),
            reactions=tuple(reactions),
            sets=tuple(names),
            references=torch.tensor([r.reference for r in reactions], dtype=torch.float64),
            rows=torch.tensor(rows),
            columns=torch.tensor(columns),
            coefficients=torch.tensor(coefficients, dtype=torch.float64),
            dispersion=dispersion,
            missing=missing,
        )

    def with_densities(self, densities: Sequence[StoredDensity]) -> ReactionTable:
        """The same reactions over other densities of the same species, in the same order."""
        return replace(self, densities=tuple(densities))

    def fixed_energies(self, exchange_fraction: float = 0.0) -> Tensor:
        """[n_species] all that a semi-local functional does not change, in Hartree.

        Args:
            exchange_fraction: of exact exchange that is added.

        Returns:
            The energies.

        Raises:
            InvalidInputError: exact exchange of crystals, which is not stored.
        """
        return torch.tensor(
            [
                d.energy_without_xc
                + d.exact_exchange(exchange_fraction)
                + (d.energies[self.dispersion] if self.dispersion is not None else 0.0)
                for d in self.densities
            ],
            dtype=torch.float64,
        )

    def combine(self, values: Tensor) -> Tensor:
        """Sum over the species of each reaction, from Hartree to kcal/mol.

        Args:
            values: [n_species, ...] energies in Hartree, or derivatives of them.

        Returns:
            [m, ...] of the reactions, in kcal/mol.
        """
        matrix = torch.sparse_coo_tensor(
            torch.stack([self.rows, self.columns]),
            self.coefficients / units.KCALMOL_HARTREE,
            (len(self.reactions), len(self.densities)),
            check_invariants=True,
        )
        product = torch.sparse.mm(matrix, values.reshape(len(values), -1))
        return product.reshape(-1, *values.shape[1:])

    def starting_energies(self) -> Tensor:
        """Reaction energies [m] in kcal/mol of the functional that made the densities."""
        starting = torch.tensor([d.starting_xc for d in self.densities], dtype=torch.float64)
        fraction = self.densities[0].starting_fraction
        return self.combine(self.fixed_energies(fraction) + starting)

    def reaction_energies(
        self, functional: XCFunctional, chunk: int = CHUNK, device: str = "cpu"
    ) -> Tensor:
        """Reaction energies of a functional on the stored densities.

        Args:
            functional: semi-local or nonlocal, with any fraction of exact exchange.
            chunk: largest number of points that are evaluated together.
            device: torch device of the functional.

        Returns:
            [m] in kcal/mol, differentiable with respect to the functional's parameters.
        """
        xc = xc_energies(functional, self.densities, chunk, device).to("cpu")
        return self.combine(self.fixed_energies(float(functional.exchange_fraction)) + xc)

    def subset(self, indices: Sequence[int]) -> ReactionTable:
        """Some of the reactions, for a batch of training, with the species that they need.

        Args:
            indices: of the reactions, in the order that is wanted.

        Returns:
            A table of these reactions.

        Raises:
            InvalidInputError: no reaction.
        """
        if len(indices) == 0:
            raise InvalidInputError("indices: expected at least one reaction, got none")
        terms = [torch.nonzero(self.rows == i)[:, 0] for i in indices]
        kept = torch.cat(terms)
        columns, renumbered = torch.unique(self.columns[kept], return_inverse=True)
        return ReactionTable(
            densities=tuple(self.densities[c] for c in columns.tolist()),
            reactions=tuple(self.reactions[i] for i in indices),
            sets=tuple(self.sets[i] for i in indices),
            references=self.references[list(indices)],
            rows=torch.repeat_interleave(torch.tensor([len(t) for t in terms])),
            columns=renumbered,
            coefficients=self.coefficients[kept],
            dispersion=self.dispersion,
            missing=0,
        )
