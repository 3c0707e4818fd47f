"""What is in a data set, and what is wrong with it, before an hour of training finds out."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from mlip.data.labelled import to_graph
from mlip.data.statistics import ReferenceFit, fit_reference_energies, shortest_distances
from mlip.data.structure import LABELS, Structure

#: An energy per atom this many (robust) standard deviations off the fit is an outlier ...
OUTLIER_SIGMAS = 15.0
#: ... if it is also this far off, in eV per atom.
OUTLIER_EV = 0.2
#: Largest force that is taken for a force in eV/Angstrom.
LARGEST_FORCE = 50.0
#: Energy differences must be those of the forces within this factor, where they correlate: third
#: orders in the displacement are left out, but kcal/mol, Hartree and signs are further off.
SLOPE_FACTOR = 1.8
#: Below this correlation, the comparison of energies and forces says nothing.
LEAST_CORRELATION = 0.7
#: Atoms closer than this, in Angstrom, mean that lengths are not in Angstrom (H2: 0.74).
SHORTEST = 0.5
#: Coordinates are compared to this many decimals when duplicates are looked for.
DECIMALS = 5
#: Neighbours within this cutoff are looked at, in Angstrom.
CUTOFF = 5.0
_LISTED = 8
#: Structures of one system whose energies are compared with their forces.
_PER_GROUP = 200


@dataclass(frozen=True, eq=False)
class DataReport:
    """Outcome of `check_structures`.

    Attributes:
        lines: the report, without the problems.
        warnings: what deserves a look.
        failures: what makes training pointless; empty if there is none.
    """

    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    failures: tuple[str, ...]

    def text(self) -> str:
        """The whole report."""
        return "\n".join(
            [
                *self.lines,
                *(f"warning: {line}" for line in self.warnings),
                *(f"FAILED: {line}" for line in self.failures),
            ]
        )


def check_structures(
    structures: Iterable[Structure], weights: Mapping[str, float] | None = None
) -> DataReport:
    """Look at every structure of a data set.

    Args:
        structures: walked once; kept in memory.
        weights: weight of each label in the loss; energy and forces if None.

    Returns:
        The report.

    Raises:
        InvalidInputError: no structure.
    """
    data = list(structures)
    if not data:
        raise InvalidInputError("data: expected at least one structure, got none")
    weights = {"energy": 1.0, "forces": 1.0} if weights is None else weights
    lines, warnings, failures = [*_summary(data), ""], list[str](), list[str]()
    lines += _labels(data, weights, failures)
    lines += _state(data, warnings)
    for level, group in _by(data, "fidelity").items():
        lines.append("")
        lines += _energies(level, group, warnings)
    lines += _forces(data, warnings)
    lines += _units(data, warnings)
    lines += _geometry(data, warnings)
    _duplicates(data, warnings)
    return DataReport(tuple(lines), tuple(warnings), tuple(failures))


def _summary(data: list[Structure]) -> Iterator[str]:
    sizes = np.array([len(s.numbers) for s in data])
    elements = Counter(int(z) for s in data for z in s.numbers)
    yield (
        f"{len(data)} structures, {sizes.sum()} atoms, {sizes.min()} to {sizes.max()} per structure"
    )
    yield "elements: " + ", ".join(
        f"{chemical_symbols[z]} {n}" for z, n in sorted(elements.items())
    )
    periodic = Counter(int(s.pbc.sum()) for s in data)
    yield "periodic directions: " + ", ".join(f"{k} in {n}" for k, n in sorted(periodic.items()))
    groups = Counter(s.config_type or "(none)" for s in data)
    shown = ", ".join(f"{name} {n}" for name, n in groups.most_common(20))
    yield f"config_type: {shown}" + (" ..." if len(groups) > 20 else "")


def _labels(
    data: list[Structure], weights: Mapping[str, float], failures: list[str]
) -> Iterator[str]:
    yield f"{'label':16} {'structures':>10} {'missing':>8} {'weight':>8}"
    for name in LABELS:
        count = sum(getattr(s, name) is not None for s in data)
        weight = weights.get(name, 0.0)
        yield f"{name:16} {count:10d} {len(data) - count:8d} {weight:8g}"
        if weight > 0 and count == 0:
            failures.append(
                f"{name} has weight {weight:g} in the loss, but no structure has this label (see "
                "`data.keys`)"
            )
    keys = Counter(s.energy_key for s in data if s.energy is not None)
    yield "energy from: " + (", ".join(f"{k!r} {n}" for k, n in keys.items()) or "nowhere")


def _state(data: list[Structure], warnings: list[str]) -> Iterator[str]:
    def counts(values: Iterable[float | None]) -> str:
        found = Counter("unknown" if v is None else f"{v:g}" for v in values)
        return ", ".join(f"{k} in {n}" for k, n in sorted(found.items()))

    yield ""
    yield f"charge: {counts(s.charge for s in data)}"
    yield f"unpaired electrons: {counts(s.n_unpaired for s in data)}"
    yield f"spin polarised: {counts(s.spin_polarised for s in data)}"
    moments = [s.input_magmoms for s in data if s.input_magmoms is not None]
    if moments:
        kinds = Counter("vectors" if m.ndim == 2 else "signed" for m in moments)
        sizes = np.concatenate(
            [np.abs(m) if m.ndim == 1 else np.linalg.norm(m, axis=1) for m in moments]
        )
        kind = ", ".join(f"{k} in {n}" for k, n in kinds.items())
        largest, mean = np.nanmax(sizes), np.nanmean(sizes)
        yield f"moments: {kind}; |m| up to {largest:.2f}, mean {mean:.2f} mu_B"
    else:
        yield "moments: none"
    levels = Counter(s.fidelity for s in data)
    named = ", ".join(f"{name or '(not said)'} in {n}" for name, n in levels.items())
    yield f"levels of theory: {named}"
    if len(levels) > 1:
        warnings.append(
            f"{len(levels)} levels of theory: training needs `data.fidelity: conditioned`"
            + (", and every structure must say its own" if "" in levels else "")
        )


def _energies(level: str, group: list[Structure], warnings: list[str]) -> Iterator[str]:
    # isolated atoms are references, not members of the distribution
    labelled = [s for s in group if s.energy is not None and len(s.numbers) > 1]
    if not labelled:
        return
    fit, residual = _reference_fit(labelled)
    yield (f"{level}: " if level else "") + fit.text()
    centre = np.median(residual)
    spread = 1.4826 * np.median(np.abs(residual - centre))
    far = np.abs(residual - centre) > np.maximum(OUTLIER_SIGMAS * spread, OUTLIER_EV)
    if far.any():
        worst = np.flatnonzero(far)[np.argsort(-np.abs(residual[far]))]
        shown = ", ".join(f"{labelled[i].source} ({residual[i]:+.3f})" for i in worst[:_LISTED])
        warnings.append(
            f"{far.sum()} energies are outliers (wrong unit or level of theory?), eV/atom off the "
            f"fit: {shown}" + (" ..." if far.sum() > _LISTED else "")
        )


def _reference_fit(labelled: list[Structure]) -> tuple[ReferenceFit, NDArray]:
    """The fit to those structures that agree with each other, and what all of them are off it."""
    elements = np.unique(np.concatenate([s.numbers for s in labelled]))
    counts = np.array([(s.numbers[:, None] == elements).sum(axis=0) for s in labelled])
    energies = np.array([s.energy for s in labelled])
    n = counts.sum(axis=1)
    keep = np.ones(len(n), dtype=bool)
    for _ in range(5):
        # a few energies in another unit would drag the fit along and hide among the rest
        fit = fit_reference_energies(counts[keep], energies[keep], elements.tolist())
        residual = energies / n - (counts / n[:, None]) @ fit.energies
        off = np.abs(residual - np.median(residual))
        next_keep = off <= max(10.0 * np.median(off), 1e-3)
        if next_keep.all() or (next_keep == keep).all():
            break
        keep = next_keep
    return fit, residual


def _forces(data: list[Structure], warnings: list[str]) -> Iterator[str]:
    labelled = [s for s in data if s.forces is not None]
    if not labelled:
        return
    forces = [s.forces for s in labelled if s.forces is not None]
    largest = np.array([np.linalg.norm(f, axis=1).max() for f in forces])
    net = np.array([np.abs(f.mean(axis=0)).max() for f in forces])
    rms = np.sqrt(np.mean(np.concatenate(forces) ** 2))
    yield (
        f"forces / eV/A: rms {rms:.4f}, largest {largest.max():.3f}, mean net force {net.max():.1e}"
    )
    if (largest > LARGEST_FORCE).any():
        worst = np.argsort(-largest)[: min(_LISTED, int((largest > LARGEST_FORCE).sum()))]
        shown = ", ".join(f"{labelled[i].source} ({largest[i]:.1f})" for i in worst)
        warnings.append(f"forces above {LARGEST_FORCE:g} eV/A (wrong unit?): {shown}")


def _units(data: list[Structure], warnings: list[str]) -> Iterator[str]:
    """Compare energy differences with what the forces say.

    Between two geometries of one system E_b - E_a is -(F_a + F_b).(r_b - r_a)/2 to third order in
    the displacement; for a harmonic system it is exact. Pairs of similar geometries are taken, and
    molecules are turned onto each other first.
    """
    groups = defaultdict(list)
    for s in data:
        if s.energy is not None and s.forces is not None and len(s.numbers) > 1:
            groups[_bytes(s.numbers, s.cell.round(6)) + s.fidelity.encode()].append(s)
    pairs = [pair for group in groups.values() for pair in _similar(group[:_PER_GROUP])]
    if len(pairs) < 5:
        return
    works = np.array([work for work, _ in pairs])
    differences = np.array([difference for _, difference in pairs])
    if works.std() == 0.0 or differences.std() == 0.0:
        return
    correlation = float(np.corrcoef(works, differences)[0, 1])
    slope = float(np.dot(works, differences) / np.dot(works, works))
    yield (
        f"energy differences against the work of the forces, {len(works)} pairs: slope {slope:.3f} "
        f"(1 expected), correlation {correlation:.3f}"
    )
    if abs(correlation) > LEAST_CORRELATION and not 1 / SLOPE_FACTOR < slope < SLOPE_FACTOR:
        warnings.append(
            f"energies and forces do not belong together: energy differences are {slope:.3g} times "
            "the work of the forces (units: 23.06 for kcal/mol with eV/A, 0.53 for Hartree with "
            "Hartree/Bohr, -1 for gradients)"
        )


def _similar(group: list[Structure]) -> Iterator[tuple[float, float]]:
    """Work of the forces and energy difference between each structure and the one most like it."""
    if len(group) < 2:
        return
    positions = np.array([s.positions - s.positions.mean(axis=0) for s in group])
    atoms = np.linspace(0, positions.shape[1] - 1, min(positions.shape[1], 32)).astype(int)
    shape = np.linalg.norm(positions[:, atoms, None] - positions[:, None, atoms], axis=-1)
    shape = shape.reshape(len(group), -1)
    for k, a in enumerate(group):
        distance = np.square(shape - shape[k]).sum(axis=1)
        distance[k] = np.inf
        j = int(distance.argmin())
        b = group[j]
        turn = np.eye(3)
        if not a.pbc.any():
            u, _, v = np.linalg.svd(positions[j].T @ positions[k])
            turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))]) @ v
        move = positions[j] @ turn - positions[k]
        assert a.forces is not None
        assert b.forces is not None
        assert a.energy is not None
        assert b.energy is not None
        yield float(-0.5 * np.sum((a.forces + b.forces @ turn) * move)), b.energy - a.energy


def _geometry(data: list[Structure], warnings: list[str]) -> Iterator[str]:
    shortest: dict[tuple[int, int], float] = {}
    where: dict[tuple[int, int], str] = {}
    alone = 0
    for s in data:
        graph = to_graph(s, CUTOFF, (s.fidelity,)).graph
        alone += graph.n_edges == 0
        for pair in shortest_distances(graph, shortest):
            where[pair] = s.source
    names = {pair: "-".join(chemical_symbols[z] for z in pair) for pair in sorted(shortest)}
    shown = ", ".join(f"{name} {shortest[pair]:.3f}" for pair, name in names.items())
    yield f"shortest distances / A: {shown or 'none'}; {alone} structures without neighbours"
    for pair, name in names.items():
        if shortest[pair] < SHORTEST:
            warnings.append(f"{name} at {shortest[pair]:.3f} A in {where[pair]} (in Angstrom?)")


def _duplicates(data: list[Structure], warnings: list[str]) -> None:
    groups = defaultdict(list)
    for s in data:
        moments = np.empty(0) if s.input_magmoms is None else np.nan_to_num(s.input_magmoms)
        geometry = (s.positions.round(DECIMALS), s.cell.round(DECIMALS), moments.round(3))
        key = _bytes(s.numbers, s.pbc, *geometry)
        groups[key, s.charge, s.n_unpaired, s.fidelity].append(s)
    copies = [group for group in groups.values() if len(group) > 1]
    if copies:
        shown = "; ".join(" = ".join(s.source for s in group[:2]) for group in copies[:_LISTED])
        extra = sum(len(group) - 1 for group in copies)
        warnings.append(f"{extra} duplicates: {shown}" + (" ..." if len(copies) > _LISTED else ""))


def _bytes(*arrays: NDArray) -> bytes:
    # adding zero makes -0.0 and 0.0 one number
    return b"".join((array + 0).tobytes() for array in arrays)


def _by(data: list[Structure], name: str) -> dict[str, list[Structure]]:
    groups: dict[str, list[Structure]] = defaultdict(list)
    for structure in data:
        groups[getattr(structure, name)].append(structure)
    return groups
