"""The potential as a calculator of ASE."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import full_3x3_to_voigt_6_stress
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.data.batching import BatchSettings, pack
from mlip.data.dataset import MemoryDataset
from mlip.data.graph import AtomGraph
from mlip.data.labelled import LabelledGraph, assemble, collate_labelled, fidelity_index, to_graph
from mlip.data.neighbours import SkinNeighbours
from mlip.data.structure import Structure
from mlip.evaluation import Committee, shortest_table
from mlip.training.checkpoint import load_potential

#: What of `atoms.info` is an input of the model.
STATE = ("charge", "multiplicity", "spin_polarised")
#: A pair of elements is warned of again when it has come this much closer, in Angstrom.
CLOSER = 0.1


class CloseContactWarning(UserWarning):
    """Atoms are closer than any in the training data: the potential extrapolates."""


class LazyResults(dict[str, Any]):
    """Results, some of which are computed when they are first read.

    Args:
        values: known results.
        later: functions that compute the others.
    """

    def __init__(self, values: Mapping[str, Any], later: Mapping[str, Callable[[], Any]]) -> None:
        super().__init__(values)
        self._later = dict(later)

    def __missing__(self, key: str) -> Any:
        if key not in self._later:
            raise KeyError(key)
        self[key] = self._later.pop(key)()
        return self[key]

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._later

    def get(self, key: str, default: Any = None) -> Any:
        """The result, or a default if there is none."""
        try:
            return self[key]
        except KeyError:
            return default


class MLIP(Calculator):
    """A trained potential, or a committee of several.

    Charge, multiplicity and spin polarisation are read from `atoms.info` ("charge",
    "multiplicity", "spin_polarised"), moments that are an input of the model from the initial
    magnetic moments. Beside ASE's properties, `results` has "energy_uncertainty" and
    "magnetic_forces" where the model gives them, and "forces_uncertainty" [n], which is computed
    when it is read.

    Args:
        model: file of a model or folder of its run; several are averaged.
        device: torch device, for the potential and the edges.
        dtype: "float32" or "float64"; that of the training if None.
        skin: in Angstrom, of the neighbour list; 0 searches at every step.
        fidelity: level of theory, for models that know several.
        **options: of ASE's Calculator.

    Attributes:
        paths: the files or folders.
        committee: the potentials.

    Raises:
        CheckpointError: a file that is no model.
        InvalidInputError: models whose energies do not compare, or an unknown fidelity.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", "energies", "magmoms"]
    default_parameters: dict[str, Any] = {}

    def __init__(
        self,
        model: str | Path | Sequence[str | Path],
        device: str = "cpu",
        dtype: str | None = None,
        skin: float = 0.5,
        fidelity: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.paths = [Path(p) for p in ([model] if isinstance(model, str | Path) else model)]
        files = [path / "model.pt" if path.is_dir() else path for path in self.paths]
        loaded = [load_potential(path, device, dtype) for path in files]
        self.committee = Committee(tuple(p for p, _ in loaded), tuple(c for _, c in loaded))
        self.device, self.skin = torch.device(device), skin
        settings = self.committee.potentials[0].model.settings
        self._fidelities = settings.fidelities
        self._level = fidelity_index(fidelity or "", settings.fidelities, "MLIP")
        self._uses_moments = settings.moments != "none"
        self._neighbours = SkinNeighbours(self.committee.r_max, skin, device)
        shortest: dict[str, float] = {}
        for card in self.committee.cards:
            for pair, distance in card.shortest.items():
                shortest[pair] = max(distance, shortest.get(pair, 0.0))
        self._shortest = shortest_table(shortest, settings.elements).to(self.device)
        self._place = torch.zeros(119, dtype=torch.long, device=self.device)
        self._place[list(settings.elements)] = torch.arange(
            len(settings.elements), device=self.device
        )
        self._state: tuple[Any, ...] | None = None

    @property
    def has_uncertainty(self) -> bool:
        """Whether `results` has uncertainties: several readouts or several models."""
        return self.committee.has_uncertainty

    @property
    def energy_reference(self) -> str:
        """What the energies mean, in words."""
        return self.committee.cards[0].energy_reference

    def __repr__(self) -> str:
        elements = " ".join(chemical_symbols[z] for z in self.committee.elements)
        level = f", fidelity {self._fidelities[self._level]}" if self._fidelities else ""
        return (
            f"MLIP({', '.join(map(str, self.paths))}; elements {elements}; energy reference: "
            f"{self.energy_reference}{level}; {self.device})"
        )

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What has changed since the last calculation; ASE does not look at `atoms.info`."""
        changes: list[str] = super().check_state(atoms, tol)
        if not changes and self._state is not None and _state(atoms) != self._state:
            changes.append("info")
        return changes

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute everything for `atoms`; called by ASE.

        Args:
            atoms: the structure.
            properties: what ASE asks for.
            system_changes: what is new since the last call.

        Raises:
            InvalidInputError: no atom, an unknown element, positions that are not finite, or
                missing moments.
        """
        super().calculate(atoms, list(properties), list(system_changes))
        current: Atoms = self.atoms
        # Taken before anything can fail, so that a failed calculation is not mistaken for this one.
        self._state = _state(current)
        structure = self._structure(current)
        edges, shifts = self._neighbours.update(current.positions, current.cell.array, current.pbc)
        empty = np.empty((2, 0), dtype=np.int64), np.empty((0, 3))
        graph = assemble(structure, *empty, self._level).graph.to(self.device)
        graph = replace(graph, edge_index=edges, shifts=shifts)
        self._warn_close(graph)
        out = self.committee.compute(graph, stress=_has_volume(current))
        (values,) = _split(out, graph)
        self.results = LazyResults(
            values,
            {"forces_uncertainty": lambda: _numpy(self.committee.forces_uncertainty(graph))},
        )

    def evaluate(
        self, images: Sequence[Atoms], batch_atoms: int = 2000, uncertainty: bool = False
    ) -> list[dict[str, Any]]:
        """Results of many structures, in batches.

        Args:
            images: structures; their calculators are not touched.
            batch_atoms: largest number of atoms in a batch.
            uncertainty: compute "forces_uncertainty" too.

        Returns:
            For each structure what `results` would be.
        """
        found: list[dict[str, Any]] = [{} for _ in images]
        for indices, batch, stress in self._batches(images, batch_atoms):
            self._warn_close(batch)
            out = self.committee.compute(batch, stress)
            if uncertainty:
                out["forces_uncertainty"] = self.committee.forces_uncertainty(batch)
            for index, values in zip(indices, _split(out, batch), strict=True):
                found[index] = values
        return found

    def features(self, images: Sequence[Atoms], batch_atoms: int = 2000) -> list[NDArray]:
        """Invariants of the atoms of many structures, in which likeness can be measured.

        Args:
            images: structures; their calculators are not touched.
            batch_atoms: largest number of atoms in a batch.

        Returns:
            For each structure [n, f], the numbers that the model makes atomic energies of.
        """
        found: list[NDArray] = [np.empty(0) for _ in images]
        for indices, batch, _ in self._batches(images, batch_atoms):
            parts = {"features": self.committee.features(batch)}
            for index, values in zip(indices, _per_structure(parts, batch), strict=True):
                found[index] = values["features"]
        return found

    def _batches(
        self, images: Sequence[Atoms], batch_atoms: int
    ) -> Iterator[tuple[NDArray, AtomGraph, bool]]:
        """Indices and graphs of batches, those of structures with a volume apart."""
        items = [to_graph(self._structure(atoms), self.committee.r_max) for atoms in images]
        items = [_with_level(item, self._level) for item in items]
        with_cell = np.array([_has_volume(atoms) for atoms in images], dtype=bool)
        limits = BatchSettings(structures=None, atoms=batch_atoms)
        for stress in (False, True):
            chosen = np.flatnonzero(with_cell == stress)
            if not len(chosen):
                continue
            for indices in pack(chosen, MemoryDataset(items), limits):
                batch = collate_labelled([items[i] for i in indices]).graph.to(self.device)
                yield indices, batch, stress

    def _structure(self, atoms: Atoms) -> Structure:
        if len(atoms) == 0:
            raise InvalidInputError("atoms: expected at least one atom, got an empty structure")
        self.committee.check_elements(atoms.numbers)
        charge, multiplicity, polarised = _state(atoms)
        moments = None
        if self._uses_moments and atoms.has("initial_magmoms"):
            moments = atoms.get_initial_magnetic_moments()
        return Structure(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            input_magmoms=moments,
            charge=None if charge is None else float(charge),
            n_unpaired=None if multiplicity is None else float(multiplicity) - 1.0,
            spin_polarised=None if polarised is None else bool(polarised),
            source="atoms",
        )

    def _warn_close(self, graph: AtomGraph) -> None:
        if not graph.n_edges:
            return
        place = self._place.index_select(0, graph.numbers)
        pairs = place.index_select(0, graph.edge_index[0]) * len(self._shortest)
        pairs = pairs + place.index_select(0, graph.edge_index[1])
        distances = graph.edge_vectors().square().sum(1).sqrt()
        allowed = self._shortest.view(-1).index_select(0, pairs)
        close = (distances < allowed).nonzero().squeeze(1)
        if not len(close):
            return
        edge = close[(distances - allowed)[close].argmin()]
        sender, receiver = (int(i) for i in graph.edge_index[:, edge])
        distance, limit = float(distances[edge]), float(allowed[edge])
        a, b = (chemical_symbols[int(graph.numbers[i])] for i in (sender, receiver))
        # Warned of once, and again when it has become clearly worse: not at every step.
        self._shortest.view(-1)[pairs[edge]] = min(limit, distance) - CLOSER
        back = place[receiver] * len(self._shortest) + place[sender]
        self._shortest.view(-1)[back] = min(limit, distance) - CLOSER
        warnings.warn(
            f"{a} and {b} (atoms {sender} and {receiver}) are {distance:.3f} A apart, closer than "
            f"{limit:.3f} A, the shortest in the training data",
            CloseContactWarning,
            stacklevel=3,
        )


def _state(atoms: Atoms) -> tuple[Any, ...]:
    return tuple(atoms.info.get(name) for name in STATE)


def _has_volume(atoms: Atoms) -> bool:
    return bool(atoms.cell.rank == 3)


def _with_level(item: LabelledGraph, level: int) -> LabelledGraph:
    fidelity = torch.full_like(item.graph.fidelity, level)
    return replace(item, graph=replace(item.graph, fidelity=fidelity))


def _numpy(value: Tensor) -> NDArray:
    array: NDArray = value.double().cpu().numpy()
    return array


def _per_structure(out: Mapping[str, Tensor], graph: AtomGraph) -> list[dict[str, Any]]:
    """The rows of each structure of a batch."""
    counts = graph.atoms_per_graph.tolist()
    bounds = np.cumsum([0, *counts])
    arrays = {name: _numpy(value) for name, value in out.items()}
    per_graph = ("energy", "energy_uncertainty", "stress")
    found = []
    for index in range(graph.n_graphs):
        atoms = slice(bounds[index], bounds[index + 1])
        found.append(
            {name: array[index if name in per_graph else atoms] for name, array in arrays.items()}
        )
    return found


def _split(out: Mapping[str, Tensor], graph: AtomGraph) -> list[dict[str, Any]]:
    """Results of each structure of a batch, as ASE has them."""
    found = []
    for values in _per_structure(out, graph):
        for name in ("energy", "energy_uncertainty"):
            if name in values:
                values[name] = float(values[name])
        values["free_energy"] = values["energy"]
        if "stress" in values:
            values["stress"] = full_3x3_to_voigt_6_stress(values["stress"])
        found.append(values)
    return found
