"""How well the expected force errors of a small potential order and size its true errors.

Clusters of copper and gold, labelled with ASE's EMT, which costs nothing, so that the data can be
made again anywhere. Trained on slightly displaced clusters; judged on clusters that are displaced
more, which the training has not seen, with the scale that the validation part of the training set.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.emt import EMT
from ase.cluster import Icosahedron
from common import one_thread, save
from numpy.typing import NDArray
from scipy.special import erf
from scipy.stats import spearmanr

from ase_neuralxc.campaign import EMTLabeller
from ase_neuralxc.records import SpinState, write_records
from mlip import MLIP
from mlip.training.config import build_config
from mlip.training.run import train


@dataclass(frozen=True)
class Protocol:
    train: int = 120
    test: int = 60
    train_displacements: tuple[float, ...] = (0.05, 0.1, 0.15)
    test_displacements: dict[str, float] = field(
        default_factory=lambda: {"as in training": 0.1, "unseen: larger": 0.25}
    )
    committees: tuple[int, ...] = (1, 3)
    model: dict[str, Any] = field(
        default_factory=lambda: {"r_max": 5.0, "channels": 8, "hidden": 16, "l_max": 2}
    )
    epochs: int = 100
    likelihood_weight: float = 0.01


def cluster(displacement: float, rng: np.random.Generator) -> Atoms:
    atoms = Icosahedron("Cu", 2)
    atoms.numbers[rng.random(len(atoms)) < 0.4] = 79
    atoms.positions *= rng.uniform(1.0, 1.08)
    atoms.rattle(displacement, rng=rng)
    return atoms


def calibration(errors: NDArray, sigma: NDArray) -> float:
    """Area between the observed and the expected share of errors within each interval."""
    z = np.abs(errors) / sigma
    expected = np.linspace(0.0, 1.0, 101)
    # share of a Gaussian within |z|: erf(z / sqrt 2)
    observed = np.array([(erf(z / np.sqrt(2.0)) <= share).mean() for share in expected])
    return float(np.trapezoid(np.abs(observed - expected), expected))


def judge(calc: MLIP, images: list[Atoms]) -> dict[str, float]:
    results = calc.evaluate(images, uncertainty=True)
    errors, spreads = [], []
    for atoms, values in zip(images, results, strict=True):
        work = atoms.copy()
        work.calc = EMT()
        errors.append(values["forces"] - work.get_forces())
        spreads.append(values["forces_uncertainty"])
    error, spread = np.concatenate(errors), np.concatenate(spreads)
    size = np.linalg.norm(error, axis=1)
    worst = [np.linalg.norm(each, axis=1).max() for each in errors]
    # the spread is of the length of a vector; a component has a third of its variance
    sigma = np.repeat(spread / np.sqrt(3.0), 3)
    return {
        "rms_force_error_meV_A": round(1000.0 * float(np.sqrt(np.mean(error**2))), 1),
        "rank_correlation_atoms": round(float(spearmanr(spread, size)[0]), 3),
        "rank_correlation_structures": round(
            float(spearmanr([each.max() for each in spreads], worst)[0]), 3
        ),
        "miscalibration_area": round(calibration(error.ravel(), sigma), 3),
    }


def main() -> None:
    one_thread()
    protocol = Protocol()
    rng = np.random.default_rng(5)
    labeller, kinds = EMTLabeller(), protocol.train_displacements
    records = [
        labeller.label(cluster(kinds[k % len(kinds)], rng), SpinState())
        for k in range(protocol.train)
    ]
    tests = {
        name: [cluster(size, rng) for _ in range(protocol.test)]
        for name, size in protocol.test_displacements.items()
    }
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "train.extxyz"
        write_records(file, records)
        models = []
        for member in range(max(protocol.committees)):
            config = {
                "out": f"{scratch}/{member}",
                "seed": member,
                "epochs": protocol.epochs,
                "validate_every": 20,
                "batch": {"structures": 10},
                "data": {"train": [str(file)], "valid_fraction": 0.2},
                "model": protocol.model,
                "loss": {"uncertainty": protocol.likelihood_weight},
            }
            models.append(train(build_config(config), say=lambda line: None))
        for n in protocol.committees:
            calc = MLIP(models[:n])
            results[f"{n} potential(s) of 4 readouts"] = {
                name: judge(calc, images) for name, images in tests.items()
            }
    save("uncertainty", protocol, results)


if __name__ == "__main__":
    main()
