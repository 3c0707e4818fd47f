"""Train a functional on reference reactions and stored densities.

python scripts/prepare_xc.py DATA... --out DENSITIES       # once; may still be running
python scripts/train_xc.py examples/train_xc.yaml          # kill it, start it again: it continues
python scripts/train_xc.py examples/train_xc.yaml epochs=10 settings.width=32
"""

from __future__ import annotations

import argparse

from ase_neuralxc.process import guarded
from ase_neuralxc.training.config import load_config
from ase_neuralxc.training.run_report import error_table, write_report
from ase_neuralxc.training.trainer import EpochRecord, Trainer


def show(record: EpochRecord) -> None:
    print(
        f"epoch {record.epoch:4d}  loss {record.loss:8.4f}  MAE {record.training_mae:8.3f}  "
        f"held out {record.validation_mae:8.3f} kcal/mol",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML file, see examples/train_xc.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, settings.key=value")
    arguments = parser.parse_args()
    config = load_config(arguments.config, arguments.overrides)
    for override in arguments.overrides:
        print(f"override: {override}")
    trainer = Trainer(config)
    print(
        f"{len(trainer.training)} reactions to train on, {len(trainer.validation)} held out, "
        f"{trainer.table.missing} without densities"
    )
    functional = trainer.run(show)
    path = write_report(trainer, functional)
    print(error_table(trainer, functional))
    print(f"{path}, with errors.txt, learning.png and parity.png beside it")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("train_xc", main))
