"""A labelling campaign that is killed at random until it is done: what is lost, what is doubled.

    OMP_NUM_THREADS=1 python benchmarks/campaign_kills.py

Rattled H2, H2O and LiH are labelled by Kohn-Sham calculations in two worker processes. The engine
gets SIGKILL a random time after its first new record, and is started anew, again and again, until
it ends by itself.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from common import one_thread, save

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Protocol:
    """What is done."""

    structures: int = 200
    molecules: tuple[str, ...] = ("H2", "H2O", "LiH")
    method: str = "LDA, STO-3G, grid level 0, forces with the response of the grid"
    workers: int = 2
    #: Seconds between the first new record of a run and its SIGKILL, drawn evenly.
    kill_after: tuple[float, float] = (0.0, 12.0)
    seed: int = 7


def images(protocol: Protocol) -> list:
    """The structures, all different."""
    from ase.build import molecule

    made = []
    for number in range(protocol.structures):
        atoms = molecule(protocol.molecules[number % len(protocol.molecules)])
        atoms.rattle(0.05, seed=number)
        made.append(atoms)
    return made


def label(folder: str) -> None:
    """What is killed: one run of the campaign, until it is done."""
    from ase_neuralxc.campaign import label_structures
    from ase_neuralxc.labeller import NeuralXCLabeller

    protocol = Protocol()
    labeller = NeuralXCLabeller({"xc": "lda", "basis": "sto-3g", "grid_level": 0})
    label_structures(images(protocol), labeller, folder, workers=protocol.workers, progress=False)


def names(results: Path) -> set[str]:
    """Records that are there now."""
    return {path.name for path in results.glob("[!.]*")} if results.is_dir() else set()


def kill_until_done(protocol: Protocol, folder: Path) -> dict:
    """Start, kill, start again; returns what the folder looked like in between and at the end."""
    from ase_neuralxc.campaign import collect, state_from_atoms, task_key
    from ase_neuralxc.campaign.labelling import LabelTask
    from ase_neuralxc.records import read_records, require_single_fidelity

    moments = random.Random(protocol.seed)
    results = folder / "results"
    kills, after_kills, lost, unreadable = 0, [], 0, 0
    start = time.monotonic()
    before: set[str] = set()
    while True:
        process = subprocess.Popen(
            [sys.executable, __file__, "--label", str(folder)],
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        while process.poll() is None and len(names(results)) == len(before):
            time.sleep(0.05)
        try:
            code = process.wait(timeout=moments.uniform(*protocol.kill_after))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        else:
            if code != 0:
                raise RuntimeError(f"the engine ended with exit code {code}")
            break
        there = names(results)
        lost += len(before - there)
        for path in sorted(results / name for name in there - before):
            unreadable += len(read_records(path)) != 1
        before = there
        after_kills.append(len(there))
    # The key of a record is the content of the structure that was asked for; the record itself may
    # say more, such as the spin that was resolved.
    found = [path.stem for path in results.iterdir()]
    records = collect(folder)
    require_single_fidelity(records)
    wanted = {
        task_key(LabelTask.from_atoms(atoms, state_from_atoms(atoms))) for atoms in images(protocol)
    }
    everything = [path.name for path in folder.rglob("*") if path.is_file()]
    return {
        "kills": kills,
        "records_after_each_kill": after_kills,
        "records_lost_by_kills": lost,
        "records_not_readable_after_kills": unreadable,
        "valid_records": sum(record.convergence["converged"] is True for record in records),
        "missing": len(wanted - set(found)),
        "not_asked_for": len(set(found) - wanted),
        "duplicates": len(records) - len({record.content_hash for record in records}),
        "partial_files": sum(name.startswith(".") for name in everything),
        "failures_left": len(list((folder / "failures").iterdir())),
        "wall_s": round(time.monotonic() - start, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--label", metavar="FOLDER", help="run the campaign (used by itself)")
    arguments = parser.parse_args()
    if arguments.label:
        label(arguments.label)
        return
    one_thread()
    os.environ["PYTHONPATH"] = str(ROOT)
    protocol = Protocol()
    with tempfile.TemporaryDirectory() as folder:
        save("campaign_kills", protocol, kill_until_done(protocol, Path(folder) / "labels"))


if __name__ == "__main__":
    main()
