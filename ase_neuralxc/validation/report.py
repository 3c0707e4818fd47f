"""A comparison as a table, as JSON, and as a picture."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.validation.comparison import Comparison
from ase_neuralxc.validation.statistics import SubsetErrors, wtmad2


def write_report(comparison: Comparison, folder: str | Path) -> Path:
    """Write `report.md`, `report.json` and `report.png`.

    Args:
        comparison: the functionals.
        folder: an existing folder.

    Returns:
        Path of the table.
    """
    folder = Path(folder)
    atomic_write(folder / "report.json", json.dumps(as_values(comparison), indent=1).encode())
    path = folder / "report.md"
    atomic_write(path, markdown(comparison).encode())
    picture(comparison, folder / "report.png")
    return path


def markdown(comparison: Comparison) -> str:
    """Tables of errors, of the SCFs and of what was left out.

    Args:
        comparison: the functionals.

    Returns:
        Markdown; errors in kcal/mol.
    """
    labels = [c.label for c in comparison.columns]
    n = len(comparison.common)
    n_all = sum(len(one.reactions) for one in comparison.sets)
    protocol = ", ".join(f"{key} {value}" for key, value in comparison.protocol.items())
    parts = [
        f"Errors in kcal/mol over {n} of {n_all} reactions, the same for every column. {protocol}.",
        "Mean absolute errors:\n\n" + _errors(comparison, labels, lambda s: s.mae, totals=True),
        "Mean signed errors:\n\n" + _errors(comparison, labels, lambda s: s.mse, totals=False),
        "WTMAD-2 weighs each reaction with 56.84 kcal/mol over the mean reference energy of its "
        "complete set, and runs over the reactions that were computed.",
    ]
    if any(c.scf for c in comparison.columns):
        parts.append(_scf(comparison))
    if comparison.left_out:
        rows = [[name, str(a), str(b)] for name, (a, b) in comparison.left_out.items()]
        parts.append("Left out:\n\n" + _table(["set", "too large or absent", "not computed"], rows))
    return "\n\n".join(parts) + "\n"


def as_values(comparison: Comparison) -> dict[str, Any]:
    """Everything in the report as JSON values, reaction energies included."""
    columns = {}
    for column in comparison.columns:
        subsets = comparison.subsets[column.label]
        columns[column.label] = {
            "wtmad2": wtmad2(subsets),
            "subsets": {s.name: asdict(s) for s in subsets},
            "scf": None if column.scf is None else asdict(column.scf),
            "reaction_energies": {
                f"{name}/{reaction}": comparison.energies[column.label][name, reaction]
                for name, reaction in comparison.common
            },
        }
    return {
        "protocol": dict(comparison.protocol),
        "n_reactions": len(comparison.common),
        "left_out": {
            name: {"beforehand": before, "not computed": missing}
            for name, (before, missing) in comparison.left_out.items()
        },
        "files": {one.name: one.file_hash for one in comparison.sets},
        "functionals": columns,
    }


def picture(comparison: Comparison, path: str | Path) -> None:
    """Draw the mean absolute errors of all sets.

    Args:
        comparison: the functionals.
        path: image file.
    """
    names = [s.name for s in comparison.subsets[comparison.columns[0].label]]
    figure = Figure(figsize=(7.0, 1.5 + 0.25 * len(names)), layout="constrained")
    axes = figure.subplots()
    rows = np.arange(len(names))
    for column, marker in zip(comparison.columns, _markers(len(comparison.columns)), strict=True):
        subsets = comparison.subsets[column.label]
        label = f"{column.label} ({wtmad2(subsets):.2f})"
        axes.plot([s.mae for s in subsets], rows, marker, label=label, markersize=5)
    axes.set_xscale("log")
    axes.set_yticks(rows, names, fontsize=7)
    axes.invert_yaxis()
    axes.grid(axis="both", linewidth=0.3)
    axes.set_xlabel("mean absolute error / kcal/mol   (WTMAD-2 in brackets)")
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=150)


def _errors(
    comparison: Comparison,
    labels: Sequence[str],
    value: Callable[[SubsetErrors], float],
    totals: bool,
) -> str:
    columns = [comparison.subsets[label] for label in labels]
    rows = [
        [group[0].name, f"{group[0].n}/{group[0].n_all}", *(f"{value(s):.2f}" for s in group)]
        for group in zip(*columns, strict=True)
    ]
    if totals:
        mean = [np.mean([value(s) for s in column]) for column in columns]
        rows.append(["**mean over sets**", "", *(f"{m:.2f}" for m in mean)])
        rows.append(["**WTMAD-2**", "", *(f"{wtmad2(column):.2f}" for column in columns)])
    return _table(["set", "n", *labels], rows)


def _scf(comparison: Comparison) -> str:
    rows, failures = [], []
    seen = set()
    for column in comparison.columns:
        scf = column.scf
        if scf is None or id(scf) in seen:  # one SCF serves several dispersion corrections
            continue
        seen.add(id(scf))
        values = (scf.n, len(scf.failures), scf.median_cycles, scf.most_cycles, scf.hard)
        counts = [f"{v:g}" for v in (*values, scf.second_attempts)]
        rows.append([column.label, *counts, f"{scf.seconds / 60:.1f}"])
        failures += [f"- {column.label}, {name}: {why}" for name, why in scf.failures.items()]
    head = ["functional", "species", "failed", "median cycles", "most", "hard", "second", "minutes"]
    text = "SCFs; *hard* ones needed more than DIIS, *second* ones a second attempt:\n\n" + _table(
        head, rows
    )
    return text + ("\n\nFailures:\n\n" + "\n".join(failures) if failures else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _markers(count: int) -> list[str]:
    shapes = "osD^v<>pX*"
    return [shapes[i % len(shapes)] for i in range(count)]
