"""Held-out errors of the potential with its default settings, on public data sets.

    OMP_NUM_THREADS=1 python benchmarks/mlip_accuracy.py DATA CASE --work FOLDER

DATA holds the sets as published (`rmd17/rmd17_ethanol_train_01.npz`, `acac/train_300K.xyz`, ...).
Each case splits its set with a fixed seed into training, validation (which chooses the weights that
are kept) and test frames, trains as `mlip train` does, and writes the errors on the test frames to
`results/mlip_CASE.json`. Whatever differs from the defaults is in `Case.overrides`, and in the
result. A run that was killed continues with the same command.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from common import one_thread, save

from mlip import MLIP
from mlip.data.convert import read_npz
from mlip.training.config import build_config
from mlip.training.metrics import by_config_type, summary
from mlip.training.run import evaluate, resume, train
from mlip.training.trainer import STATE_FILE

#: Names of the labels in the files with moments; the loss weighs what they have.
FE_KEYS = {"energy": "REF_energy", "forces": "REF_forces", "input_magmoms": "REF_magmoms"}
NIO_KEYS = {**FE_KEYS, "magnetic_forces": "REF_magforces"}


@dataclass(frozen=True)
class Case:
    """A data set, its split and everything that is not a default.

    Attributes:
        file: below DATA.
        train: training frames.
        valid: validation frames.
        test: frames whose errors count, None for all others.
        overrides: of the configuration.
        target: what is to be reached, in words.
    """

    file: str
    train: int
    valid: int
    test: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""


CASES = {
    "ethanol": Case(
        "rmd17/rmd17_ethanol_train_01.npz", 50, 50, target="MAE E 6.7 meV, F 32.6 meV/A"
    ),
    "ethanol_900": Case(
        "rmd17/rmd17_ethanol_train_01.npz",
        900,
        50,
        overrides={"epochs": 200},
        target="MAE F 2.5 meV/A with 950 frames",
    ),
    "ethanol_900_wide": Case(
        "rmd17/rmd17_ethanol_train_01.npz",
        900,
        50,
        overrides={"epochs": 200, "model": {"channels": 64}},
        target="MAE F 2.5 meV/A with 950 frames",
    ),
    "aspirin": Case(
        "rmd17/rmd17_aspirin_train_01.npz", 50, 50, target="MAE E 17.0 meV, F 43.9 meV/A"
    ),
    "toluene": Case(
        "rmd17/rmd17_toluene_train_01.npz", 50, 50, target="MAE E 3.1 meV, F 12.1 meV/A"
    ),
    "toluene_900": Case(
        "rmd17/rmd17_toluene_train_01.npz",
        900,
        50,
        overrides={"epochs": 200},
        target="MAE F 1.8 meV/A with 950 frames",
    ),
    "acac": Case("acac/train_300K.xyz", 425, 25, target="RMSE F 6 meV/A"),
    "nio": Case(
        "nio_spin/nio_train.xyz",
        85,
        10,
        overrides={
            "data": {"keys": NIO_KEYS},
            "model": {"moments": "vector"},
            "loss": {"magnetic_forces": 10.0},
        },
        target="half the energy error of the case without moments",
    ),
    "nio_no_moments": Case(
        "nio_spin/nio_train.xyz", 85, 10, overrides={"data": {"keys": NIO_KEYS}}
    ),
    "fe": Case(
        "fe_spin/fe_train.xyz",
        800,
        50,
        overrides={
            "data": {"keys": FE_KEYS},
            "model": {"moments": "vector"},
        },
    ),
    "fe_no_moments": Case("fe_spin/fe_train.xyz", 800, 50, overrides={"data": {"keys": FE_KEYS}}),
}


@dataclass(frozen=True)
class Protocol:
    case: str
    split_seed: int
    training_frames: int
    validation_frames: int
    test_frames: int
    overrides: Mapping[str, Any]
    target: str


def split(case: Case, data: Path, work: Path, seed: int) -> dict[str, Path]:
    """Files with the parts, made anew each time: the same seed gives the same files."""
    source = data / case.file
    frames = read_npz(source) if source.suffix == ".npz" else ase.io.read(source, ":")
    order = np.random.default_rng(seed).permutation(len(frames))
    ends = np.cumsum([case.train, case.valid, case.test or len(frames)])
    parts = dict(zip(("train", "valid", "test"), np.split(order, ends)[:3], strict=True))
    work.mkdir(parents=True, exist_ok=True)
    for name, chosen in parts.items():
        ase.io.write(work / f"{name}.xyz", [frames[i] for i in chosen], format="extxyz")
    return {name: work / f"{name}.xyz" for name in parts}


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings, those of `more` first."""
    found = dict(base)
    for key, value in more.items():
        old = found.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        found[key] = merged(old, value) if both else value
    return found


def trained(case: Case, files: Mapping[str, Path], work: Path, epochs: int | None) -> Path:
    """The model of the case, from where its run stands."""
    run = work / "run"
    if (run / "model.pt").exists():
        return run / "model.pt"
    if (run / STATE_FILE).exists():
        return resume(run)
    own = {
        "out": str(run),
        "data": {"train": [str(files["train"])], "valid": [str(files["valid"])]},
    }
    if epochs is not None:
        own["epochs"] = epochs
    return train(build_config(merged(case.overrides, own)))


def reversal(model: Path, frames: list[Atoms]) -> float:
    """Largest change of an energy in eV when all moments are reversed, in float64."""
    turned = []
    for atoms in frames:
        atoms.set_initial_magnetic_moments(atoms.arrays["REF_magmoms"])
        turned.append(atoms.copy())
        turned[-1].set_initial_magnetic_moments(-atoms.arrays["REF_magmoms"])
    calc = MLIP(model, dtype="float64")
    both = [[out["energy"] for out in calc.evaluate(part)] for part in (frames, turned)]
    return float(np.abs(np.subtract(*both)).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the data sets")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--work", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, default=7, help="of the split")
    parser.add_argument("--epochs", type=int, help="instead of the case's own number")
    arguments = parser.parse_args()
    one_thread()
    case = CASES[arguments.case]
    files = split(case, arguments.data, arguments.work, arguments.seed)
    model = trained(case, files, arguments.work, arguments.epochs)
    made, card = evaluate(model, str(files["test"]))
    results: dict[str, Any] = {"test": summary(made), "by_group": by_config_type(made)}
    if card.training["model"].get("moments") == "vector":
        frames = ase.io.read(files["test"], ":20")
        results["reversal_of_moments_eV_float64"] = reversal(model, frames)
    overrides = dict(case.overrides)
    if arguments.epochs is not None:
        overrides["epochs"] = arguments.epochs
    protocol = Protocol(
        case=arguments.case,
        split_seed=arguments.seed,
        training_frames=case.train,
        validation_frames=case.valid,
        test_frames=len(made.n_atoms),
        overrides=overrides,
        target=case.target,
    )
    save(f"mlip_{arguments.case}", protocol, results)


if __name__ == "__main__":
    main()
