"""What a run ends with: a picture, a page and a card."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ase_neuralxc.records.files import atomic_write
from mlip import page
from mlip.training.calibration import curve, errors_and_spreads
from mlip.training.checkpoint import ModelCard
from mlip.training.metrics import UNITS, Predictions

#: Largest number of points of a scatter plot.
POINTS = 20000


def draw(
    path: Path,
    history: Sequence[Mapping[str, float]],
    parts: Mapping[str, Predictions],
    card: ModelCard,
) -> None:
    """Learning curve, parity of energies and forces, calibration.

    Args:
        path: PNG file.
        history: rows of the log, empty for an evaluation.
        parts: predictions by part of the data.
        card: with the calibration of the uncertainties.
    """
    figure = Figure(figsize=(10, 8.5), layout="constrained")
    (upper_left, upper_right), (lower_left, lower_right) = figure.subplots(2, 2)
    _learning(upper_left, history)
    _parity(upper_right, parts, "energy", "eV/atom")
    _parity(lower_left, parts, "forces", "eV/Å")
    _calibration(lower_right, parts, card)
    figure.savefig(path, dpi=130)


def write_page(
    path: Path, picture: Path, title: str, card: ModelCard, tables: Mapping[str, Any]
) -> None:
    """One HTML file with the picture inside.

    Args:
        path: the file.
        picture: PNG file.
        title: heading.
        card: of the model.
        tables: title of a table to rows: name to label to figures.
    """
    blocks = [page.paragraph(card.energy_reference), page.picture(picture, "errors")]
    for name, table in tables.items():
        blocks += [page.heading(name), _html_table(table)]
    settings = json.dumps(asdict(card), indent=1, default=str)
    blocks.append(page.preformatted(settings, summary="model card"))
    page.write_html(path, title, blocks)


def write_card(folder: Path, card: ModelCard) -> None:
    """The card as JSON and as Markdown.

    Args:
        folder: of the run.
        card: what to write.
    """
    text = json.dumps(asdict(card), indent=1, sort_keys=True)
    atomic_write(folder / "model_card.json", text.encode())
    lines = ["# Model card", "", f"Energies: {card.energy_reference}", "", "## Data", ""]
    lines += [f"- {name}: {value}" for name, value in card.data.items()]
    for part, table in card.metrics.items():
        lines += ["", f"## Errors: {part}", "", "| label | MAE | RMSE | unit | labels |"]
        lines.append("|---|---:|---:|---|---:|")
        for name, row in table.items():
            unit, factor = UNITS.get(name, ("meV", 1000.0))
            lines.append(
                f"| {name} | {row['mae'] * factor:.3f} | {row['rmse'] * factor:.3f} | {unit} | "
                f"{row['count']:.0f} |"
            )
    lines += ["", "## Uncertainty", ""]
    lines += [
        f"- {name}: spread times {scale:.2f} and {1000 * card.calibration(name).floor:.2f} "
        f"{'meV/atom' if name == 'energy' else 'meV/Å'}, in quadrature"
        for name, scale in card.uncertainty_scale.items()
    ] or ["Not calibrated."]
    lines += ["", "## Shortest distances in the training data (Å)", ""]
    lines += [f"- {pair}: {distance:.3f}" for pair, distance in card.shortest.items()]
    atomic_write(folder / "model_card.md", ("\n".join(lines) + "\n").encode())


def _learning(axes: Axes, history: Sequence[Mapping[str, float]]) -> None:
    axes.set(title="learning curve", xlabel="epoch", ylabel="MAE / meV/atom, meV/Å, ...")
    for name, (unit, factor) in UNITS.items():
        rows = [(row["epoch"], row[f"{name}_mae"]) for row in history if f"{name}_mae" in row]
        if rows:
            epochs, errors = np.array(rows).T
            axes.loglog(epochs, errors * factor, label=f"{name} / {unit}")
    if history:
        axes.legend()


def _parity(axes: Axes, parts: Mapping[str, Predictions], name: str, unit: str) -> None:
    axes.set(title=f"{name} / {unit}", xlabel="label", ylabel="prediction − label")
    for part, made in parts.items():
        if name not in made.predicted:
            continue
        target, predicted = made.target[name], made.predicted[name]
        if name == "energy":
            target, predicted = target / made.n_atoms, predicted / made.n_atoms
        target, error = target.ravel(), (predicted - target).ravel()
        known = np.flatnonzero(np.isfinite(error))
        known = known[:: max(1, len(known) // POINTS)]
        axes.plot(target[known], error[known], ".", markersize=2, label=part, rasterized=True)
    axes.axhline(0.0, color="gray", linewidth=0.8)
    if parts:
        axes.legend(markerscale=5)


def _calibration(axes: Axes, parts: Mapping[str, Predictions], card: ModelCard) -> None:
    axes.set(
        title="uncertainty",
        xlabel="estimated error / eV/atom, eV/Å",
        ylabel="error (rms in bins)",
    )
    limits: list[float] = []
    for part, made in parts.items():
        for name in made.spread:
            error, spread = errors_and_spreads(made, name)
            if part != "train" and len(error):
                estimated, seen = curve(error, card.calibration(name)(spread))
                axes.loglog(estimated, seen, "o-", label=f"{name}, {part}")
                limits += [*estimated, *seen]
    if limits:
        axes.plot([min(limits), max(limits)], [min(limits), max(limits)], color="gray")
        axes.legend()


def _html_table(table: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["<tr><th></th><th>label</th><th>MAE</th><th>RMSE</th><th>unit</th><th>labels</th></tr>"]
    for group, labels in table.items():
        for name, row in labels.items():
            unit, factor = UNITS.get(name, ("meV", 1000.0))
            cells = [group, name, f"{row['mae'] * factor:.3f}", f"{row['rmse'] * factor:.3f}"]
            cells += [unit, f"{row['count']:.0f}"]
            rows.append("<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in cells) + "</tr>")
    return f"<table>{''.join(rows)}</table>"
