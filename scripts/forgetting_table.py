"""Old and new errors of ways to learn a second level of theory or spin treatment.

Two comparisons on labels that this script computes: two functionals (LDA/STO-3G for many molecules,
PBE/def2-SVP for some others), and two spin treatments (spin-restricted labels of many molecules,
spin-polarised triplets of those with open shells). Each strategy ends with a model whose errors on
held-back structures of the old and of the new domain stand side by side: medians over seeds of the
weights and batches. Resumable: out/forgetting; each table is also written to
benchmarks/results/forgetting_NAME.json.

    OMP_NUM_THREADS=1 python scripts/forgetting_table.py [functionals|spin] [--seeds 3]
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import molecule

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import one_thread, save

from ase_neuralxc.campaign import Failure
from ase_neuralxc.records import LabelRecord, write_records
from mlip import MLIP
from mlip.active.labeller import label_all, neuralxc_source
from mlip.training.checkpoint import load_potential
from mlip.training.config import build_config
from mlip.training.run import resume, train

FOLDER = Path("out/forgetting")
COMPARISONS = ("functionals", "spin")
CHEAP = {"xc": "libxc:lda,vwn", "basis": "sto-3g", "density_fit": True, "grid_level": 1}
BETTER = {"xc": "libxc:pbe", "basis": "def2-svp", "density_fit": True, "grid_level": 1}

#: Strategy to domain to root mean square errors in meV.
Rows = dict[str, dict[str, dict[str, float] | None]]


@dataclass(frozen=True)
class Domain:
    """Molecules and how they are labelled.

    Attributes:
        molecules: names as ASE knows them.
        level: settings of `NeuralXC`.
        train_each: structures of each molecule that are trained on.
        test_each: structures of each molecule that errors are measured on.
        seed: of the displacements.
        displacement: standard deviation of each coordinate in Angstrom.
        closest: structures are drawn anew in which two atoms are closer than this share of their
            distance in the molecule. A single one with a bond of 0.6 Angstrom and forces of
            70 eV/Angstrom would be half of the mean square error of two hundred.
    """

    molecules: tuple[str, ...]
    level: dict[str, Any]
    train_each: int
    test_each: int
    seed: int
    displacement: float = 0.08
    closest: float = 0.75


@dataclass(frozen=True)
class Protocol:
    """Both comparisons: the old domain first."""

    functionals: tuple[Domain, Domain] = (
        Domain(("H2O", "CH4", "NH3", "H2CO"), CHEAP, 48, 50, 1),
        Domain(("H2O", "NH3"), BETTER, 40, 50, 2),
    )
    spin: tuple[Domain, Domain] = (
        Domain(
            ("H2O", "H2CO", "O2", "CH2_s3B1d"),
            {**CHEAP, "multiplicity": 1, "reference": "rks"},
            48, 50, 3,
        ),
        Domain(("O2", "CH2_s3B1d"), {**CHEAP, "multiplicity": 3, "reference": "uks"}, 40, 50, 4),
    )  # fmt: skip
    model: dict[str, Any] = field(
        default_factory=lambda: {"r_max": 4.0, "channels": 12, "hidden": 24, "l_max": 2}
    )
    batch: int = 10
    # models of one level, however much data they have
    steps: int = 3000
    tuning_steps: int = 3000
    # of both levels from scratch: as many as direct tuning and the model it starts from; one model
    # for both surfaces takes longer to arrive
    joint_steps: int = 6000
    film_steps: int = 18000
    lr: float = 0.01
    tuning_lr: float = 0.002


def images(domain: Domain, each: int, part: int) -> list[Atoms]:
    found = []
    for name in domain.molecules:
        ideal = molecule(name)
        ideal.set_initial_magnetic_moments(None)  # the spin state is the level's, never guessed
        pairs = np.triu_indices(len(ideal), 1)
        shortest = domain.closest * ideal.get_all_distances()[pairs]
        for number in range(each):
            rng = np.random.default_rng([domain.seed, part, number, *name.encode()])
            atoms = ideal.copy()
            while True:
                atoms.positions = ideal.positions + rng.normal(
                    scale=domain.displacement, size=(len(ideal), 3)
                )
                if np.all(atoms.get_all_distances()[pairs] > shortest):
                    break
            found.append(atoms)
    return found


def labels(name: str, domain: Domain, each: int, part: int) -> list[LabelRecord]:
    answers = label_all(
        images(domain, each, part), neuralxc_source(domain.level), FOLDER / name, show_progress=True
    )
    for answer in answers:
        if isinstance(answer, Failure):
            print(f"{name}: no label: {answer.reasons[-1]}", file=sys.stderr)
    return [answer for answer in answers if isinstance(answer, LabelRecord)]


class Comparison:
    """Data and models of one comparison with one seed."""

    def __init__(
        self, name: str, domains: tuple[Domain, Domain], protocol: Protocol, seed: int
    ) -> None:
        self.protocol, self.seed, self.folder = protocol, seed, FOLDER / name / f"seed-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parts: dict[str, list[LabelRecord]] = {}
        for which, domain in zip(("old", "new"), domains, strict=True):
            for part, each in (("train", domain.train_each), ("test", domain.test_each)):
                title = f"{name}-{which}-{part}"
                self.parts[f"{which}-{part}"] = labels(title, domain, each, part == "test")
        for title, records in self.parts.items():
            write_records(self.file(title), records)
        # few new structures beside many old ones: each often enough to count as much
        ratio = len(self.parts["old-train"]) / len(self.parts["new-train"])
        self.repeats = max(1, round(ratio))

    def file(self, part: str) -> str:
        return str(self.folder / f"{part}.extxyz")

    def digest(self, which: str) -> str:
        return self.parts[f"{which}-train"][0].fidelity.digest

    def model(
        self, strategy: str, parts: Sequence[str], steps: int | None = None, **changes: Any
    ) -> Path:
        """The run of a strategy, trained unless it is there; `steps` instead of the usual ones."""
        out = self.folder / strategy.replace(" ", "-").replace("+", "and")
        data = {
            "train": [self.file(part) for part in parts],
            # what the run is stopped by is not what it is judged by: the last weights are kept
            "valid": [self.file(part) for part in dict.fromkeys(parts)],
            **changes.pop("data", {}),
        }
        tuned = "start" in changes
        frames = sum(len(self.parts[part]) for part in parts)
        if steps is None:
            steps = self.protocol.tuning_steps if tuned else self.protocol.steps
        config = {
            "out": str(out),
            "seed": self.seed,
            "keep": "last",
            "epochs": math.ceil(steps / math.ceil(frames / self.protocol.batch)),
            "validate_every": 50,
            "batch": {"structures": self.protocol.batch},
            "data": data,
            "model": {} if tuned else self.protocol.model,
            "optimizer": {"lr": self.protocol.tuning_lr if tuned else self.protocol.lr},
            **changes,
        }
        if (out / "state.pt").exists() and not (out / "model.pt").exists():
            resume(out, say=lambda line: None)
        elif not (out / "model.pt").exists():
            train(build_config(config), say=lambda line: None)
        return out

    def at(self, run: Path, which: str) -> MLIP:
        """The model of a run, asked for the level of a domain if it tells levels apart."""
        levels = load_potential(run / "model.pt")[0].model.settings.fidelities
        return MLIP(run, fidelity=self.digest(which) if len(levels) > 1 else None)

    def errors(self, calc: MLIP, which: str, base: MLIP | None = None) -> dict[str, float] | None:
        """Errors on held-back structures of a domain in meV: root mean squares, and the mean
        absolute error of the forces.

        None for a model that has not seen all elements of the domain. Energies of a model that
        knows another level only are compared after a fit of one constant for each element; the
        same is done for all, so that the columns compare.
        """
        records = self.parts[f"{which}-test"]
        elements = sorted({z for record in records for z in record.numbers.tolist()})
        if not set(elements) <= set(calc.committee.elements):
            return None
        frames = [record.to_atoms() for record in records]
        for atoms in frames:
            atoms.calc = None
        found = calc.evaluate(frames)
        known = base.evaluate(frames) if base is not None else [None] * len(frames)
        forces, energies, counts = [], [], []
        for record, values, more in zip(records, found, known, strict=True):
            predicted, energy = values["forces"], values["energy"]
            if more is not None:
                predicted, energy = predicted + more["forces"], energy + more["energy"]
            forces.append((predicted - record.forces).ravel())
            n = len(record.numbers)
            energies.append((energy - (record.free_energy or record.energy)) / n)
            counts.append([(record.numbers == z).sum() / n for z in elements])
        left = np.array(energies)
        left = left - np.array(counts) @ np.linalg.lstsq(np.array(counts), left, rcond=1e-8)[0]
        components = np.concatenate(forces)
        return {
            "forces": 1000.0 * float(np.sqrt(np.mean(components**2))),
            "forces_mae": 1000.0 * float(np.mean(np.abs(components))),
            "energy": 1000.0 * float(np.sqrt(np.mean(left**2))),
        }

    def delta(self, old: MLIP) -> Path:
        """A model of the difference between the new labels and the old model."""
        corrected = []
        for record in self.parts["new-train"]:
            atoms = record.to_atoms()
            atoms.calc = None
            (values,) = old.evaluate([atoms])
            corrected.append(
                replace(
                    record,
                    energy=(record.free_energy or record.energy) - values["energy"],
                    free_energy=None,
                    forces=record.forces - values["forces"],
                    stress=None,
                )
            )
        write_records(self.file("delta-train"), corrected)
        self.parts["delta-train"] = corrected
        return self.model("delta-learning", ["delta-train"])

    def rows(self) -> Rows:
        """Strategy to domain to errors."""
        new = ["new-train"]
        balanced = ["old-train", *["new-train"] * self.repeats]
        old = self.model("old model", ["old-train"])
        start = {"start": str(self.folder / "old-model")}
        film = {"data": {"fidelity": "conditioned"}}
        references = {"data": {"fidelity": "references"}}
        models = {
            "old model": old,
            "new alone": self.model("new alone", new),
            "direct tuning": self.model("direct tuning", new, **start),
            "replay": self.model("replay", balanced, **start, **references),
            "replay + FiLM (transfer)": self.model("replay film", balanced, **start, **film),
            "joint, own references": self.model(
                "joint", balanced, self.protocol.joint_steps, **references
            ),
            "joint + FiLM": self.model("joint film", balanced, self.protocol.film_steps, **film),
        }
        rows: Rows = {
            name: {which: self.errors(self.at(run, which), which) for which in ("old", "new")}
            for name, run in models.items()
        }
        rows["delta-learning"] = {
            "old": rows["old model"]["old"],
            "new": self.errors(MLIP(self.delta(MLIP(old))), "new", base=MLIP(old)),
        }
        return rows


def middle(each: Sequence[Rows]) -> Rows:
    """Medians over seeds; None where elements are new, which does not depend on the seed."""
    out: Rows = {}
    for strategy in each[0]:
        out[strategy] = {}
        for which in ("old", "new"):
            found = [errors for rows in each if (errors := rows[strategy][which]) is not None]
            out[strategy][which] = (
                {name: median(errors[name] for errors in found) for name in found[0]}
                if found
                else None
            )
    return out


def table(name: str, rows: Rows) -> str:
    """Markdown, forces in meV/Angstrom and energies in meV per atom; – where elements are new."""
    kinds = {"forces": "force rms", "forces_mae": "force MAE", "energy": "energy rms"}
    titles = [f"{which}: {kind}" for which in ("old", "new") for kind in kinds.values()]
    lines = [f"| {name} | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for strategy, row in rows.items():
        cells = []
        for which in ("old", "new"):
            errors = row[which]
            cells += [
                "–" if errors is None else f"{errors[kind]:.{2 if kind == 'energy' else 1}f}"
                for kind in kinds
            ]
        lines.append(f"| {strategy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("comparison", nargs="?", choices=COMPARISONS, help="default: both")
    parser.add_argument("--seeds", type=int, default=3, help="models of each way")
    given = parser.parse_args()
    if given.seeds < 1:
        parser.error(f"--seeds: expected at least 1, got {given.seeds}")
    one_thread()
    protocol = Protocol()
    for name in (given.comparison,) if given.comparison else COMPARISONS:
        comparisons = [
            Comparison(name, getattr(protocol, name), protocol, seed) for seed in range(given.seeds)
        ]
        each = [comparison.rows() for comparison in comparisons]
        rows = middle(each)
        print(table(name, rows))
        counts = {part: len(records) for part, records in comparisons[0].parts.items()}
        results = {"labels": counts, "errors": rows, "seeds": each}
        save(f"forgetting_{name}", protocol, results)


if __name__ == "__main__":
    main()
