"""One round of a loop: explore, select, label, train. Every arrow is a file.

round-003/
  candidates.extxyz   what the samplers or the walkers found
  walkers.extxyz      where walkers are (on the fly)
  selected.extxyz     what was chosen of it, with selection.json
  labels.extxyz       what DFT said, with failures.json
  model-0/, ...       the training runs of the committee
  stages.json         which of these are finished, and how long they took

A stage writes its files completely or not at all and is then entered in stages.json. A loop that
was killed repeats at most the stage it was in, and that one continues: labelling from its campaign,
training from its last state.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.io import read, write

from ase_neuralxc.campaign import Failure
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records import LabelRecord, read_records, require_single_fidelity, write_records
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.workflows.common import Progress
from mlip.active.labeller import Source, label_all
from mlip.active.ledger import Row, data_hash, weights_hash
from mlip.active.loop_config import LoopConfig
from mlip.active.sampler import SAMPLE_KEY, draw
from mlip.active.selection import select
from mlip.active.walkers import first_walkers, walk
from mlip.calculator import MLIP
from mlip.training.checkpoint import load_potential
from mlip.training.run import MODEL_FILE, evaluate, model_file, resume, train
from mlip.training.trainer import STATE_FILE

#: Takes a line of text for people.
Say = Callable[[str], None]

CANDIDATES, WALKERS, SELECTED = "candidates.extxyz", "walkers.extxyz", "selected.extxyz"
LABELS, FAILURES, SELECTION = "labels.extxyz", "failures.json", "selection.json"
STAGES = ("explore", "select", "label", "train")


@dataclass(frozen=True)
class Context:
    """What all rounds share.

    Attributes:
        config: of the loop.
        source: what labels.
        starts: structures that exploration starts from.
        say: takes lines of text.
        progress: called by the training after every step, or None.
        show_progress: show the bar of the labelling.
    """

    config: LoopConfig
    source: Source
    starts: tuple[Atoms, ...]
    say: Say
    progress: Progress | None = None
    show_progress: bool = False

    @property
    def folder(self) -> Path:
        """Of the loop."""
        return Path(self.config.out)


class Round:
    """One round, from whatever of it is on disk.

    Args:
        context: of the loop.
        number: 0 for the first training, before which there is no potential.
    """

    def __init__(self, context: Context, number: int) -> None:
        self.context, self.number = context, number
        self.folder = context.folder / f"round-{number:03d}"

    @property
    def models(self) -> list[Path]:
        """Files of the committee."""
        members = range(self.context.config.committee)
        return [self.folder / f"model-{member}" / MODEL_FILE for member in members]

    @property
    def seconds(self) -> dict[str, float]:
        """Times of the stages that are finished."""
        path = self.folder / "stages.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def run(self) -> Row:
        """Do what is not done yet.

        Returns:
            The row of the ledger.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        actions = (self._explore, self._select, self._label, self._train)
        for stage, action in zip(STAGES, actions, strict=True):
            done = self.seconds
            if stage in done:
                continue
            self.context.say(f"round {self.number}: {stage}")
            started = time.monotonic()
            action()
            done[stage] = round(time.monotonic() - started, 2)
            atomic_write(self.folder / "stages.json", json.dumps(done).encode())
            self.context.say(f"round {self.number}: {stage} done")
        return self._row()

    def records(self) -> list[LabelRecord]:
        """Labels of this round."""
        path = self.folder / LABELS
        return read_records(path) if path.exists() else []

    def known_records(self) -> list[LabelRecord]:
        """Labels of all rounds up to this one, and those that were given."""
        found = [r for path in self._label_files() for r in read_records(path)]
        if found:
            require_single_fidelity(found)
        return found

    def _previous(self) -> Round | None:
        return Round(self.context, self.number - 1) if self.number else None

    def _potential(self) -> MLIP | None:
        previous = self._previous()
        return None if previous is None else MLIP(previous.models)

    def _explore(self) -> None:
        config, potential = self.context.config, self._potential()
        starts, seed = list(self.context.starts), config.seed * 1000 + self.number
        if potential is None:
            found = draw(config.samplers("initial"), starts, None, seed)
        elif config.on_the_fly is None:
            found = draw(config.samplers("explore"), starts, potential, seed)
        else:
            previous = self._previous()
            before = None if previous is None else previous.folder / WALKERS
            walkers = (
                read_frames(before)
                if before is not None and before.exists()
                else first_walkers(starts, config.on_the_fly)
            )
            walkers, found = walk(walkers, potential, config.on_the_fly, seed)
            write_frames(self.folder / WALKERS, walkers)
        write_frames(self.folder / CANDIDATES, found)

    def _select(self) -> None:
        candidates = read_frames(self.folder / CANDIDATES)
        potential = self._potential()
        if potential is None:
            chosen = candidates
            about: dict[str, Any] = {"uncertain": len(candidates), "largest": None}
        else:
            settings = self.context.config.selection
            if self.context.config.on_the_fly is not None:
                # walkers have asked; a collision asks whatever the uncertainty says
                settings = replace(settings, uncertain_above=0.0, broken_above=None)
            known = [record.to_atoms() for record in self.known_records()]
            selection = select(candidates, potential, known, settings)
            chosen = [candidates[index] for index in selection.indices]
            uncertainties = selection.uncertainties
            about = {
                "uncertain": selection.n_uncertain,
                "largest": float(uncertainties.max()) if len(uncertainties) else None,
                "indices": list(selection.indices),
                "uncertainties": np.round(uncertainties, 6).tolist(),
            }
        write_frames(self.folder / SELECTED, chosen)
        atomic_write(self.folder / SELECTION, json.dumps(about).encode())

    def _label(self) -> None:
        selected = read_frames(self.folder / SELECTED)
        if not selected:
            return
        context = self.context
        answers = label_all(
            selected,
            context.source,
            context.folder / "labels",
            context.config.workers,
            context.show_progress,
        )
        records: dict[str, LabelRecord] = {}
        failures: dict[str, dict[str, Any]] = {}
        for atoms, answer in zip(selected, answers, strict=True):
            if isinstance(answer, Failure):
                about = {"attempts": answer.attempts, "reason": answer.reasons[-1]}
                failures[answer.key] = about
            else:
                records.setdefault(answer.content_hash, _with_origin(answer, atoms))
        if not records:
            reasons = sorted({str(failure["reason"]) for failure in failures.values()})
            raise NeuralXCError(
                f"round {self.number}: all {len(failures)} labels failed: {'; '.join(reasons)}"
            )
        require_single_fidelity([*records.values(), *self.known_records()])
        atomic_write(self.folder / FAILURES, json.dumps(failures, indent=1).encode())
        write_records(self.folder / LABELS, records.values())

    def _train(self) -> None:
        if self.number and not self.records():
            return
        files = tuple(str(path) for path in self._label_files())
        if not files:
            raise InvalidInputError("initial: expected samplers that find structures, got none")
        for member, path in enumerate(self.models):
            folder = path.parent
            config = self.context.config.train_config(str(folder), files, member)
            if path.exists():
                continue
            if (folder / STATE_FILE).exists():
                resume(folder, self.context.say, self.context.progress)
                continue
            if folder.exists():  # killed before its first state
                shutil.rmtree(folder)
            train(config, self.context.say, self.context.progress)

    def _label_files(self) -> list[Path]:
        rounds = [Round(self.context, number) for number in range(self.number + 1)]
        own = [each.folder / LABELS for each in rounds]
        given = [Path(path) for path in self.context.config.labels]
        return [*given, *(path for path in own if path.exists())]

    def _row(self) -> Row:
        selection = json.loads((self.folder / SELECTION).read_text())
        failures = {}
        if (self.folder / FAILURES).exists():
            failures = json.loads((self.folder / FAILURES).read_text())
        records, known = self.records(), self.known_records()
        previous, new_errors = self._previous(), dict[str, float]()
        if previous is not None and records:
            made, _ = evaluate(previous.models[0], str(self.folder / LABELS))
            new_errors = {
                name: float(np.sqrt(np.mean(made.errors(name) ** 2)))
                for name in ("energy", "forces")
            }
        trained = [path for path in self.models if path.exists()]
        valid = load_potential(model_file(trained[0]))[1].metrics["valid"] if trained else {}
        return Row(
            round=self.number,
            candidates=len(read_frames(self.folder / CANDIDATES)),
            uncertain=selection["uncertain"],
            selected=len(read_frames(self.folder / SELECTED)),
            failed=len(failures),
            labels=len(known),
            data_hash=data_hash(known),
            model_hash=weights_hash(trained) if trained else "",
            fidelity=known[0].fidelity.digest if known else "",
            largest_uncertainty=selection["largest"],
            new_errors=new_errors,
            valid_errors={
                name: valid[name]["rmse"] for name in ("energy", "forces") if name in valid
            },
            dft_calls=len(records) + sum(failure["attempts"] for failure in failures.values()),
            seconds=self.seconds,
        )


def write_frames(path: Path, images: Sequence[Atoms]) -> None:
    """Structures as extended XYZ, at once or not at all; none make an empty file.

    Args:
        path: the file.
        images: structures; their calculators are left out.
    """
    stream = StringIO()
    for atoms in images:
        bare = atoms.copy()
        columns = [name for name in bare.arrays if name not in ("numbers", "positions")]
        write(
            stream,
            bare,
            format="extxyz",
            columns=["symbols", "positions", *columns, *(["move_mask"] * bool(bare.constraints))],
        )
    atomic_write(path, stream.getvalue().encode())


def read_frames(path: Path) -> list[Atoms]:
    """What `write_frames` wrote."""
    if path.stat().st_size == 0:
        return []
    found: Any = read(path, index=":", format="extxyz")
    return list(found)


def _with_origin(record: LabelRecord, atoms: Atoms) -> LabelRecord:
    """The label, saying which sampler it is owed to."""
    origin = {
        "config_type": atoms.info.get("config_type", ""),
        SAMPLE_KEY: atoms.info.get(SAMPLE_KEY, {}),
    }
    return replace(record, provenance={**record.provenance, **origin})
