"""Speed and memory of one potential, in the environment of its own package; called by mlip_speed.

    python mlip_speed_worker.py CONTENDER TASK

Prints one line of JSON. Times are processor seconds, peaks are resident sets. Imports nothing that
a peer's environment may lack.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from statistics import median
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule
from mlip_speed_contenders import CONTENDERS, Step, numbers_of, ours

BATCH = 4
#: Training steps that are timed together: our optimiser has more to do in every tenth.
UPDATE = 10


def copper(repeats: tuple[int, int, int]) -> Atoms:
    """Displaced fcc copper, 4 atoms times the repeats."""
    atoms = bulk("Cu", cubic=True) * repeats
    atoms.rattle(0.05, seed=1)
    return atoms


def water(side: int = 4) -> Atoms:
    """side^3 molecules of random orientation at the density of liquid water."""
    length = side * (1.0 / 0.0334) ** (1.0 / 3.0)
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[length] * 3, pbc=True)
    for place in np.ndindex(side, side, side):
        single = molecule("H2O")
        single.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        single.translate(np.array(place) * length / side + 0.1 * rng.normal(size=3))
        atoms += single
    return atoms


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(step: Step, seconds: float = 3.0, together: int = 1) -> dict[str, float]:
    """Processor time of a step: five at least, then as many as fit, each the mean of `together`."""
    for _ in range(3):
        step()
    times: list[float] = []
    while len(times) < 5 or (sum(times) * together < seconds and len(times) < 100):
        start = time.process_time()
        for _ in range(together):
            step()
        times.append((time.process_time() - start) / together)
    return {"median_s": median(times), "min_s": min(times), "repeats": len(times)}


def batch() -> list[Atoms]:
    """Copper to train on."""
    images = [copper((2, 2, 2)) for _ in range(BATCH)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.05, seed=seed + 2)
    return images


def optimisers(rounds: int = 10) -> dict[str, float]:
    """Structures per second in training with either of our optimisers, which take turns."""
    images = batch()
    kinds: tuple[Literal["soap", "adamw"], ...] = ("soap", "adamw")
    steps = {kind: ours(numbers_of(images[0]), kind)[1](images) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(-1, rounds):
        for kind in kinds if turn % 2 else reversed(kinds):
            start = time.process_time()
            for _ in range(UPDATE):
                steps[kind]()
            if turn >= 0:
                times[kind].append((time.process_time() - start) / UPDATE)
    return {f"{kind}_structures_per_s": BATCH / median(each) for kind, each in times.items()}


def main() -> None:
    name, task = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    if task == "optimisers":
        row = optimisers()
        before = peak_mb()
    elif task == "training":
        images = batch()
        _, training = CONTENDERS[name](numbers_of(images[0]))
        step = training(images)
        before = peak_mb()
        row = timed(step, seconds=6.0, together=UPDATE)
        row["structures_per_s"] = BATCH / row["median_s"]
    else:
        atoms = water() if task == "water" else copper(tuple(map(int, task.split("x"))))
        evaluation, _ = CONTENDERS[name](numbers_of(atoms))
        step, with_list = evaluation(atoms)
        before = peak_mb()
        row = timed(step)
        row["peak_mb"] = peak_mb()
        row["atoms"] = len(atoms)
        row["atom_steps_per_s"] = len(atoms) / row["median_s"]
        row["atom_steps_per_s_with_list"] = len(atoms) / timed(with_list)["median_s"]
    row["before_mb"] = before
    row.setdefault("peak_mb", peak_mb())
    sys.stdout.write(json.dumps({key: round(value, 6) for key, value in row.items()}) + "\n")


if __name__ == "__main__":
    main()
