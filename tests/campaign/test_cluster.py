from __future__ import annotations

import os
import signal
import stat
import sys
import threading
import time

import pytest
from campaign import tasks as work

from ase_neuralxc.campaign import Campaign, EMTLabeller, collect, label_structures, open_scheduler
from ase_neuralxc.campaign.cluster import DaskExecutor
from ase_neuralxc.errors import InvalidInputError, NeuralXCError

dask = pytest.importorskip("dask")
distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster():
    # By default a worker that is down again 15 s after it was lost is not started any more.
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300s"}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
    ):
        yield cluster


@pytest.fixture
def address(cluster):
    with distributed.Client(cluster) as client:
        client.wait_for_workers(2)  # a test before may have killed some
    return cluster.scheduler_address.replace("tcp://", "dask://")


def calls(folder):
    path = folder / "calls"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_worker_killed_in_the_middle_of_a_task_loses_nothing(tmp_path, address) -> None:
    jobs = [{"n": n, "folder": str(tmp_path)} for n in range(12)]
    killed = []

    def kill_one():
        while len(calls(tmp_path)) < 4:
            time.sleep(0.01)
        pid = int(calls(tmp_path)[-1][1])  # the worker that has just begun
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)

    killer = threading.Thread(target=kill_one)
    killer.start()
    with open_scheduler(address, 2) as (executor, workers):
        summary = Campaign(tmp_path / "c").run(
            jobs, work.slow, executor=executor, workers=workers, progress=False
        )
    killer.join()
    assert len(killed) == 1
    assert (summary.n_done, summary.n_failed) == (12, 0)
    assert sorted(r for _, r in Campaign(tmp_path / "c").results()) == [n**2 for n in range(12)]
    assert Campaign(tmp_path / "c").failures() == {}
    # a kill costs the task in flight, and a result that was not fetched yet, and no more
    begun = [int(n) for n, _, _ in calls(tmp_path)]
    assert 12 <= len(begun) <= 12 + 2 * len(killed)
    assert set(begun) == set(range(12))


@pytest.mark.slow
def test_a_task_that_kills_every_worker_is_a_failure_of_its_own(
    tmp_path, address, cluster, monkeypatch
) -> None:
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)  # saves the time of restarts
    with open_scheduler(address, 2) as (executor, workers):
        summary = Campaign(tmp_path).run(
            range(2, 6), work.kills_its_worker, executor=executor, workers=workers, retries=0,
            progress=False,
        )  # fmt: skip
    assert (summary.n_done, summary.n_failed) == (3, 1)
    (failure,) = summary.failures.values()
    assert all("WorkerDied" in reason for reason in failure.reasons)


def test_labels_through_a_scheduler_are_those_made_here(tmp_path, address) -> None:
    from campaign.killable import images

    structures = images()[:6]
    label_structures(structures, EMTLabeller(), tmp_path / "here", progress=False)
    with open_scheduler(address, None) as (executor, workers):
        assert workers == 2
        label_structures(
            structures, EMTLabeller(), tmp_path / "there", executor=executor, workers=workers,
            progress=False,
        )  # fmt: skip
    here, there = (
        {record.content_hash: record.checksum for record in collect(tmp_path / name)}
        for name in ("here", "there")
    )
    assert len(here) == 6
    assert here == there


def test_a_lost_scheduler_ends_the_run_and_keeps_what_is_done(tmp_path) -> None:
    jobs = [{"n": n, "folder": str(tmp_path)} for n in range(20)]
    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address=":0", processes=False
    )
    client = distributed.Client(cluster)

    def close():
        while len(calls(tmp_path)) < 3:
            time.sleep(0.01)
        client.close()

    closer = threading.Thread(target=close)
    closer.start()
    with pytest.raises(NeuralXCError, match="run the same again to go on"):
        Campaign(tmp_path / "c").run(
            jobs, work.slow, executor=DaskExecutor(client), workers=1, progress=False
        )
    closer.join()
    cluster.close()
    assert Campaign(tmp_path / "c").failures() == {}
    done = len(list(Campaign(tmp_path / "c").results()))
    assert 1 <= done < 20
    again = Campaign(tmp_path / "c").run(jobs[:4], work.slow, progress=False)
    assert again.n_skipped == min(done, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="stands in for SLURM with Linux's own tools")
def test_jobs_are_submitted_to_slurm_and_cancelled(tmp_path, monkeypatch) -> None:
    """With programs that stand in for SLURM's: jobs are processes here."""
    pytest.importorskip("dask_jobqueue")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    log = tmp_path / "log"
    for name, body in {
        "sbatch": f'cp "$1" {log}; setsid bash {log} >/dev/null 2>&1 & '
        'echo "Submitted batch job $!"',
        "scancel": f'echo cancelled "$@" >> {tmp_path}/cancelled; kill -- -"$1"',
    }.items():
        path = binaries / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # jobs inherit the environment
    job = {
        "queue": "normal", "cores": 1, "memory": "1GB", "walltime": "00:10:00",
        "interface": "lo", "scheduler_options": {"dashboard_address": ":0"},
    }  # fmt: skip
    jobs = [{"n": n, "folder": str(tmp_path)} for n in range(4)]
    with open_scheduler("slurm", 1, job) as (executor, workers):
        summary = Campaign(tmp_path / "c").run(
            jobs, work.slow, executor=executor, workers=workers, progress=False
        )
    assert (summary.n_done, summary.n_failed) == (4, 0)
    script = log.read_text()
    assert "#SBATCH -p normal" in script
    assert "#SBATCH -t 00:10:00" in script
    assert (tmp_path / "cancelled").exists()


def test_schedulers_that_cannot_be_used() -> None:
    def opened(*arguments):
        with open_scheduler(*arguments):
            pass

    for arguments, message in [
        (("slrum", 1), "unknown scheduler 'slrum'"),
        (("slurm", None, {"cores": 1}), "workers: expected the number to ask SLURM for"),
        (("local", 0), "workers: expected at least 1, got 0"),
        (("local", 1, {"queue": "a"}), "job: expected no options for 'local'"),
        (("slurm", 1, {"cores": 1, "memory": "1GB", "queu": "a"}), "Did you mean 'queue'"),
        (("slurm", 1, {"cores": 1}), "job: expected memory of a job"),
    ]:
        with pytest.raises(InvalidInputError, match=message):
            opened(*arguments)
    with open_scheduler("local", None) as (executor, workers):
        assert (executor, workers) == (None, 1)


def test_a_scheduler_that_is_not_there(monkeypatch) -> None:
    monkeypatch.setattr("ase_neuralxc.campaign.cluster._PATIENCE", 0.5)
    with (
        pytest.raises(NeuralXCError, match=r"dask scheduler at dask://127\.0\.0\.1:1"),
        open_scheduler("dask://127.0.0.1:1", 1),
    ):
        pass
