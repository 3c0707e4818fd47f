"""Errors of a potential on a data set: by label, by element and by group of structures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from mlip.data.labelled import LabelledGraph
from mlip.data.structure import LABELS
from mlip.model.potential import Potential, Wanted

#: Units and factors from eV to what tables show.
UNITS = {
    "energy": ("meV/atom", 1000.0),
    "forces": ("meV/A", 1000.0),
    "stress": ("meV/A^3", 1000.0),
    "magmoms": ("mu_B", 1.0),
    "magnetic_forces": ("meV/mu_B", 1000.0),
}


@dataclass(eq=False)
class Predictions:
    """Predictions and labels of a data set, with what the tables group them by.

    Attributes:
        predicted: by label; energies [g] in eV, forces [n, 3], stress [g, 9], others [n] or [n, 3].
        target: the labels, NaN where missing.
        spread: "energy" [g] and "forces" [n] standard deviations, where the model gives them.
        n_atoms: [g].
        numbers: [n] atomic numbers.
        graph_of: [n] structure of each atom.
        config_types: [g].
    """

    predicted: dict[str, NDArray] = field(default_factory=dict)
    target: dict[str, NDArray] = field(default_factory=dict)
    spread: dict[str, NDArray] = field(default_factory=dict)
    n_atoms: NDArray = field(default_factory=lambda: np.empty(0, dtype=int))
    numbers: NDArray = field(default_factory=lambda: np.empty(0, dtype=int))
    graph_of: NDArray = field(default_factory=lambda: np.empty(0, dtype=int))
    config_types: tuple[str, ...] = ()

    def errors(self, name: str) -> NDArray:
        """Errors of a label where it is present: [m] energies per atom, else rows of components."""
        error = self.predicted[name] - self.target[name]
        if name == "energy":
            error = error / self.n_atoms
        kept: NDArray = error.reshape(len(error), -1)[self.known(name)]
        return kept

    def known(self, name: str) -> NDArray:
        """[g] or [n] whether a structure or an atom has a label."""
        target = self.target[name]
        # Of the label, not of the error: a prediction that is not finite must be seen.
        found: NDArray = np.isfinite(target.reshape(len(target), -1)).all(axis=1)
        return found


def predict(potential: Potential, batches: Iterable[LabelledGraph], wanted: Wanted) -> Predictions:
    """Run a potential over labelled structures.

    Args:
        potential: in evaluation mode.
        batches: on the device of the potential.
        wanted: what to compute.

    Returns:
        The predictions with their labels.
    """
    columns: dict[tuple[str, str], list[NDArray]] = {}
    n_atoms, numbers, graph_of, config_types = [], [], [], list[str]()
    for item in batches:
        results = potential(item.graph, wanted)
        for name in LABELS:
            if name in results:
                value = _array(results[name], name)
                target = _array(getattr(item.labels, name), name)
                if target.shape != value.shape and not np.isfinite(target).any():
                    target = np.full_like(value, np.nan)
                columns.setdefault(("predicted", name), []).append(value)
                columns.setdefault(("target", name), []).append(target)
        for name in ("energy", "forces"):
            if f"{name}_uncertainty" in results:
                spread = _array(results[f"{name}_uncertainty"], "")
                columns.setdefault(("spread", name), []).append(spread)
        graph_of.append(item.graph.batch.cpu().numpy() + len(config_types))
        n_atoms.append(item.graph.atoms_per_graph.cpu().numpy())
        numbers.append(item.graph.numbers.cpu().numpy())
        config_types += item.config_types
    made = Predictions(
        n_atoms=np.concatenate(n_atoms),
        numbers=np.concatenate(numbers),
        graph_of=np.concatenate(graph_of),
        config_types=tuple(config_types),
    )
    for (kind, name), parts in columns.items():
        getattr(made, kind)[name] = np.concatenate(parts)
    return made


def summary(made: Predictions) -> dict[str, dict[str, float]]:
    """Mean absolute and root mean square errors of each label that is present, in eV units.

    Args:
        made: predictions.

    Returns:
        Label to {"mae", "rmse", "count"}; the energy per atom, and "energy_total" per structure.
    """
    table = {}
    for name in made.predicted:
        error = made.errors(name)
        if len(error):
            table[name] = _figures(error)
        if name == "energy" and len(error):
            total = made.predicted[name] - made.target[name]
            table["energy_total"] = _figures(total[made.known(name)])
    return table


def by_element(made: Predictions) -> dict[str, dict[str, float]]:
    """Force errors of each element."""
    if "forces" not in made.predicted:
        return {}
    error = made.predicted["forces"] - made.target["forces"]
    table = {}
    for z in np.unique(made.numbers):
        chosen = error[(made.numbers == z) & made.known("forces")]
        if len(chosen):
            table[chemical_symbols[z]] = _figures(chosen)
    return table


def by_config_type(made: Predictions) -> dict[str, dict[str, dict[str, float]]]:
    """Energy and force errors of each group of structures."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    names = np.array(made.config_types)
    for group in sorted(set(made.config_types)):
        row = {}
        energy = (made.predicted["energy"] - made.target["energy"]) / made.n_atoms
        energy = energy[(names == group) & made.known("energy")]
        if len(energy):
            row["energy"] = _figures(energy)
        if "forces" in made.predicted:
            error = made.predicted["forces"] - made.target["forces"]
            error = error[(names == group)[made.graph_of] & made.known("forces")]
            if len(error):
                row["forces"] = _figures(error)
        if row:
            table[group or "(none)"] = row
    return table


def text(title: str, table: dict[str, dict[str, float]]) -> str:
    """A table for people.

    Args:
        title: first line.
        table: of `summary`.

    Returns:
        One line per label.
    """
    lines = [f"{title:24} {'MAE':>10} {'RMSE':>10}  {'unit':9} {'labels':>8}"]
    for name, row in table.items():
        unit, factor = UNITS.get(name, ("meV", 1000.0))
        lines.append(
            f"{name:24} {row['mae'] * factor:10.3f} {row['rmse'] * factor:10.3f}  {unit:9} "
            f"{row['count']:8.0f}"
        )
    return "\n".join(lines)


def _array(value: Any, name: str) -> NDArray:
    array: NDArray = value.detach().double().cpu().numpy()
    return array.reshape(len(array), 9) if name == "stress" else array


def _figures(error: NDArray) -> dict[str, float]:
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "count": float(len(error)),
    }
