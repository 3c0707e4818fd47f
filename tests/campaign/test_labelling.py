import random
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from campaign import killable

from ase_neuralxc.campaign import (
    EMTLabeller,
    Labeller,
    collect,
    label_structures,
    state_from_atoms,
)
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState, read_records, require_single_fidelity

SCRIPT = Path(killable.__file__)


def images(n=4):
    made = []
    for seed in range(n):
        atoms = bulk("Cu", cubic=True)
        atoms.rattle(0.05, seed=seed)
        made.append(atoms)
    return made


def start(directory, workers):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(directory), str(workers)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_killed_again_and_again_until_done(tmp_path):
    """kill -9 at random moments: nothing is lost but what was in flight, nothing done twice."""
    moments = random.Random(3)
    results = tmp_path / "results"
    done = kills = 0
    while done < 42:
        with start(tmp_path, workers=1) as process:
            target = done + moments.randint(6, 14)
            while process.poll() is None and count(results) < target:
                time.sleep(0.001)
            time.sleep(moments.random() * 0.02)
            process.kill()
        kills += 1
        assert count(results) >= done
        done = count(results)
        for record in collect(tmp_path):  # what is there is complete at any time
            assert record.convergence["converged"] is True
    assert kills >= 3
    with start(tmp_path, workers=1) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert [int(n) for n in out.split()] == [60 - done, done]
    records = collect(tmp_path)
    assert len(records) == 60
    assert len({record.content_hash for record in records}) == 60
    assert sorted(p.suffix for p in results.iterdir()) == [".extxyz"] * 60
    # each kill may have cost one calculation, and no more
    assert 60 <= len((tmp_path / "pids").read_text().split()) <= 60 + kills
    by_hash = {record.content_hash: record for record in records}
    for atoms in killable.images():
        expected = EMTLabeller().label(atoms, SpinState())
        assert by_hash[expected.content_hash].to_dict() == expected.to_dict()
    require_single_fidelity(records)


def test_workers_end_with_a_killed_engine(tmp_path):
    with start(tmp_path, workers=2) as process:
        while process.poll() is None and count(tmp_path / "results") < 3:
            time.sleep(0.005)
        process.kill()
    pids = {int(p) for p in (tmp_path / "pids").read_text().split()}
    assert pids
    assert process.pid not in pids
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(alive(pid) for pid in pids)
    with start(tmp_path, workers=1) as process:
        _, err = process.communicate()
    assert process.returncode == 0, err
    assert len({record.content_hash for record in collect(tmp_path)}) == 60


def count(folder):
    return len(list(folder.glob("[!.]*"))) if folder.is_dir() else 0


def alive(pid):
    status = Path(f"/proc/{pid}/status")
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False


def test_labels_are_those_of_the_calculator(tmp_path):
    atoms = images(1)[0]
    atoms.set_constraint(FixAtoms([0]))
    label_structures([atoms], EMTLabeller(), tmp_path, progress=False)
    (record,) = collect(tmp_path)
    atoms.set_constraint()
    atoms.calc = EMT()
    assert np.abs(record.forces[0]).max() > 0.01  # the constraint hides no force
    assert np.array_equal(record.forces, atoms.get_forces())
    assert np.array_equal(record.stress, atoms.get_stress())
    assert record.energy == atoms.get_potential_energy()
    assert record.magmoms is None
    (path,) = (tmp_path / "results").iterdir()
    assert read_records(path)[0].to_dict() == record.to_dict()


def test_summary_counts_done_failed_and_skipped(tmp_path):
    structures = [*images(3), images(1)[0], bulk("Fe")]
    first = label_structures(structures, EMTLabeller(), tmp_path, retries=0, progress=False)
    assert (first.n_done, first.n_failed, first.n_skipped, first.n_duplicates) == (3, 1, 0, 1)
    (failure,) = first.failures.values()
    assert failure.reasons == ("NotImplementedError: No EMT-potential for Fe",)
    second = label_structures(structures, EMTLabeller(), tmp_path, retries=0, progress=False)
    assert (second.n_done, second.n_failed, second.n_skipped) == (0, 1, 3)


@dataclass(frozen=True)
class Weak:
    """Fails always; a stronger one follows."""

    strength: int = 0

    def label(self, atoms, state):
        raise RuntimeError(f"not converged with strength {self.strength}")


def test_stronger_labellers_take_over(tmp_path):
    ladder = [Weak(), Weak(1), EMTLabeller()]
    assert label_structures(images(2), ladder, tmp_path / "a", progress=False).n_done == 2
    summary = label_structures(images(1), ladder[:2], tmp_path / "b", retries=2, progress=False)
    (failure,) = summary.failures.values()
    assert [reason[-1] for reason in failure.reasons] == ["0", "1", "1"]


def test_one_folder_one_level_of_theory(tmp_path):
    label_structures(images(1), Weak(), tmp_path, retries=0, progress=False)
    with pytest.raises(InvalidInputError, match=r"campaign of 'emt', got one of 'Weak\(strength=0"):
        label_structures(images(1), EMTLabeller(), tmp_path, progress=False)
    with pytest.raises(InvalidInputError, match="labeller: expected a dataclass or an object"):
        label_structures(images(1), object(), tmp_path, progress=False)
    with pytest.raises(InvalidInputError, match="labeller: expected at least one"):
        label_structures(images(1), [], tmp_path, progress=False)


def test_what_is_not_a_record_is_not_stored(tmp_path):
    class Broken(EMTLabeller):
        def label(self, atoms, state):
            return {"energy": 1.0}

    assert isinstance(Broken(), Labeller)
    summary = label_structures(images(1), Broken(), tmp_path, retries=0, progress=False)
    (failure,) = summary.failures.values()
    assert failure.reasons == ("InvalidInputError: label: expected a LabelRecord, got dict",)


def test_states_that_structures_carry():
    atoms = molecule("O2")
    assert state_from_atoms(atoms) == SpinState(magmoms=(1.0, 1.0))
    atoms.info.update(charge=-1, multiplicity=2)
    assert state_from_atoms(atoms) == SpinState(-1, 1, (1.0, 1.0))
    atoms.set_initial_magnetic_moments(None)
    atoms.set_initial_magnetic_moments([[0, 0, 1], [0, 1, 0]])
    assert state_from_atoms(atoms).magmoms == ((0, 0, 1), (0, 1, 0))
    record = EMTLabeller().label(molecule("H2O"), SpinState(charge=1, target="S1"))
    assert state_from_atoms(record.to_atoms()) == record.spin_state
    atoms.info["multiplicity"] = 0
    with pytest.raises(InvalidInputError, match="multiplicity: expected at least 1"):
        state_from_atoms(atoms)


def test_the_spin_state_makes_a_structure_another_one(tmp_path):
    def charged(atoms):
        return SpinState(charge=1)

    label_structures(images(1), EMTLabeller(), tmp_path, progress=False)
    label_structures(images(1), EMTLabeller(), tmp_path, charged, progress=False)
    assert [record.spin_state.charge for record in collect(tmp_path)].count(1) == 1
    assert len(collect(tmp_path)) == 2
