"""The loop: explore, select, label, train, until the potential is sure or the rounds are over."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from ase_neuralxc.campaign.store import JsonCodec, TaskStore
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import structure_hash
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.workflows import UnconvergedWarning, relax
from ase_neuralxc.workflows.common import Progress
from mlip.active.ledger import Row, table, write_ledger
from mlip.active.loop_config import LoopConfig
from mlip.active.loop_report import write_loop_report
from mlip.active.refinement import RefineReport, distinct_points, refine
from mlip.active.rounds import Context, Round, Say
from mlip.calculator import MLIP, CloseContactWarning

CONFIG_FILE = "loop.json"


@dataclass(frozen=True, eq=False)
class LoopResult:
    """What a loop ends with.

    Attributes:
        rows: of the ledger.
        models: files of the last committee.
        refined: report of the refinement, or None.
        converged: whether the last round found nothing to ask about.
        folder: of the loop.
    """

    rows: tuple[Row, ...]
    models: tuple[Path, ...]
    refined: RefineReport | None
    converged: bool
    folder: Path

    def table(self) -> str:
        """Text: the ledger, and what was refined."""
        parts = [table(self.rows)]
        if self.refined is not None:
            parts.append(self.refined.table())
        return "\n\n".join(parts)


def run_loop(
    config: LoopConfig,
    say: Say = print,
    progress: Progress | None = None,
    starts: Sequence[Atoms] | None = None,
    dft: Any | None = None,
) -> LoopResult:
    """Run a loop, or the rest of one that was killed.

    Args:
        config: of the loop.
        say: takes lines of text for people.
        progress: called by the training after every step.
        starts: structures instead of those in the file `config.starts`.
        dft: what labels, instead of `config.labeller`: a labeller or a calculator of ASE.

    Returns:
        The result; everything else is in the folder.

    Raises:
        InvalidInputError: a folder with another loop, no starts, mixed levels of theory, or a
            model without uncertainties.
        NeuralXCError: all labels of a round failed, or another process runs this loop.
    """
    from mlip.active.labeller import as_source

    context = Context(
        config=config,
        source=config.source() if dft is None else as_source(dft),
        starts=tuple(_read_starts(config) if starts is None else starts),
        say=say,
        progress=progress,
        show_progress=progress is not None,
    )
    folder = context.folder
    # the lock of a campaign that has no tasks: two processes must not share a folder
    store = TaskStore(folder / "lock", "loop", JsonCodec())
    with store.locked():
        _claim(folder, context)
        rows: list[Row] = []
        last, converged = Round(context, 0), False
        for number in range(config.rounds + 1):
            current = Round(context, number)
            rows.append(current.run())
            write_ledger(folder, rows)
            if not rows[-1].model_hash:
                converged = True
                break
            last = current
        say(table(rows))
        refined = _refine(context, last)
        result = LoopResult(tuple(rows), tuple(last.models), refined, converged, folder)
        write_loop_report(result)
        say(f"report: {folder / 'report.html'}")
    return result


def _read_starts(config: LoopConfig) -> list[Atoms]:
    try:
        found = ase.io.read(config.starts, index=":")
    # Readers of foreign formats fail in every way there is, and none of it is our bug.
    except Exception as error:
        raise InvalidInputError(
            f"starts: cannot read {config.starts!r}: {type(error).__name__}: {error}"
        ) from error
    return list(found)


def _claim(folder: Path, context: Context) -> None:
    """Mark the folder as belonging to this configuration and these starts, or refuse it."""
    path = folder / CONFIG_FILE
    states = [context.source.state_of(atoms) for atoms in context.starts]
    hashes = [structure_hash(a, state) for a, state in zip(context.starts, states, strict=True)]
    # through JSON and back, so that both sides have the same types
    wanted = json.loads(json.dumps({**context.config.identity(), "starts": hashes}))
    if not path.exists():
        atomic_write(path, json.dumps(wanted, indent=1).encode())
        return
    found = json.loads(path.read_text())
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        raise InvalidInputError(
            f"out: expected the loop that was started in {str(folder)!r}, got other settings of "
            f"{', '.join(differing)}; use another folder"
        )


def _refine(context: Context, last: Round) -> RefineReport | None:
    """Relax the starts on the final potential and hand the distinct minima to DFT."""
    step = context.config.refine
    if step is None:
        return None
    calc = MLIP(last.models)
    minima = []
    for number, start in enumerate(context.starts):
        atoms = start.copy()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloseContactWarning)
            warnings.simplefilter("ignore", UnconvergedWarning)  # the report shows the forces
            result = relax(atoms, calc, fmax=step.fmax)
        point = result.atoms
        point.info = {**start.info, "name": start.info.get("name", f"start {number}")}
        minima.append(point)
    return refine(
        distinct_points(minima),
        dft=context.source,
        budget=step.budget,
        potential=calc,
        reference=step.reference,
        directory=context.folder / "refine",
        append_to=context.folder / "refine" / "labels.extxyz",
        expect=last.known_records(),
    )
