"""Functionals on stored densities: energies of species and reactions, differentiable and bounded.

The energies of thousands of species have one node in the graph of autograd: values are computed
without a graph, and the backward pass goes over the points again, chunk by chunk. Memory is that of
one chunk, whatever the loss and however many species it joins, for one more forward pass.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.records import units
from ase_neuralxc.training.nonlocal_batches import GridBatch, grid_batches
from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species
from ase_neuralxc.training.stored import StoredDensity, density_path, open_density

#: Points per chunk: some 100 MB of a 64-wide network in float32.
CHUNK = 65_536


@dataclass(frozen=True)
class InvariantBatch:
    """Points of several species, all closed-shell or all spin-polarised.

    Attributes:
        invariants: of n points, float64.
        weights: [n] quadrature weights, float64.
        segments: [n] index of the species of each point, in the sequence that was given.
    """

    invariants: DensityInvariants
    weights: Tensor
    segments: Tensor

    def energies(self, functional: SemilocalFunctional, n_species: int) -> Tensor:
        """Part of the energy of each species that its points here make, [n_species] in Hartree."""
        energy = self.weights * functional.local_energy_density(self.invariants)
        out = torch.zeros(n_species, dtype=energy.dtype, device=energy.device)
        return out.index_add(0, self.segments, energy)


def batches(
    densities: Sequence[StoredDensity], chunk: int = CHUNK, device: str = "cpu"
) -> Iterator[InvariantBatch]:
    """Go over the points of species in chunks; large species are split, small ones joined.

    Args:
        densities: stored densities; only what is yielded is read from their files.
        chunk: largest number of points of a batch.
        device: torch device of the batches.

    Yields:
        Batches that together hold every point once.
    """
    for closed_shell in (True, False):
        parts: list[tuple[int, slice]] = []
        room = chunk
        for index, density in enumerate(densities):
            start = 0
            while density.closed_shell == closed_shell and start < density.n_points:
                stop = min(start + room, density.n_points)
                parts.append((index, slice(start, stop)))
                room -= stop - start
                start = stop
                if room == 0:
                    yield _batch(densities, parts, closed_shell, device)
                    parts, room = [], chunk
        if parts:
            yield _batch(densities, parts, closed_shell, device)


def batches_for(
    functional: XCFunctional,
    densities: Sequence[StoredDensity],
    chunk: int = CHUNK,
    device: str = "cpu",
) -> Iterator[InvariantBatch | GridBatch]:
    """Points of species in the form that a functional needs.

    Args:
        functional: semi-local or nonlocal.
        densities: stored densities.
        chunk: largest number of points of a batch of single points.
        device: torch device of the batches.

    Returns:
        `batches` for a semi-local functional, else `grid_batches`.
    """
    if isinstance(functional, SemilocalFunctional):
        return batches(densities, chunk, device)
    return grid_batches(densities, getattr(functional, "atomwise", False), device)


def xc_energies(
    functional: XCFunctional,
    densities: Sequence[StoredDensity],
    chunk: int = CHUNK,
    device: str = "cpu",
) -> Tensor:
    """Exchange-correlation energies of stored densities, without any exact exchange.

    Args:
        functional: a torch module on `device`, semi-local or nonlocal.
        densities: of the species.
        chunk: largest number of points of a semi-local functional that are evaluated together.
        device: torch device.

    Returns:
        [n_species] in Hartree, once differentiable with respect to the functional's parameters.
    """
    module: Any = functional
    parameters = tuple(p for p in module.parameters() if p.requires_grad)
    return _Energies.apply(functional, densities, chunk, device, *parameters)


class _Energies(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        functional: Any,
        densities: Sequence[StoredDensity],
        chunk: int,
        device: str,
        *parameters: Tensor,
    ) -> Tensor:
        ctx.work = functional, densities, chunk, device
        ctx.save_for_backward(*parameters)
        total = torch.zeros(len(densities), dtype=torch.float64, device=device)
        for batch in batches_for(functional, densities, chunk, device):
            total += batch.energies(functional, len(densities))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        functional, densities, chunk, device = ctx.work
        parameters = ctx.saved_tensors
        gradients = [torch.zeros_like(p) for p in parameters]
        # species that do not enter the loss cost nothing
        wanted = [i for i, g in enumerate(cotangent.tolist()) if g != 0.0]
        needed = [densities[i] for i in wanted]
        weights = cotangent[wanted]
        for batch in batches_for(functional, needed, chunk, device):
            with torch.enable_grad():
                value = batch.energies(functional, len(needed)) @ weights
            parts = torch.autograd.grad(value, parameters, allow_unused=True)
            for total, part in zip(gradients, parts, strict=True):
                if part is not None:
                    total += part
        return None, None, None, None, *gradients


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
        """[n_species] all that a semi-local functional does not change, in Hartree."""
        return torch.tensor(
            [
                d.energy_without_xc
                + exchange_fraction * d.energies["exact exchange"]
                + (d.energies[self.dispersion] if self.dispersion is not None else 0.0)
                for d in self.densities
            ],
            dtype=torch.float64,
        )

    def combine(self, energies: Tensor) -> Tensor:
        """Reaction energies [m] in kcal/mol from energies of the species [n_species] in Hartree."""
        terms = self.coefficients * energies[self.columns] / units.KCALMOL_HARTREE
        return torch.zeros(len(self.reactions), dtype=torch.float64).index_add(0, self.rows, terms)

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


def _batch(
    densities: Sequence[StoredDensity],
    parts: Sequence[tuple[int, slice]],
    closed_shell: bool,
    device: str,
) -> InvariantBatch:
    def gather(name: str) -> Tensor:
        rows = [getattr(densities[i], name)[..., points] for i, points in parts]
        joined: NDArray = np.concatenate(rows, axis=-1, dtype=np.float64)
        return torch.from_numpy(joined).to(device)

    density, gradient, tau = gather("density"), gather("gradient"), gather("tau")
    if closed_shell:
        sigma = (gradient[0] * gradient[0]).sum(0)
        invariants = DensityInvariants.from_total(density[0], sigma, tau[0])
    else:
        up, down = gradient
        sigma = torch.stack([(up * up).sum(0), (up * down).sum(0), (down * down).sum(0)])
        invariants = DensityInvariants(density, sigma, tau)
    counts = torch.tensor([points.stop - points.start for _, points in parts])
    segments = torch.repeat_interleave(torch.tensor([i for i, _ in parts]), counts)
    return InvariantBatch(invariants, gather("weights"), segments.to(device))
