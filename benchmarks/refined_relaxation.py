"""DFT calculations that a relaxation takes: potential + corrections against plain BFGS on DFT.

The potential is trained on labels of displaced conformers; what is relaxed are other, more strongly
displaced conformers of the same molecules, and of molecules that it has never seen. Every DFT
calculation of a refinement counts, the one that verifies its end included; the labels of the
training stand beside them. Resumable: intermediate results are in out/refined_relaxation.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import minimize_rotation_and_translation, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.neighborlist import natural_cutoffs, neighbor_list
from ase.optimize import BFGS
from common import one_thread, save
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ase_neuralxc import NeuralXC
from ase_neuralxc.campaign import Campaign, collect, label_structures, task_key
from ase_neuralxc.errors import SCFNotConverged
from ase_neuralxc.records.io import write_records
from ase_neuralxc.workflows import UnconvergedWarning
from mlip import MLIP
from mlip.active.labeller import as_source
from mlip.active.refined import relax_refined
from mlip.active.refinement import distinct_points
from mlip.training.config import build_config
from mlip.training.run import evaluate, resume, train

FOLDER = Path("out/refined_relaxation")
#: In which plain relaxations run side by side: calculations are counted here, not times.
PROCESSES = 2


@dataclass(frozen=True)
class Protocol:
    dft: dict[str, Any] = field(
        default_factory=lambda: {
            "xc": "libxc:lda,vwn",
            "basis": "sto-3g",
            "density_fit": True,
            "grid_level": 1,
        }
    )
    seen: tuple[str, ...] = ("CH3CH2OH", "CH3CH2NH2", "CH3OCH3", "HCOOCH3", "CH3CHO")
    unseen: tuple[str, ...] = ("C3H8", "CH3COOH", "isobutane", "CH3CH2OCH3", "CH3COCH3")
    starts_each: int = 2
    unseen_each: int = 4
    displacement: float = 0.15
    fmax: float = 0.02
    steps: int = 150
    labels_each: int = 30
    label_displacements: tuple[float, ...] = (0.03, 0.07, 0.12)
    model: dict[str, Any] = field(
        default_factory=lambda: {"r_max": 4.5, "channels": 16, "hidden": 32, "l_max": 3}
    )
    epochs: int = 250


def conformer(name: str, displacement: float, rng: np.random.Generator) -> Atoms:
    """A molecule with all single bonds turned at random, and its atoms displaced."""
    atoms = molecule(name)
    i, j = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=1.15))
    n = len(atoms)
    degree = np.bincount(i, minlength=n)
    for a, b in zip(i, j, strict=True):
        if a > b or min(degree[a], degree[b]) < 2:
            continue
        keep = ~(((i == a) & (j == b)) | ((i == b) & (j == a)))
        graph = coo_matrix((np.ones(keep.sum()), (i[keep], j[keep])), shape=(n, n))
        side = connected_components(graph)[1] == connected_components(graph)[1][b]
        if not side[a]:
            part = atoms[side]
            axis = atoms.positions[b] - atoms.positions[a]
            part.rotate(rng.uniform(0.0, 360.0), axis, center=atoms.positions[b])
            atoms.positions[side] = part.positions
    atoms.rattle(displacement, rng=rng)
    return atoms


def starts(protocol: Protocol) -> dict[str, Atoms]:
    found = {}
    for names, each in (
        (protocol.seen, protocol.starts_each),
        (protocol.unseen, protocol.unseen_each),
    ):
        for name in names:
            for number in range(each):
                rng = np.random.default_rng([7, number, *name.encode()])
                found[f"{name} {number}"] = conformer(name, protocol.displacement, rng)
    return found


def potential(protocol: Protocol) -> tuple[MLIP, dict[str, Any]]:
    images = [
        conformer(
            name,
            protocol.label_displacements[number % len(protocol.label_displacements)],
            np.random.default_rng([11, number, *name.encode()]),
        )
        for name in protocol.seen
        for number in range(protocol.labels_each)
    ]
    source = as_source(NeuralXC(**protocol.dft))
    label_structures(images, source.labellers, FOLDER / "labels")
    records = collect(FOLDER / "labels")
    write_records(FOLDER / "labels.extxyz", records)
    run = FOLDER / "model"
    if (run / "state.pt").exists() and not (run / "model.pt").exists():
        resume(run)
    elif not run.exists():
        config = {
            "out": str(run),
            "epochs": protocol.epochs,
            "data": {"train": str(FOLDER / "labels.extxyz"), "valid_fraction": 0.1},
            "model": protocol.model,
            "loss": {"uncertainty": 0.01},
        }
        train(build_config(config))
    _, card = evaluate(run, str(FOLDER / "labels.extxyz"))
    return MLIP(run), {"labels": len(records), "validation": card.metrics["valid"]}


class Plain:
    """BFGS of ASE on DFT; the density of the last step starts the next."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol

    def __call__(self, task: dict[str, Any], attempt: int) -> dict[str, Any]:
        atoms = Atoms(task["numbers"], task["positions"])
        atoms.calc = NeuralXC(**self.protocol.dft)
        with BFGS(atoms, logfile=None) as optimizer:
            converged = optimizer.run(fmax=self.protocol.fmax, steps=self.protocol.steps)
            return {
                "calls": int(optimizer.nsteps) + 1,
                "converged": bool(converged),
                "energy": float(atoms.get_potential_energy()),
                "positions": atoms.positions.tolist(),
            }


class Refined:
    """The potential, corrected."""

    def __init__(self, protocol: Protocol, calc: MLIP) -> None:
        self.protocol, self.calc = protocol, calc

    def __call__(self, task: dict[str, Any], attempt: int) -> dict[str, Any]:
        atoms = Atoms(task["numbers"], task["positions"])
        dft = NeuralXC(**self.protocol.dft)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)
            result = relax_refined(atoms, self.calc, dft, fmax=self.protocol.fmax, budget=30)
        return {
            "calls": result.n_dft,
            "converged": result.converged,
            "energy": result.energies[-1],
            "fmaxes": [round(f, 4) for f in result.fmaxes],
            "positions": result.atoms.positions.tolist(),
        }


def row(name: str, plain: dict[str, Any], refined: dict[str, Any], numbers: Any) -> dict[str, Any]:
    first, second = (Atoms(numbers, each["positions"]) for each in (plain, refined))
    for atoms, each in ((first, plain), (second, refined)):
        atoms.calc = SinglePointCalculator(atoms, energy=each["energy"])
    # by distances: mirror images, and a methyl group that turned by a third, are the same
    same = len(distinct_points([first, second], energy=2e-3, distance=0.2)) == 1
    minimize_rotation_and_translation(first, second)
    difference = refined["energy"] - plain["energy"]
    distance = float(np.sqrt(((first.positions - second.positions) ** 2).sum(1).mean()))
    return {
        "structure": name,
        "plain_calls": plain["calls"],
        "refined_calls": refined["calls"],
        "ratio": round(refined["calls"] / plain["calls"], 4),
        "both_converged": plain["converged"] and refined["converged"],
        "energy_difference_meV": round(1000.0 * difference, 2),
        "rms_distance_A": round(distance, 4),
        "same_minimum": same,
        "dft_fmaxes": refined["fmaxes"],
    }


def summary(rows: list[dict[str, Any]], labels: int) -> dict[str, Any]:
    """Medians; a relaxation that fails or ends elsewhere counts as infinitely dear in the first."""
    long = [r for r in rows if r["plain_calls"] >= 20]
    good = [r for r in long if r["both_converged"] and r["same_minimum"]]
    dear = float("inf")
    ratio = median(r["ratio"] if r in good else dear for r in long)
    saved = float(np.mean([r["plain_calls"] - r["refined_calls"] for r in good]))
    return {
        "structures": len(rows),
        "with_20_plain_calls": len(long),
        "not_converged": sum(not r["both_converged"] for r in long),
        "another_minimum": sum(r["both_converged"] and not r["same_minimum"] for r in long),
        "median_ratio_failures_infinite": round(ratio, 4) if ratio < dear else "infinite",
        "median_ratio_same_minimum": round(median(r["ratio"] for r in good), 4),
        "median_plain_calls_same_minimum": median(r["plain_calls"] for r in good),
        "median_refined_calls_same_minimum": median(r["refined_calls"] for r in good),
        "training_labels": labels,
        "pays_off_after_structures": int(np.ceil(labels / saved)),
    }


def main() -> None:
    one_thread()
    protocol = Protocol()
    FOLDER.mkdir(parents=True, exist_ok=True)
    calc, training = potential(protocol)
    structures = starts(protocol)
    tasks = {
        name: {"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}
        for name, atoms in structures.items()
    }
    found = {}
    runs = (("refined", Refined(protocol, calc), 1), ("plain", Plain(protocol), PROCESSES))
    for kind, function, workers in runs:
        campaign = Campaign(FOLDER / kind, identity=f"{kind} {asdict(protocol)}")
        done = campaign.run(tasks.values(), function, workers=workers)
        for failure in done.failures.values():
            sys.stderr.write(f"{kind}: {failure.reasons}\n")
        if done.n_failed:
            raise SCFNotConverged(f"{kind}: {done.n_failed} relaxations failed")
        keys = dict(campaign.results())
        found[kind] = {name: keys[task_key(task)] for name, task in tasks.items()}
    rows = [
        row(name, found["plain"][name], found["refined"][name], structures[name].numbers)
        for name in tasks
    ]
    parts = {
        "all": rows,
        "molecules in the training": [
            r for r in rows if r["structure"].split()[0] in protocol.seen
        ],
        "other molecules": [r for r in rows if r["structure"].split()[0] in protocol.unseen],
    }
    results = {
        "training": training,
        "summary": {name: summary(part, training["labels"]) for name, part in parts.items()},
        "rows": rows,
    }
    save("refined_relaxation", protocol, results)


if __name__ == "__main__":
    main()
