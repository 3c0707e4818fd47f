"""A small model and small data, for tests of what is around a model."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

MODEL = {
    "r_max": 4.0,
    "channels": 4,
    "l_max": 2,
    "l_hidden": 1,
    "n_radial": 4,
    "hidden": 8,
    "ensemble": 2,
}


def clusters(n: int, seed: int = 0) -> list[Atoms]:
    """Small clusters of copper and gold, as ASE's EMT has them, with energy and forces."""
    rng = np.random.default_rng(seed)
    grid = np.array([[i, j, k] for i in range(2) for j in range(2) for k in range(2)]) * 2.6
    found = []
    for _ in range(n):
        size = int(rng.integers(3, 6))
        atoms = Atoms(rng.choice([29, 79], size), grid[rng.permutation(8)[:size]])
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        found.append(atoms)
    return found


def write_clusters(path, n: int, seed: int = 0) -> str:
    """The same as a file."""
    write(path, clusters(n, seed), format="extxyz")
    return str(path)
