"""What a data set says before any training: reference energies, scales, shortest distances."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name
from mlip.data.graph import AtomGraph
from mlip.data.labelled import LabelledGraph

#: How reference energies may be asked for, beside a mapping of symbols to eV.
REFERENCE_RULES = ("fit", "isolated", "none")


@dataclass(frozen=True, eq=False)
class ReferenceFit:
    """Energies of the elements by least squares on the energies per atom.

    Attributes:
        elements: atomic numbers.
        energies: [elements] in eV; where the compositions leave them open (`rank` below the number
            of elements), those of smallest norm.
        rank: independent compositions.
        condition: largest by smallest non-zero singular value of the normalised compositions.
        rms: of what is left, in eV per atom.
        n_structures: with an energy.
    """

    elements: tuple[int, ...]
    energies: NDArray
    rank: int
    condition: float
    rms: float
    n_structures: int

    @property
    def determined(self) -> bool:
        """Whether the compositions tell all elements apart."""
        return self.rank == len(self.elements)

    def text(self) -> str:
        """One line: energies, rank, condition number, remaining scatter."""
        pairs = zip(self.elements, self.energies, strict=True)
        values = ", ".join(f"{chemical_symbols[z]} {energy:.4f}" for z, energy in pairs)
        note = "" if self.determined else " (not all determined: smallest norm)"
        return (
            f"E0 / eV: {values}; rank {self.rank} of {len(self.elements)}{note}, condition "
            f"{self.condition:.1f}, rms left {self.rms * 1000:.1f} meV/atom over "
            f"{self.n_structures} structures"
        )


def fit_reference_energies(
    compositions: NDArray, energies: NDArray, elements: Sequence[int]
) -> ReferenceFit:
    """Fit sum over elements of n_z E0_z to total energies, each structure per atom.

    Args:
        compositions: [m, elements] numbers of atoms.
        energies: [m] in eV.
        elements: atomic numbers of the columns.

    Returns:
        The fit.

    Raises:
        InvalidInputError: no structure.
    """
    if len(energies) == 0:
        raise InvalidInputError(
            "energies: expected at least one structure with an energy, got none"
        )
    n_atoms = compositions.sum(axis=1)
    fractions = compositions / n_atoms[:, None]
    per_atom = energies / n_atoms
    solution, _, rank, singular = np.linalg.lstsq(fractions, per_atom, rcond=1e-8)
    residual = per_atom - fractions @ solution
    return ReferenceFit(
        elements=tuple(elements),
        energies=solution,
        rank=int(rank),
        condition=float(singular[0] / singular[rank - 1]),
        rms=float(np.sqrt(np.mean(residual**2))),
        n_structures=len(energies),
    )


@dataclass(frozen=True, eq=False)
class DataStatistics:
    """Sums over a data set, collected in one pass.

    Attributes:
        elements: atomic numbers, ascending.
        compositions: [m, elements].
        energies: [m] in eV, NaN where missing.
        fidelities: [m] index into the list of levels of theory.
        average_neighbours: edges per atom.
        rms_force: over all labelled components, in eV/Angstrom; NaN without forces.
        shortest: shortest distance in Angstrom of each pair of elements (z1 <= z2) within the
            cutoff.
        counts: labelled structures (energy, stress) or atoms (the others) of each kind of label.
    """

    elements: tuple[int, ...]
    compositions: NDArray
    energies: NDArray
    fidelities: NDArray
    average_neighbours: float
    rms_force: float
    shortest: Mapping[tuple[int, int], float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def collect_statistics(items: Iterable[LabelledGraph]) -> DataStatistics:
    """Walk once over a data set.

    Args:
        items: graphs of one structure each.

    Returns:
        The statistics.

    Raises:
        InvalidInputError: no structure.
    """
    numbers, energies, fidelities = [], [], []
    n_edges, squares, n_components = 0, 0.0, 0
    shortest: dict[tuple[int, int], float] = {}
    counts = dict.fromkeys(("energy", "forces", "stress", "magmoms", "magnetic_forces"), 0)
    for item in items:
        graph, labels = item.graph, item.labels
        numbers.append(graph.numbers.numpy())
        energies.append(float(labels.energy))
        fidelities.append(int(graph.fidelity))
        n_edges += graph.n_edges
        forces = labels.forces[labels.forces.isfinite()]
        squares += float(forces.square().sum())
        n_components += len(forces)
        counts["energy"] += int(labels.energy.isfinite())
        counts["stress"] += int(labels.stress.isfinite().all())
        for name in ("forces", "magmoms", "magnetic_forces"):
            values = getattr(labels, name)
            counts[name] += int(values.reshape(graph.n_atoms, -1).isfinite().all(1).sum())
        shortest_distances(graph, shortest)
    if not numbers:
        raise InvalidInputError("data: expected at least one structure, got none")
    elements = np.unique(np.concatenate(numbers))
    return DataStatistics(
        elements=tuple(elements.tolist()),
        compositions=np.array([(z[:, None] == elements).sum(axis=0) for z in numbers]),
        energies=np.array(energies),
        fidelities=np.array(fidelities),
        average_neighbours=n_edges / sum(map(len, numbers)),
        rms_force=float(np.sqrt(squares / n_components)) if n_components else float("nan"),
        shortest=shortest,
        counts=counts,
    )


def reference_energies(
    statistics: DataStatistics,
    rule: str | Mapping[str, float],
    n_fidelities: int = 1,
    levels: Iterable[int] | None = None,
) -> tuple[NDArray, list[ReferenceFit]]:
    """Energy of each element at each level of theory.

    Args:
        statistics: of the training data.
        rule: "fit" (least squares), "isolated" (from structures of one atom in the data), "none"
            (zeros), or symbols with their energies in eV.
        n_fidelities: levels of theory.
        levels: which of them the data are expected to have; None for all.

    Returns:
        [fidelities, elements] in eV (zeros where no data are expected), and the fits that were
        made (none for other rules).

    Raises:
        InvalidInputError: an unknown rule, or an element without an energy.
    """
    elements = statistics.elements
    table = np.zeros((n_fidelities, len(elements)))
    if not isinstance(rule, str):
        for symbol in rule:
            if symbol not in atomic_numbers:
                raise unknown_name("element", str(symbol), atomic_numbers)
        missing = [chemical_symbols[z] for z in elements if chemical_symbols[z] not in rule]
        if missing:
            raise InvalidInputError(
                f"reference_energies: expected one for each element of the data, none for {missing}"
            )
        table[:] = [float(rule[chemical_symbols[z]]) for z in elements]
        return table, []
    if rule not in REFERENCE_RULES:
        raise unknown_name("rule for reference energies", rule, REFERENCE_RULES)
    fits = []
    for level in range(n_fidelities) if levels is None else levels:
        chosen = (statistics.fidelities == level) & np.isfinite(statistics.energies)
        compositions, energies = statistics.compositions[chosen], statistics.energies[chosen]
        if rule == "isolated":
            alone = compositions.sum(axis=1) == 1
            absent = [
                chemical_symbols[z]
                for z, found in zip(elements, compositions[alone].any(axis=0), strict=True)
                if not found
            ]
            if absent:
                raise InvalidInputError(
                    f"reference_energies: 'isolated' expects structures of one atom for each "
                    f"element, none for {absent} (level of theory {level})"
                )
            weights = compositions[alone].astype(float)
            table[level] = (weights * energies[alone, None]).sum(0) / weights.sum(0)
        elif rule == "fit":
            fits.append(fit_reference_energies(compositions, energies, elements))
            table[level] = fits[-1].energies
    return table, fits


def shortest_distances(
    graph: AtomGraph, shortest: dict[tuple[int, int], float]
) -> list[tuple[int, int]]:
    """Lower the shortest distance of each pair of elements to those in a graph.

    Args:
        graph: the structures.
        shortest: distances in Angstrom by atomic numbers (z1 <= z2), changed in place.

    Returns:
        The pairs whose distance was lowered or is new.
    """
    if not graph.n_edges:
        return []
    distances = graph.edge_vectors().norm(dim=1).numpy()
    numbers = graph.numbers.numpy()[graph.edge_index.numpy()]
    codes = numbers.min(axis=0) * 1000 + numbers.max(axis=0)
    lowered = []
    for code in np.unique(codes):
        low, high = divmod(int(code), 1000)
        closest = float(distances[codes == code].min())
        if closest < shortest.get((low, high), np.inf):
            shortest[low, high] = closest
            lowered.append((low, high))
    return lowered
