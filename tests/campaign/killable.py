"""Labels 60 structures, slowly enough to be killed: `killable.py DIRECTORY WORKERS`."""

import os
import sys
import time
from pathlib import Path

from ase.build import bulk, molecule

from ase_neuralxc.campaign import EMTLabeller, label_structures


class SlowLabeller(EMTLabeller):
    """Takes a moment and says which process it runs in."""

    def label(self, atoms, state):
        with open(Path(sys.argv[1]) / "pids", "a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.01)
        return super().label(atoms, state)


def images():
    made = []
    for seed in range(30):
        for atoms in (bulk("Cu", cubic=True), molecule("CH3OH")):
            atoms.rattle(0.05, seed=seed)
            made.append(atoms)
    return made


if __name__ == "__main__":
    summary = label_structures(
        images(), SlowLabeller(), sys.argv[1], workers=int(sys.argv[2]), progress=False
    )
    sys.stdout.write(f"{summary.n_done} {summary.n_skipped}\n")
