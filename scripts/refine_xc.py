"""Refine a trained functional self-consistently: its own densities, training, and again.

python scripts/refine_xc.py examples/refine_xc.yaml        # kill it, start it again: it continues
python scripts/refine_xc.py examples/refine_xc.yaml rounds=1 training.epochs=5
"""

from __future__ import annotations

import argparse
import os

# Before NumPy is loaded: parallel work is done by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase_neuralxc.process import guarded
from ase_neuralxc.training.refinement import RoundRecord, load_refinement, refine
from ase_neuralxc.training.trainer import EpochRecord


def show_epoch(record: EpochRecord) -> None:
    print(
        f"  epoch {record.epoch:4d}  loss {record.loss:8.4f}  MAE {record.training_mae:8.3f}  "
        f"held out {record.validation_mae:8.3f} kcal/mol",
        flush=True,
    )


def show_round(record: RoundRecord) -> None:
    print(
        f"after {record.round} rounds, at its own densities: MAE {record.training_mae:.3f}, held "
        f"out {record.validation_mae:.3f} kcal/mol; {record.n_species} species, {record.n_failed} "
        f"failed, median of {record.median_cycles:g} SCF cycles",
        flush=True,
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", help="YAML file, see examples/refine_xc.yaml")
    parser.add_argument("overrides", nargs="*", help="key=value, training.key=value")
    arguments = parser.parse_args()
    config = load_refinement(arguments.config, tuple(arguments.overrides))
    for override in arguments.overrides:
        print(f"override: {override}")
    path = refine(config, show_epoch, show_round)
    print(f"{path}, the best of the rounds; rounds.json beside it")
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("refine_xc", main))
