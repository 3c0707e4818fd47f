"""A training run from a configuration to a model, a report and a card; its continuation."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records.files import atomic_write
from mlip.data.batching import evaluation_batches
from mlip.data.dataset import Dataset, open_dataset
from mlip.data.structure import DataKeys
from mlip.model.potential import Potential, Wanted
from mlip.training.calibration import calibrate
from mlip.training.checkpoint import ModelCard, load_potential, save_potential, symbol_pairs
from mlip.training.config import build_config
from mlip.training.distributed import Workers
from mlip.training.loss import with_volume
from mlip.training.metrics import (
    Predictions,
    by_config_type,
    by_element,
    predict,
    summary,
    text,
)
from mlip.training.prepare import Prepared, prepare
from mlip.training.report import draw, write_card, write_page
from mlip.training.settings import TrainConfig
from mlip.training.trainer import STATE_FILE, Progress, Trainer

CONFIG_FILE = "config.yaml"
MODEL_FILE = "model.pt"
LOG_FILE = "log.csv"

Say = Callable[[str], None]


def train(config: TrainConfig, say: Say = print, progress: Progress | None = None) -> Path:
    """Train a model in a new folder.

    Args:
        config: of the run.
        say: takes lines of text for people.
        progress: called after every step.

    Returns:
        The model's file.

    Raises:
        InvalidInputError: the folder holds a run already, or the configuration cannot be used.
    """
    folder = Path(config.out)
    if (folder / STATE_FILE).exists() or (folder / MODEL_FILE).exists():
        raise InvalidInputError(
            f"out: {str(folder)!r} holds a run; continue it with `mlip resume {folder}` or choose "
            "another folder"
        )
    config = _absolute(config)
    workers = Workers(config.device)
    prepared = prepare(config)
    trainer = Trainer(config, prepared, workers)
    if workers.leads:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidInputError(f"out: cannot make {str(folder)!r}: {error}") from error
        stored = yaml.safe_dump(config.as_dict(), sort_keys=False)
        atomic_write(folder / CONFIG_FILE, stored.encode())
        trainer.save()
        _describe(prepared, trainer, say)
    return _finish(trainer, say, progress)


def resume(folder: str | Path, say: Say = print, progress: Progress | None = None) -> Path:
    """Continue a run that was interrupted; it ends with the weights it would have had.

    Args:
        folder: of the run.
        say: takes lines of text for people.
        progress: called after every step.

    Returns:
        The model's file.

    Raises:
        InvalidInputError: not the folder of a run.
    """
    path = Path(folder) / CONFIG_FILE
    if not path.is_file():
        raise InvalidInputError(f"run: expected a folder with a {CONFIG_FILE}, got {str(folder)!r}")
    config = replace(build_config(yaml.safe_load(path.read_text())), out=str(folder))
    trainer = Trainer(config, prepare(config), Workers(config.device))
    trainer.restore()
    if trainer.workers.leads:
        say(f"{folder}: continues after epoch {trainer.epoch} of {config.epochs}")
    return _finish(trainer, say, progress)


def evaluate(
    model: str | Path,
    data: str | Path | list[str],
    keys: DataKeys | None = None,
    device: str = "cpu",
) -> tuple[Predictions, ModelCard]:
    """Errors of a model on a data set.

    Args:
        model: the model's file or the folder of its run.
        data: file or files.
        keys: names of the labels; those of the training if None.
        device: torch device.

    Returns:
        Predictions beside labels, and the model's card.
    """
    potential, card = load_potential(model_file(model), device)
    stored = build_config(dict(card.training)) if card.training else TrainConfig()
    paths = [str(path) for path in ([data] if isinstance(data, str | Path) else data)]
    settings = potential.model.settings
    dataset = open_dataset(paths, keys or stored.data.keys, settings.r_max, settings.fidelities)
    return _predict(potential, dataset, stored, device), card


def model_file(path: str | Path) -> Path:
    """The model's file, given itself or the folder of a run."""
    path = Path(path)
    return path / MODEL_FILE if path.is_dir() else path


def tables(parts: Mapping[str, Predictions]) -> dict[str, dict[str, Any]]:
    """Errors of parts of the data, then by group and by element of each part."""
    found: dict[str, dict[str, Any]] = {"errors": {n: summary(made) for n, made in parts.items()}}
    for name, made in parts.items():
        found[f"{name}: by config_type"] = by_config_type(made)
        elements = by_element(made)
        found[f"{name}: forces by element"] = {k: {"forces": v} for k, v in elements.items()}
    return {name: table for name, table in found.items() if table}


def _finish(trainer: Trainer, say: Say, progress: Progress | None) -> Path:
    """Train to the end, then evaluate, calibrate and write everything."""
    folder = Path(trainer.config.out)

    written = -1

    def report(epoch: int, epochs: int, message: str) -> None:
        nonlocal written
        if len(trainer.history) != written:
            written = len(trainer.history)
            write_log(folder / LOG_FILE, trainer.history)
        if progress is not None:
            progress(epoch, epochs, message)

    trainer.run(report)
    if trainer.workers.leads:
        write_log(folder / LOG_FILE, trainer.history)
        _conclude(trainer, folder, say)
    trainer.workers.close()
    return folder / MODEL_FILE


def _conclude(trainer: Trainer, folder: Path, say: Say) -> None:
    config, prepared = trainer.config, trainer.prepared
    potential = trainer.final_potential()
    device = str(trainer.workers.device)
    parts = {"valid": _predict(potential, prepared.valid, config, device)}
    if config.data.test:
        settings = prepared.settings
        test = open_dataset(config.data.test, config.data.keys, settings.r_max, settings.fidelities)
        parts["test"] = _predict(potential, test, config, device)
    calibration = calibrate(parts["valid"])
    statistics = prepared.statistics
    card = ModelCard(
        energy_reference=config.data.energy_reference or _reference(prepared),
        shortest=symbol_pairs(statistics.shortest),
        uncertainty_scale={name: each.scale for name, each in calibration.items()},
        uncertainty_floor={name: each.floor for name, each in calibration.items()},
        data={
            "training structures": len(prepared.train),
            "validation structures": len(prepared.valid),
            "training labels": dict(statistics.counts),
            "reference energies": [fit.text() for fit in prepared.fits],
            "files": list(config.data.train),
        },
        metrics={name: summary(made) for name, made in parts.items()},
        training=config.as_dict(),
    )
    save_potential(folder / MODEL_FILE, potential, card)
    write_card(folder, card)
    draw(folder / "report.png", trainer.history, parts, card)
    write_page(folder / "report.html", folder / "report.png", folder.name, card, tables(parts))
    for name, made in parts.items():
        say(text(name, summary(made)))
    say(f"model: {folder / MODEL_FILE}; report: {folder / 'report.html'}")


def _predict(potential: Potential, data: Dataset, config: TrainConfig, device: str) -> Predictions:
    settings = potential.model.settings
    labels = [config.loss, *([config.second_stage.loss] if config.second_stage else [])]
    wanted = Wanted(
        forces=True,
        stress=any(loss.stress for loss in labels),
        magnetic_forces=any(loss.magnetic_forces for loss in labels),
        uncertainty=settings.ensemble > 1,
    )
    batches = (item.to(device) for item in evaluation_batches(data, config.batch))
    return predict(potential, map(with_volume, batches) if wanted.stress else batches, wanted)


def write_log(path: Path, history: list[dict[str, float]]) -> None:
    """The rows of a run as CSV, at once or not at all.

    Args:
        path: the file.
        history: rows, whose columns may differ.
    """
    columns = list(dict.fromkeys(name for row in history for name in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    atomic_write(path, stream.getvalue().encode())


def _describe(prepared: Prepared, trainer: Trainer, say: Say) -> None:
    n = sum(p.numel() for p in trainer.potential.parameters() if p.requires_grad)
    say(
        f"{len(prepared.train)} training and {len(prepared.valid)} validation structures; "
        f"{n} parameters; {prepared.statistics.average_neighbours:.1f} neighbours per atom"
    )
    for fit in prepared.fits:
        say(fit.text())


def _reference(prepared: Prepared) -> str:
    levels = prepared.settings.fidelities
    return "level of theory " + ", ".join(levels) if levels else "not stated"


def _absolute(config: TrainConfig) -> TrainConfig:
    """Paths that mean the same from every folder, for `resume`."""

    def resolved(paths: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(Path(path).resolve()) for path in paths)

    data = config.data
    start = None if config.start is None else str(model_file(config.start).resolve())
    train, valid, test = resolved(data.train), resolved(data.valid), resolved(data.test)
    return replace(config, start=start, data=replace(data, train=train, valid=valid, test=test))
