"""Adsorption sites of metal-adsorbate pairs that a potential has not seen.

1120 relaxed slabs: 7 fcc(111) metals with 8 adsorbates on 4 sites at up to 4 coverages, and the
clean slabs (Xu and Kitchin, J. Phys. Chem. C 118, 25597, 2014). They have adsorption energies and
no forces: this is a study of energies at given structures, not of relaxations. Each pair of metal
and adsorbate is left out once while every element stays in the training; the sites of each left-out
pair and coverage are ranked by predicted adsorption energy. Beside the
potential stand rules that need none: the site that is most often the best in the training, the mean
of the other metals for this adsorbate, site and coverage, and a sum of a number for adsorbate, site
and coverage and one for metal and site; and a second potential that learns what this sum leaves.
Resumable: out/site_ranking.

    OMP_NUM_THREADS=1 python benchmarks/site_ranking.py FOLDER
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from common import one_thread, save

from mlip import MLIP
from mlip.calculator import CloseContactWarning
from mlip.training.config import build_config
from mlip.training.run import resume, train

FOLDER = Path("out/site_ranking")


@dataclass(frozen=True)
class Protocol:
    """How it is split and trained.

    Attributes:
        folds: pair (metal i, adsorbate j) is left out of fold (i + j) mod folds.
        model: settings of the model.
        committee: potentials with different seeds and validation parts, whose mean predicts.
        epochs: passes over the training data.
        batch: structures in a batch.
        lr: largest learning rate.
        weight_decay: of the optimiser.
        same: sites within this energy of the best, in eV, are as good as the best.
    """

    folds: int = 4
    model: dict[str, Any] = field(
        default_factory=lambda: {"r_max": 4.5, "channels": 16, "hidden": 32, "l_max": 2}
    )
    committee: int = 1
    epochs: int = 30
    batch: int = 5
    lr: float = 0.015
    weight_decay: float = 0.001
    same: float = 0.02


@dataclass(frozen=True, eq=False)
class Entry:
    """A slab with adsorbates.

    Attributes:
        metal: of the slab.
        adsorbate: an element.
        site: of all adsorbates.
        coverage: monolayers, as in the data.
        count: adsorbates.
        energy: of adsorption, in eV per adsorbate, atoms as the reference.
        atoms: the structure.
    """

    metal: str
    adsorbate: str
    site: str
    coverage: str
    count: int
    energy: float
    atoms: Atoms


def read_entries(folder: Path) -> tuple[list[Entry], list[Atoms]]:
    """Slabs with adsorbates that have an energy, and the clean slab of each metal."""
    structures = json.loads((folder / "structures.json").read_text())
    energies = json.loads((folder / "energies.json").read_text())
    entries, clean = [], {}
    for metal, adsorbates in structures.items():
        for adsorbate, sites in adsorbates.items():
            for site, coverages in sites.items():
                for coverage, values in coverages.items():
                    if not isinstance(values, dict):  # a calculation that was not finished
                        continue
                    atoms = Atoms(values["symbols"], values["pos"], cell=values["cell"], pbc=True)
                    if float(coverage) == 0.0:
                        clean.setdefault(metal, atoms)
                        continue
                    energy = energies[metal][adsorbate][site][coverage]
                    count = sum(symbol == adsorbate for symbol in values["symbols"])
                    entries.append(Entry(metal, adsorbate, site, coverage, count, energy, atoms))
    return entries, list(clean.values())


def fold_of(entry: Entry, entries: Sequence[Entry], folds: int) -> int:
    """The fold that leaves an entry out."""
    metals = sorted({each.metal for each in entries})
    adsorbates = sorted({each.adsorbate for each in entries})
    return (metals.index(entry.metal) + adsorbates.index(entry.adsorbate)) % folds


def labelled(atoms: Atoms, energy: float) -> Atoms:
    """A structure with the energy of formation from clean slab and atoms."""
    made = atoms.copy()
    made.calc = SinglePointCalculator(made, energy=energy)
    return made


def potential(
    folder: Path,
    known: Sequence[Entry],
    energies: Sequence[float],
    clean: Sequence[Atoms],
    protocol: Protocol,
) -> MLIP:
    """The committee of a fold, trained on energies per adsorbate unless it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "train.extxyz"
    frames = [labelled(e.atoms, e.count * value) for e, value in zip(known, energies, strict=True)]
    write(file, [*frames, *(labelled(atoms, 0.0) for atoms in clean)], format="extxyz")
    members = [folder / f"model-{seed}" for seed in range(protocol.committee)]
    for seed, out in enumerate(members):
        config = {
            "out": str(out),
            "seed": seed,
            "epochs": protocol.epochs,
            "validate_every": 5,
            "batch": {"structures": protocol.batch},
            "data": {"train": [str(file)], "valid_fraction": 0.05},
            "model": protocol.model,
            "loss": {"energy": 1.0, "forces": 0.0},
            "optimizer": {"lr": protocol.lr, "weight_decay": protocol.weight_decay},
        }
        if (out / "model.pt").exists():
            continue
        if (out / "state.pt").exists():
            resume(out, say=lambda line: None)
        else:
            train(build_config(config), say=lambda line: None)
    return MLIP(members)


Rule = Callable[[int, Sequence[Entry], Sequence[Entry], Sequence[Atoms]], list[float]]


def trained(protocol: Protocol, base: Rule) -> Rule:
    """Predictions per adsorbate of a rule and a potential that learns what it leaves."""

    def predict(
        fold: int, known: Sequence[Entry], asked: Sequence[Entry], clean: Sequence[Atoms]
    ) -> list[float]:
        ruled = base(fold, known, [*known, *asked], clean)
        left = [e.energy - value for e, value in zip(known, ruled[: len(known)], strict=True)]
        folder = FOLDER / base.__name__ / f"fold-{fold}"
        calc = potential(folder, known, left, clean, protocol)
        # some distances of the left-out pairs are shorter than any in the training: the question
        warnings.simplefilter("ignore", CloseContactWarning)
        found = calc.evaluate([entry.atoms for entry in asked])
        bare = calc.evaluate(list(clean))
        empty = {
            atoms.symbols[0]: values["energy"] for atoms, values in zip(clean, bare, strict=True)
        }
        return [
            value + (values["energy"] - empty[entry.metal]) / entry.count
            for value, values, entry in zip(ruled[len(known) :], found, asked, strict=True)
        ]

    return predict


def nothing(
    fold: int, known: Sequence[Entry], asked: Sequence[Entry], clean: Sequence[Atoms]
) -> list[float]:
    """The rule that says nothing."""
    return [0.0] * len(asked)


def most_common(
    fold: int, known: Sequence[Entry], asked: Sequence[Entry], clean: Sequence[Atoms]
) -> list[float]:
    """Sites ordered by how often they are the best; the energy is the mean of the training."""
    best = Counter(min(group, key=lambda e: e.energy).site for group in grouped(known).values())
    return [-float(best[entry.site]) for entry in asked]


def means(
    fold: int, known: Sequence[Entry], asked: Sequence[Entry], clean: Sequence[Atoms]
) -> list[float]:
    """Mean of the other metals for this adsorbate, site and coverage."""
    return [
        float(
            np.mean(
                [
                    e.energy
                    for e in known
                    if (e.adsorbate, e.site, e.coverage)
                    == (entry.adsorbate, entry.site, entry.coverage)
                ]
            )
        )
        for entry in asked
    ]


def additive(
    fold: int, known: Sequence[Entry], asked: Sequence[Entry], clean: Sequence[Atoms]
) -> list[float]:
    """Least squares: a number for each (adsorbate, site, coverage) plus one for (metal, site)."""
    keys = sorted({key for e in [*known, *asked] for key in (_species(e), _support(e))}, key=str)
    place = {key: number for number, key in enumerate(keys)}

    def rows(entries: Sequence[Entry]) -> np.ndarray:
        made = np.zeros((len(entries), len(keys)))
        for row, entry in zip(made, entries, strict=True):
            row[place[_species(entry)]] = row[place[_support(entry)]] = 1.0
        return made

    values = np.array([entry.energy for entry in known])
    fit = np.linalg.lstsq(rows(known), values, rcond=1e-8)[0]
    return [float(value) for value in rows(asked) @ fit]


def _species(entry: Entry) -> tuple[str, ...]:
    return entry.adsorbate, entry.site, entry.coverage


def _support(entry: Entry) -> tuple[str, ...]:
    return entry.metal, entry.site


def grouped(entries: Sequence[Entry]) -> dict[tuple[str, str, str], list[Entry]]:
    """Entries that differ in the site alone."""
    groups: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in entries:
        groups.setdefault((entry.metal, entry.adsorbate, entry.coverage), []).append(entry)
    return groups


def ranked(entries: Sequence[Entry], predicted: dict[int, float], same: float) -> dict[str, Any]:
    """How often the right site is among the first, over complete groups of four sites."""
    first, third, near, lost, errors, orders = [], [], [], [], [], []
    for group in grouped(entries).values():
        errors += [predicted[id(e)] - e.energy for e in group]
        if len(group) < 4:
            continue
        guess = sorted(group, key=lambda e: predicted[id(e)])
        best = min(group, key=lambda e: e.energy)
        first.append(guess[0] is best)
        third.append(best in guess[:3])
        lost.append(guess[0].energy - best.energy)
        near.append(lost[-1] < same)
        right = sorted(group, key=lambda e: e.energy)
        pairs = [(a, b) for i, a in enumerate(right) for b in right[i + 1 :]]
        orders.append(np.mean([predicted[id(a)] < predicted[id(b)] for a, b in pairs]))
    return {
        "groups": len(first),
        "top_1": round(float(np.mean(first)), 3),
        "top_1_within_tolerance": round(float(np.mean(near)), 3),
        "top_3": round(float(np.mean(third)), 3),
        "pairs_in_order": round(float(np.mean(orders)), 3),
        "mean_energy_lost_eV": round(float(np.mean(lost)), 4),
        "mae_energy_eV": round(float(np.mean(np.abs(errors))), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with structures.json and energies.json")
    arguments = parser.parse_args()
    one_thread()
    protocol = Protocol()
    entries, clean = read_entries(arguments.data)
    folds = [fold_of(entry, entries, protocol.folds) for entry in entries]
    results: dict[str, Any] = {"structures": len(entries), "clean slabs": len(clean)}
    rules: dict[str, Rule] = {
        "most common site": most_common,
        "mean of the other metals": means,
        "additive in metal and adsorbate": additive,
        "additive, and a potential for the rest": trained(protocol, additive),
        "potential": trained(protocol, nothing),
    }
    for name, rule in rules.items():
        predicted: dict[int, float] = {}
        for fold in range(protocol.folds):
            known = [e for e, f in zip(entries, folds, strict=True) if f != fold]
            asked = [e for e, f in zip(entries, folds, strict=True) if f == fold]
            values = rule(fold, known, asked, clean)
            predicted |= {id(e): v for e, v in zip(asked, values, strict=True)}
        results[name] = ranked(entries, predicted, protocol.same)
        print(name, results[name], flush=True)
    # counts are no energies
    del results["most common site"]["mae_energy_eV"]
    save("site_ranking", protocol, results)


if __name__ == "__main__":
    main()
