"""Forms of functionals on one set of reactions: what they fit, and what they predict.

Every form is trained on the set's reactions alone, with the penalties of `examples/train_xc.yaml`
on the networks and on the kinetic operator, and judged by the folds that were held out, after the
last epoch (not the best). One fold compares forms; all five are a cross-validation.

    python scripts/prepare_xc.py data/w4-17 --out densities --basis def2-tzvpp ...
    OMP_NUM_THREADS=1 python benchmarks/xc_forms.py DATA DENSITIES large hybrid --folds 0 --out runs

Resumable: each run continues in its folder. Records of several calls are joined in
results/xc_forms.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import RESULTS, one_thread, save

from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.trainer import EpochRecord, Trainer

LARGE = {"base": "r2scan", "width": 48, "exchange_width": 32, "depth": 3, "head_scale": 0.0}


@dataclass(frozen=True)
class Form:
    """A form of functional.

    Attributes:
        settings: of the architecture.
        architecture: by name.
    """

    settings: Mapping[str, Any]
    architecture: str = "neural-semilocal"


FORMS = {
    "small": Form({**LARGE, "width": 32, "exchange_width": 24, "depth": 2}),
    "large": Form(LARGE),
    "large, bound 6": Form({**LARGE, "correlation_bound": 6.0}),
    "large, bound 20": Form({**LARGE, "correlation_bound": 20.0}),
    "hybrid": Form({**LARGE, "exchange_fraction": 0.25}),
    "hybrid, bound 20": Form({**LARGE, "exchange_fraction": 0.25, "correlation_bound": 20.0}),
    "coefficient": Form({"width": 32, "depth": 3, "head_scale": 0.0}, "coefficient"),
}


@dataclass(frozen=True)
class Protocol:
    """How the forms are trained.

    Attributes:
        epochs: Gauss-Newton steps.
        smoothness: weight of that penalty.
        kinetic_potential: weight of that penalty.
        dispersion: stored dispersion energy that belongs to the model.
        forms: by name.
    """

    epochs: int = 30
    smoothness: float = 0.1
    kinetic_potential: float = 100.0
    dispersion: str = "d4(r2scan)"
    forms: Mapping[str, Form] = field(default_factory=lambda: FORMS)


def run(name: str, fold: int, arguments: argparse.Namespace, protocol: Protocol) -> dict[str, Any]:
    """Train a form with one fold held out; its errors in kcal/mol."""
    form = protocol.forms[name]
    config = TrainingConfig(
        data=(str(arguments.data),),
        densities=str(arguments.densities),
        out=str(arguments.out / name.replace(", ", "-").replace(" ", "-") / f"fold-{fold}"),
        architecture=form.architecture,
        settings=dict(form.settings),
        dispersion=protocol.dispersion,
        fold=fold,
        epochs=protocol.epochs,
        patience=protocol.epochs,
        smoothness=protocol.smoothness,
        kinetic_potential=protocol.kinetic_potential,
    )
    trainer = Trainer(config)

    def show(record: EpochRecord) -> None:
        print(
            f"{name}, fold {fold}, epoch {record.epoch:3d}: trained {record.training_mae:.3f}, "
            f"held out {record.validation_mae:.3f} kcal/mol",
            flush=True,
        )

    trainer.run(show)
    last = trainer.history[-1]
    return {
        "weights": sum(p.numel() for p in trainer.functional.parameters()),
        "epochs": last.epoch,
        "reactions": [len(trainer.training), len(trainer.validation)],
        "without_densities": trainer.table.missing,
        "trained": round(last.training_mae, 4),
        "held_out": round(last.validation_mae, 4),
    }


def joined(name: str, fold: int, result: Mapping[str, Any], protocol: Protocol) -> dict[str, Any]:
    """A result beside those of earlier calls, with the mean over the reactions of all folds."""
    path = RESULTS / "xc_forms.json"
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    # results of another protocol, or of a form that was changed, are not joined
    same = earlier is not None and earlier["protocol"] == asdict(protocol)
    results = dict(earlier["results"]) if same else {}
    folds = {**results.get(name, {}).get("folds", {}), str(fold): result}
    counts = [each["reactions"][1] for each in folds.values()]
    errors = [each["held_out"] for each in folds.values()]
    mean = sum(n * e for n, e in zip(counts, errors, strict=True)) / sum(counts)
    results[name] = {"folds": folds, "held_out": round(mean, 4), "held_out_reactions": sum(counts)}
    return results


def main(argv: Sequence[str] | None = None) -> None:
    one_thread()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, help="folder of reactions, JSON lines")
    parser.add_argument("densities", type=Path, help="folder written by scripts/prepare_xc.py")
    parser.add_argument("forms", nargs="+", choices=FORMS, metavar="form", help=f"of {[*FORMS]}")
    parser.add_argument("--folds", nargs="+", type=int, default=[0], help="which to hold out")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    arguments = parser.parse_args(argv)
    protocol = Protocol()
    for name in arguments.forms:
        for fold in arguments.folds:
            result = run(name, fold, arguments, protocol)
            save("xc_forms", protocol, joined(name, fold, result, protocol))


if __name__ == "__main__":
    main()
