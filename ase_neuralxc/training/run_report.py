"""What a training run leaves for people: tables, pictures and the card of the functional."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from ase_neuralxc.functional import save_checkpoint
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.training.exactness import residuals
from ase_neuralxc.training.losses import errors_by_set
from ase_neuralxc.training.reactions import find_reactions
from ase_neuralxc.training.trainer import Trainer


def write_report(trainer: Trainer, functional: Any) -> Path:
    """Write checkpoint with card, table of errors and pictures into the folder of the run.

    Args:
        trainer: after its run.
        functional: with the weights that are kept.

    Returns:
        Path of the checkpoint.
    """
    table = error_table(trainer, functional)
    (trainer.out / "errors.txt").write_text(table + "\n", encoding="utf-8")
    _curves(trainer, trainer.out / "learning.png")
    _parity(trainer, functional, trainer.out / "parity.png")
    path = trainer.out / f"{trainer.config.name}.safetensors"
    save_checkpoint(path, functional, card(trainer, functional))
    return path


def error_table(trainer: Trainer, functional: XCFunctional) -> str:
    """Errors of the starting functional and of the trained one, set by set.

    Args:
        trainer: after its run.
        functional: the trained functional.

    Returns:
        Text; errors in kcal/mol on stored densities.
    """
    lines = [f"{'set':28} {'use':11} {'n':>5} {'MAE start':>10} {'MAE':>8} {'MSE':>8}"]
    for use, names, ours, start in _errors(trainer, functional):
        for name, (count, mae, mse) in ours.items():
            before = start[name][1]
            lines.append(f"{name:28} {use:11} {count:5d} {before:10.3f} {mae:8.3f} {mse:8.3f}")
        if names:
            mean, before = (np.mean([v[1] for v in e.values()]) for e in (ours, start))
            lines.append(f"{'mean over sets':28} {use:11} {names:5d} {before:10.3f} {mean:8.3f}")
    return "\n".join(lines)


def card(trainer: Trainer, functional: XCFunctional) -> dict[str, Any]:
    """Fields of the functional's card.

    Args:
        trainer: after its run.
        functional: the trained functional.

    Returns:
        Fields of `FunctionalCard`: data hashes, settings, errors per set, constraints.
    """
    config = trainer.config
    files = {one.name: one.file_hash for one in find_reactions(config.data)}
    density = trainer.table.densities[0]
    errors = {
        use: {name: {"n": n, "mae": mae, "mse": mse} for name, (n, mae, mse) in ours.items()}
        for use, _, ours, _ in _errors(trainer, functional)
    }
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    dispersion = config.dispersion
    return {
        "name": config.name,
        "method": "reference reaction energies of the training sets",
        "training_data_hash": digest,
        "dispersion": None if dispersion is None else dispersion.rstrip(")").replace("(", ":"),
        "basis": str(density.fidelity.basis),
        "grid_level": 3,
        "density_fit": True,
        "description": f"{config.architecture}, trained on {len(trainer.training)} reactions",
        "extra": {
            "config": asdict(config)
            | {
                "data": sorted(files),
                "densities": "",
                "fine_densities": None if config.fine_densities is None else "",
                "grid_noise": list(config.grid_noise.values()),
                "out": "",
                "start": None if config.start is None else Path(config.start).name,
            },
            "files": files,
            "densities": density.fidelity.to_dict(),
            "epochs": len(trainer.history),
            "errors_on_stored_densities_kcal_mol": errors,
            # measured on points of model densities, of which a nonlocal functional makes nothing
            "constraints": (
                {r.name: r.value for r in residuals(functional)}
                if isinstance(functional, SemilocalFunctional)
                else {}
            ),
        },
    }


def _errors(trainer: Trainer, functional: XCFunctional) -> list[tuple[str, int, Any, Any]]:
    """Use, number of sets, errors of the functional and of the start, by set."""
    out = []
    starting = trainer.table.starting_energies().numpy()
    references = trainer.table.references.numpy()
    for use, indices in (("training", trainer.training), ("validation", trainer.validation)):
        sets = [trainer.table.sets[i] for i in indices]
        ours = errors_by_set(trainer.energies(functional, indices), references[indices], sets)
        start = errors_by_set(starting[indices], references[indices], sets)
        out.append((use, len(ours), ours, start))
    return out


def _curves(trainer: Trainer, path: Path) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    epochs = [r.epoch for r in trainer.history]
    axes.semilogy(epochs, [r.training_mae for r in trainer.history], label="training")
    if trainer.validation:
        axes.semilogy(epochs, [r.validation_mae for r in trainer.history], label="held out")
    axes.set(xlabel="epoch", ylabel="mean absolute error / kcal/mol")
    axes.legend()
    figure.savefig(path, dpi=150)


def _parity(trainer: Trainer, functional: XCFunctional, path: Path) -> None:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    references = trainer.table.references.numpy()
    for label, indices in (("training", trainer.training), ("held out", trainer.validation)):
        if indices:
            errors = trainer.energies(functional, indices) - references[indices]
            axes.plot(references[indices], errors, ".", markersize=4, label=label)
    axes.axhline(0.0, color="gray", linewidth=0.8)
    axes.set_xscale("symlog", linthresh=10.0)
    axes.set(xlabel="reference / kcal/mol", ylabel="error / kcal/mol")
    axes.legend()
    figure.savefig(path, dpi=150)
