"""`neuralxc label`: a resumable campaign of single points that become training labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from ase_neuralxc.campaign import collect, label_structures, open_scheduler
from ase_neuralxc.cli.files import emit, read_structures
from ase_neuralxc.cli.options import calculator_keywords
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.io import write_records


def label(arguments: argparse.Namespace) -> int:
    """`neuralxc label`: label structures and gather the labels in one file."""
    keywords = calculator_keywords(arguments)
    for name in ("txt", "label"):
        if name in keywords:
            raise InvalidInputError(
                f"{name}: expected no such option for 'label', where structures run side by side, "
                f"got {keywords[name]!r}"
            )
    images = read_structures(arguments.structure, arguments.index)
    # Only now: a mistyped path must not wait for torch.
    from ase_neuralxc.labeller import NeuralXCLabeller, split_state

    keywords, state_of = split_state(keywords)
    labeller = NeuralXCLabeller(keywords)
    job = dict(arguments.job)
    with open_scheduler(arguments.scheduler, arguments.workers, job) as (executor, workers):
        summary = label_structures(
            images,
            (labeller, labeller.patient()),
            arguments.out,
            state_of,
            workers=workers,
            executor=executor,
            retries=1,
            progress=not arguments.quiet,
        )
    records = collect(arguments.out)
    gathered = Path(arguments.out) / "labels.extxyz"
    if records:
        write_records(gathered, records)
    counts = {
        name: getattr(summary, name) for name in ("n_done", "n_failed", "n_skipped", "n_duplicates")
    }
    failures = {key: failure.reasons[-1] for key, failure in summary.failures.items()}
    lines = [
        f"labelled {summary.n_done}, there before {summary.n_skipped}, failed {summary.n_failed}, "
        f"given twice {summary.n_duplicates}",
        *(f"  {key[:16]}: {reason}" for key, reason in failures.items()),
        f"{len(records)} labels in {gathered}" if records else "no labels",
    ]
    emit(arguments, {**counts, "failures": failures, "file": str(gathered)}, "\n".join(lines))
    return 0 if summary.n_failed == 0 else 1
