import errno
import fcntl
import json
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from campaign import tasks as work

from ase_neuralxc.campaign import Campaign, task_key
from ase_neuralxc.campaign.pool import InlineExecutor
from ase_neuralxc.errors import InvalidInputError, NeuralXCError


def run(directory, tasks, function, **options):
    return Campaign(directory).run(tasks, function, **{"progress": False, **options})


def values(directory):
    return sorted(result for _, result in Campaign(directory).results())


def test_each_task_once_and_again_not_at_all(tmp_path):
    jobs = [{"n": n, "folder": str(tmp_path)} for n in (1, 2, 3, 2)]
    summary = run(tmp_path / "c", jobs, work.counted)
    assert (summary.n_done, summary.n_failed, summary.n_skipped) == (3, 0, 0)
    assert summary.n_duplicates == 1
    again = run(tmp_path / "c", [*jobs, {"n": 4, "folder": str(tmp_path)}], work.counted)
    assert (again.n_done, again.n_failed, again.n_skipped) == (1, 0, 3)
    assert (tmp_path / "calls").read_text().split() == ["1", "0", "2", "0", "3", "0", "4", "0"]
    assert values(tmp_path / "c") == [1, 2, 3, 4]
    assert Campaign(tmp_path / "c").load(task_key(jobs[0])) == 1


def test_keys_are_content():
    assert task_key({"a": 1, "b": [1.5]}) == task_key({"b": [1.5], "a": 1})
    assert task_key({"a": 1}) != task_key({"a": 2})
    assert task_key([["a", 1]]) != task_key({"a": 1})
    with pytest.raises(InvalidInputError, match=r"task: expected .*got object"):
        task_key(object())


def test_a_retry_uses_the_next_strategy(tmp_path):
    summary = run(tmp_path, [{"needs": 2}, {"needs": 0}], work.fails_until, retries=2)
    assert summary.n_done == 2
    assert values(tmp_path) == [0, 2]
    assert Campaign(tmp_path).failures() == {}
    assert list((tmp_path / "failures").iterdir()) == []


def test_failures_keep_reasons_and_attempts_and_can_be_taken_up(tmp_path):
    task = {"needs": 3}
    summary = run(tmp_path, [task], work.fails_until, retries=1)
    assert (summary.n_done, summary.n_failed) == (0, 1)
    failure = Campaign(tmp_path).failures()[task_key(task)]
    assert summary.failures == {task_key(task): failure}
    assert failure.attempts == 2
    assert failure.reasons == tuple(f"ValueError: strategy {i} is too weak" for i in (0, 1))
    assert "in fails_until" in failure.details
    stored = json.loads((tmp_path / "failures" / f"{task_key(task)}.json").read_text())
    assert stored["attempts"] == 2
    # given up: not tried again with the same number of retries
    assert run(tmp_path, [task], work.fails_until, retries=1).failures == summary.failures
    # more retries go on where the first run stopped
    assert run(tmp_path, [task], work.fails_until, retries=3).n_done == 1
    assert values(tmp_path) == [3]
    assert Campaign(tmp_path).failures() == {}


def test_a_result_that_cannot_be_stored_is_a_failure(tmp_path):
    summary = run(tmp_path, [1], lambda task, attempt: object(), retries=0)
    (failure,) = summary.failures.values()
    assert failure.reasons[0].startswith("TypeError: Object of type object is not JSON")


def test_a_death_in_company_is_not_the_end_of_the_innocent(tmp_path):
    # without any retry, the neighbour of the task that kills its worker still gets its turn
    summary = run(tmp_path, range(2, 8), work.kills_its_worker, workers=2, retries=0)
    assert (summary.n_done, summary.n_failed) == (5, 1)
    assert values(tmp_path) == [2, 4, 5, 6, 7]
    assert list(summary.failures) == [task_key(3)]
    failure = summary.failures[task_key(3)]
    assert failure.attempts == 2  # once in company, once alone
    assert all("WorkerDied" in reason for reason in failure.reasons)


def test_workers_that_always_die_stop_the_campaign(tmp_path):
    with pytest.raises(NeuralXCError, match="workers died and no task came back"):
        run(tmp_path, range(40), work.always_dies, workers=2, retries=0)


class Remote(InlineExecutor):
    """Everything goes through pickle, there and back, as to another machine."""

    def submit(self, function, *arguments):
        def call():
            there, given = pickle.loads(pickle.dumps((function, arguments)))
            return pickle.loads(pickle.dumps(there(*given)))

        return super().submit(call)


def test_errors_that_cannot_be_unpickled_come_back(tmp_path):
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(work.Unpicklable("first")))
    summary = run(tmp_path, [1], work.raises_what_cannot_be_unpickled, executor=Remote(), retries=0)
    (failure,) = summary.failures.values()
    assert failure.reasons == ("Unpicklable: first",)


class Threads:
    """An executor of which the engine knows nothing but `submit`."""

    def __init__(self):
        self.pool = ThreadPoolExecutor(2)

    def submit(self, function, *arguments):
        return self.pool.submit(function, *arguments)


def test_any_executor(tmp_path):
    executor = Threads()
    summary = run(tmp_path, range(10), work.square, executor=executor, workers=3)
    executor.pool.shutdown()
    assert summary.n_done == 10
    assert sorted(r["value"] for _, r in Campaign(tmp_path).results()) == [n * n for n in range(10)]


def test_two_engines_do_not_share_a_folder(tmp_path):
    run(tmp_path, [1], work.square)
    with open(tmp_path / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711 on here")
        lock.flush()
        with pytest.raises(NeuralXCError, match="in use by process 4711 on here"):
            run(tmp_path, [2], work.square)
    assert run(tmp_path, [2], work.square).n_done == 1


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path):
    code = (
        "import os, signal, sys\nfrom ase_neuralxc.campaign import Campaign\n"
        "Campaign(sys.argv[1]).run([1], lambda t, a: os.kill(os.getpid(), signal.SIGKILL),"
        " progress=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    assert (tmp_path / "lock").read_text().split()[0].isdigit()
    assert run(tmp_path, [1], work.square).n_done == 1
    assert (tmp_path / "lock").read_text() == ""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_killed_while_writing(tmp_path, moment):
    """The write of the third result is interrupted; what it leaves is not a result."""
    code = (
        "import os, signal, sys\nfrom ase_neuralxc.campaign import Campaign\n"
        f"original = os.{moment}\n"
        "def kill(task, attempt):\n"
        "    if task == 2:\n"
        f"        os.{moment} = lambda *a: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return task\n"
        "Campaign(sys.argv[1]).run(range(5), kill, progress=False)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert killed.returncode == -9
    results = tmp_path / "results"
    assert [p.suffix for p in results.glob(".*")] == [".partial"]
    assert values(tmp_path) == [0, 1]
    summary = run(tmp_path, range(5), lambda task, attempt: task)
    assert (summary.n_done, summary.n_skipped) == (3, 2)
    assert list(results.glob(".*")) == []
    assert values(tmp_path) == [0, 1, 2, 3, 4]


def test_another_identity_is_refused(tmp_path):
    Campaign(tmp_path, "pbe").run([1], work.square, progress=False)
    with pytest.raises(InvalidInputError, match="campaign of 'lda', got one of 'pbe'"):
        Campaign(tmp_path, "lda").run([1], work.square, progress=False)


def test_damaged_files_are_named(tmp_path):
    run(tmp_path, [1], work.square)
    (path,) = (tmp_path / "results").iterdir()
    path.write_text('{"value"')
    with pytest.raises(InvalidInputError, match=path.name):
        values(tmp_path)
    (tmp_path / "campaign.json").write_text('{"format": 99}')
    with pytest.raises(InvalidInputError, match="format 1, got format 99"):
        run(tmp_path, [1], work.square)


def test_bad_arguments(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"directory: expected a writable folder.*file/c"):
        run(tmp_path / "file" / "c", [1], work.square)
    with pytest.raises(InvalidInputError, match="workers: expected at least 1, got 0"):
        run(tmp_path / "c", [1], work.square, workers=0)
    with pytest.raises(InvalidInputError, match="retries: expected at least 0, got -1"):
        run(tmp_path / "c", [1], work.square, retries=-1)
    with pytest.raises(InvalidInputError, match="function: expected one that can be sent"):
        run(tmp_path / "c", [1], lambda task, attempt: task, workers=2)
    with pytest.raises(InvalidInputError, match="directory: expected the folder of a campaign"):
        values(tmp_path / "nothing")
    assert sorted(os.listdir(tmp_path)) == ["file"]


def test_progress_goes_to_standard_error(tmp_path, capsys):
    run(tmp_path, range(3), work.square, progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "3/3" in err
    assert "<" in err  # elapsed<left


def test_a_full_disk_stops_the_campaign_and_loses_nothing(tmp_path, monkeypatch):
    real, written = os.fsync, []

    def full_after_some(descriptor):
        written.append(descriptor)
        if len(written) > 8:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_some)
    with pytest.raises(InvalidInputError, match="No space left on device"):
        run(tmp_path, range(20), work.square)
    monkeypatch.undo()
    done = values_of_squares(tmp_path)
    assert 1 <= len(done) < 20
    assert not list((tmp_path / "results").glob(".*"))
    summary = run(tmp_path, range(20), work.square)
    assert (summary.n_done, summary.n_skipped, summary.n_failed) == (20 - len(done), len(done), 0)
    assert values_of_squares(tmp_path) == [n * n for n in range(20)]


def values_of_squares(directory):
    return sorted(result["value"] for _, result in Campaign(directory).results())
