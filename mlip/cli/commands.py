"""The commands of `mlip`, each from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms
from ase.io import write
from tqdm import tqdm

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows import md as run_md
from ase_neuralxc.workflows import relax as run_relax
from ase_neuralxc.workflows.common import Progress
from mlip.calculator import MLIP
from mlip.cli.options import workflow_keywords
from mlip.data.check import check_structures
from mlip.data.convert import convert_npz
from mlip.data.dataset import iterate_structures
from mlip.data.files import read_structures
from mlip.data.store import SUFFIX, write_store
from mlip.data.structure import DataKeys
from mlip.training.config import read_config
from mlip.training.metrics import text
from mlip.training.report import draw, write_page
from mlip.training.run import evaluate, resume, tables, train

OK = 0
FAILED = 1


def check(arguments: argparse.Namespace) -> int:
    """`mlip check`: what is in a data set and what is wrong with it."""
    paths, keys, weights = list(arguments.data), DataKeys(), None
    if arguments.config is not None:
        config, _ = read_config(arguments.config)
        paths = paths or [*config.data.train]
        keys, weights = config.data.keys, config.loss.weights
        if config.second_stage is not None:
            second = config.second_stage.loss.weights
            weights = {name: max(weight, second[name]) for name, weight in weights.items()}
    if not paths:
        raise InvalidInputError("data: expected files or --config with data.train, got neither")
    structures = iterate_structures(paths, _with_keys(keys, arguments.key))
    bar = tqdm(structures, unit="structure", **_style(arguments))
    report = check_structures(bar, weights)
    _say(report.text())
    return FAILED if report.failures else OK


def convert(arguments: argparse.Namespace) -> int:
    """`mlip convert`: archives to extended XYZ, labelled structures to a mapped file."""
    out, paths = Path(arguments.out), arguments.data
    if Path(paths[0]).suffix == ".npz":
        if len(paths) != 1 or out.suffix not in (".xyz", ".extxyz"):
            raise InvalidInputError(
                f"convert: expected one .npz and an --out ending in .xyz, got {paths} and {out}"
            )
        n = convert_npz(paths[0], out, arguments.energy_unit)
        _say(f"{out}: {n} structures, {arguments.energy_unit} -> eV")
        return OK
    if out.suffix != SUFFIX:
        raise InvalidInputError(f"out: expected a name that ends in {SUFFIX}, got {out.name!r}")
    structures = read_structures(paths, _with_keys(DataKeys(), arguments.key))
    bar = tqdm(structures, unit="structure", **_style(arguments))
    n = write_store(out, bar, arguments.cutoff)
    _say(f"{out}: {n} structures with neighbours up to {arguments.cutoff:g} A")
    return OK


def train_model(arguments: argparse.Namespace) -> int:
    """`mlip train`: a new run."""
    config, changed = read_config(arguments.config, arguments.overrides)
    for line in changed:
        _say(f"override {line}")
    with _bar(arguments, "epoch") as progress:
        train(config, _say, progress)
    return OK


def resume_run(arguments: argparse.Namespace) -> int:
    """`mlip resume`: the rest of a run."""
    with _bar(arguments, "epoch") as progress:
        resume(arguments.run, _say, progress)
    return OK


def evaluate_model(arguments: argparse.Namespace) -> int:
    """`mlip eval`: errors on labelled structures."""
    keys = _with_keys(DataKeys(), arguments.key) if arguments.key else None
    made, card = evaluate(arguments.model, arguments.data, keys, arguments.device)
    found = tables({"eval": made})
    if arguments.out is not None:
        folder = Path(arguments.out)
        folder.mkdir(parents=True, exist_ok=True)
        draw(folder / "report.png", [], {"eval": made}, card)
        title = f"{arguments.model}: {', '.join(arguments.data)}"
        write_page(folder / "report.html", folder / "report.png", title, card, found)
    if arguments.json:
        _say(json.dumps({"command": "eval", **found}, indent=1))
        return OK
    _say(f"energy reference: {card.energy_reference}")
    for name, table in found.items():
        for group, rows in table.items():
            _say(text(f"{name}: {group}", rows))
    return OK


def md(arguments: argparse.Namespace) -> int:
    """`mlip md`: molecular dynamics."""
    atoms = _structure(arguments)
    with _bar(arguments, "step") as progress:
        result = run_md(atoms, _calculator(arguments), progress, **workflow_keywords(arguments))
    _say(result.table())
    _write(arguments, result.frames[-1], result)
    return OK


def relax(arguments: argparse.Namespace) -> int:
    """`mlip relax`: relaxation of positions, and of the cell if asked."""
    atoms = _structure(arguments)
    with _bar(arguments, "step") as progress, warnings.catch_warnings():
        # The table and the exit code say it.
        warnings.simplefilter("ignore", UnconvergedWarning)
        result = run_relax(
            atoms, _calculator(arguments), progress=progress, **workflow_keywords(arguments)
        )
    _say(result.table())
    _write(arguments, result.atoms, result)
    return OK if result.converged else FAILED


def loop(arguments: argparse.Namespace) -> int:
    """`mlip loop`: active learning, or the rest of it."""
    # Only here: the other commands must not wait for the DFT core.
    from mlip.active.loop import run_loop
    from mlip.active.loop_config import read_loop_config

    config = read_loop_config(arguments.config)
    with _bar(arguments, "epoch") as progress:
        result = run_loop(config, _say, None if arguments.quiet else progress)
    if result.refined is not None:
        _say(result.refined.table())
    return OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "check": check,
    "convert": convert,
    "train": train_model,
    "resume": resume_run,
    "eval": evaluate_model,
    "md": md,
    "relax": relax,
    "loop": loop,
}


def _say(line: str) -> None:
    with tqdm.external_write_mode(file=sys.stdout):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _style(arguments: argparse.Namespace) -> dict[str, Any]:
    """How progress is shown; not at all in the first moment, in which most errors come."""
    return {"file": sys.stderr, "disable": arguments.quiet, "leave": False, "delay": 0.3}


@contextmanager
def _bar(arguments: argparse.Namespace, unit: str) -> Iterator[Progress]:
    with tqdm(unit=unit, **_style(arguments)) as bar:

        def report(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.set_postfix_str(message, refresh=False)
            # also without a new unit, so that long epochs show their loss
            bar.update(done - bar.n)

        yield report


def _with_keys(keys: DataKeys, given: list[str]) -> DataKeys:
    """Keys with those of the command line in place."""
    names = [field.name for field in fields(DataKeys)]
    changed: dict[str, Any] = {}
    for text_ in given:
        label, equals, name = text_.partition("=")
        if label not in names:
            raise unknown_name("label", label, names)
        if not equals or not name:
            raise InvalidInputError(f"key: expected LABEL=NAME, got {text_!r}")
        changed[label] = (name,)
    return replace(keys, **changed)


def _structure(arguments: argparse.Namespace) -> Atoms:
    path = arguments.structure
    try:
        found = ase.io.read(path, index=arguments.index)
    # Readers of foreign formats fail in every way there is, and none of it is our bug.
    except Exception as error:
        raise InvalidInputError(
            f"structure: cannot read frame {arguments.index} of {path!r}: {error}"
        ) from error
    if not isinstance(found, Atoms):
        raise InvalidInputError(f"index: expected one frame of {path!r}, got several")
    return found


def _calculator(arguments: argparse.Namespace) -> MLIP:
    calc = MLIP(
        arguments.model,
        device=arguments.device,
        dtype=arguments.dtype,
        fidelity=arguments.fidelity,
    )
    if not arguments.quiet:
        sys.stderr.write(f"{calc!r}\n")
    return calc


def _write(arguments: argparse.Namespace, atoms: Atoms, result: Any) -> None:
    if arguments.out is not None:
        Path(arguments.out).parent.mkdir(parents=True, exist_ok=True)
        write(arguments.out, atoms, format="extxyz")
    if arguments.plot is not None:
        result.plot(arguments.plot)
