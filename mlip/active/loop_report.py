"""The picture and the page of a loop."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import new_figure, save_figure
from mlip import page
from mlip.active.ledger import Row, table

if TYPE_CHECKING:
    from mlip.active.loop import LoopResult


def plot_ledger(rows: tuple[Row, ...], path: Path) -> Path:
    """Draw errors and the number of labels over the rounds.

    Args:
        rows: of the ledger.
        path: target file.

    Returns:
        The path.
    """
    figure, (above, below) = new_figure(rows=2)
    rounds = [row.round for row in rows]
    for name, marker in (("forces", "o-"), ("energy", "s-")):
        unit = "meV/Å" if name == "forces" else "meV/atom"
        for attribute, word, line in (
            ("new_errors", "new data", marker),
            ("valid_errors", "validation", marker.replace("-", ":")),
        ):
            points = [
                (row.round, 1000.0 * getattr(row, attribute)[name])
                for row in rows
                if name in getattr(row, attribute)
            ]
            if points:
                x, y = zip(*points, strict=True)
                above.semilogy(x, y, line, label=f"{name}, {word} / {unit}")
    asked = [
        (row.round, 1000.0 * row.largest_uncertainty)
        for row in rows
        if row.largest_uncertainty is not None
    ]
    if asked:
        x, y = zip(*asked, strict=True)
        above.semilogy(x, y, "^--", color="gray", label="largest expected force error / meV/Å")
    above.set_ylabel("rms error")
    above.legend(fontsize=7)
    below.bar(rounds, [row.labels for row in rows], color="lightgray", label="labels")
    below.bar(rounds, [row.dft_calls for row in rows], color="tab:blue", label="DFT of the round")
    below.set_xticks(rounds)
    below.set_xlabel("round")
    below.set_ylabel("structures")
    below.legend(fontsize=7)
    return save_figure(figure, path)


def write_loop_report(result: LoopResult) -> Path:
    """Write report.png and report.html into the folder of a loop.

    Args:
        result: of the loop.

    Returns:
        The page.
    """
    folder = result.folder
    ending = "it found nothing left to ask about" if result.converged else "all rounds were used"
    models = ", ".join(str(path) for path in result.models)
    seconds: dict[str, float] = {}
    for row in result.rows:
        for stage, value in row.seconds.items():
            seconds[stage] = seconds.get(stage, 0.0) + value
    times = ", ".join(f"{stage} {value:.0f} s" for stage, value in seconds.items())
    blocks = [
        page.paragraph(f"{len(result.rows)} rounds: {ending}. Times: {times}."),
        page.picture(plot_ledger(result.rows, folder / "report.png"), "errors and labels by round"),
        page.preformatted(table(result.rows)),
        page.paragraph(f"Models: {models}"),
    ]
    if result.refined is not None:
        blocks.append(page.heading("Minima, refined with DFT"))
        try:
            diagram = result.refined.diagram(folder / "diagram.png")
            blocks.append(page.picture(diagram, "energy diagram"))
        except InvalidInputError as error:
            blocks.append(page.paragraph(f"No diagram: {error}"))
        blocks.append(page.preformatted(result.refined.table()))
    target = folder / "report.html"
    page.write_html(target, f"Loop {folder.name}", blocks)
    return target
