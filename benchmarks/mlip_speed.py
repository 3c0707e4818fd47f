"""Speed and memory of the potential with its default settings, beside other potentials.

    OMP_NUM_THREADS=1 python benchmarks/mlip_speed.py PEERS

Each peer is installed, once, into a virtual environment of its own below the folder PEERS, which
shares this environment's torch. One process per measurement, one after the other, one thread,
float32, random weights (the cost does not depend on them); the contenders take turns, `rounds`
times, and medians are compared:

* energy and forces of 256 displaced copper atoms and of 64 waters, cutoff 5 Angstrom, with a given
  neighbour list and with one that is made anew in every step;
* training (energies and forces) on batches of 4 x 32 copper atoms: ours by SOAP, the default, which
  updates its basis in every tenth step, hence means over ten; the peers by AdamW;
* ours alone: the same with SOAP and AdamW in turn, in one process;
* ours alone: 256 to 16,384 atoms, for the growth of time and memory.

Peers run as their packages build them, without torch.compile, which neither they nor we need here.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from common import one_thread, save

ROOT = Path(__file__).parents[1]
WORKER = Path(__file__).with_name("mlip_speed_worker.py")


@dataclass(frozen=True)
class Protocol:
    r_max: float = 5.0
    rounds: int = 1
    dtype: str = "float32"
    packages: dict[str, str] = field(
        default_factory=lambda: {
            "nequip": "nequip==0.19.1",
            "sevenn": "sevenn==0.13.0",
            "mace": "mace-torch==0.3.16",
        }
    )
    contenders: dict[str, str] = field(
        default_factory=lambda: {
            "ours": "",
            "nequip S": "nequip",
            "nequip l=2": "nequip",
            "sevenn l=2": "sevenn",
            "mace": "mace",
        }
    )
    tasks: tuple[str, ...] = ("4x4x4", "water", "training")
    sizes: tuple[str, ...] = ("4x4x4", "8x8x8", "16x16x16")
    targets: dict[str, float] = field(
        default_factory=lambda: {
            "copper_atom_steps_per_s": 7000.0,
            "water_atom_steps_per_s": 5500.0,
            "training_structures_per_s": 75.0,
            "time_per_atom_16384_over_256": 1.1,
        }
    )


def install(folder: Path, requirement: str) -> Path | str:
    """The interpreter of an environment with a package, or why it could not be installed."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder)
        site = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
        (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    pins = folder / "pins.txt"
    pins.write_text("torch==2.13.0\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    done = subprocess.run(
        [*pip, "-c", str(pins), requirement], capture_output=True, text=True, check=False
    )
    return python if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def run(python: Path, contender: str, task: str) -> dict[str, float]:
    """One measurement in a fresh process."""
    # MACE pins an e3nn whose constants are pickles that torch 2.6 and later refuse to read.
    extra = {"PYTHONPATH": str(ROOT)} if contender == "ours" else {}
    environment = {**os.environ, "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1", **extra}
    done = subprocess.run(
        [str(python), str(WORKER), contender, task],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    row: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return row


def joined(rows: list[dict[str, float]]) -> dict[str, float]:
    """Medians over the rounds."""
    return {name: round(median(row[name] for row in rows), 5) for name in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", type=Path, help="folder of the peers' environments")
    folder = parser.parse_args().peers.resolve()
    one_thread()
    protocol = Protocol()
    pythons: dict[str, Path | str] = {"": Path(sys.executable)}
    for name, requirement in protocol.packages.items():
        pythons[name] = install(folder / name, requirement)
    missing = {n: python for n, python in pythons.items() if isinstance(python, str)}
    rows: dict[str, dict[str, list[dict[str, float]]]] = {}
    for _ in range(protocol.rounds):
        for task in protocol.tasks:
            for name, package in protocol.contenders.items():
                python = pythons[package]
                if isinstance(python, Path):
                    rows.setdefault(task, {}).setdefault(name, []).append(run(python, name, task))
                    print(task, name, rows[task][name][-1], file=sys.stderr, flush=True)
    results: dict[str, Any] = {
        task: {name: joined(each) for name, each in of.items()} for task, of in rows.items()
    }
    results["optimisers"] = run(Path(sys.executable), "ours", "optimisers")
    growth = {size: run(Path(sys.executable), "ours", size) for size in protocol.sizes}
    results["growth"] = growth
    per_atom = [row["median_s"] / row["atoms"] for row in growth.values()]
    results["time_per_atom_16384_over_256"] = round(per_atom[-1] / per_atom[0], 3)
    results["not_installed"] = missing
    save("mlip_speed", protocol, results)


if __name__ == "__main__":
    main()
