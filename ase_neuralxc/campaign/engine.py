"""The resumable task engine: every task once, whatever dies in between.

Tasks are told apart by their content. A finished task is one complete file, so that killing the
engine at any moment costs at most the tasks in flight; running it again does the rest.
"""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from tqdm import tqdm

from ase_neuralxc.campaign.pool import Executor, ExecutorLost, InlineExecutor, LocalPool
from ase_neuralxc.campaign.store import Codec, Failure, JsonCodec, TaskStore
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records.canonical import digest, plain

#: Called with a task and the number of its failed attempts, which selects a stronger strategy.
TaskFunction = Callable[[Any, int], Any]

#: Deaths of workers in a row, without a single task coming back, after which workers cannot work.
_HOPELESS = 4

_DEATH = (
    "WorkerDied: the worker process ended (killed, out of memory, crashed, or started from a "
    "script that has no `if __name__ == '__main__'` guard)"
)


@dataclass(frozen=True)
class RunSummary:
    """What one call of `Campaign.run` did; the first three add up to the number of unique tasks.

    Attributes:
        n_done: tasks finished in this run.
        n_failed: tasks without a result, given up now or earlier.
        n_skipped: tasks that had a result before.
        n_duplicates: tasks given more than once.
        failures: the failed tasks, by key.
    """

    n_done: int
    n_failed: int
    n_skipped: int
    n_duplicates: int
    failures: dict[str, Failure] = field(default_factory=dict)


@dataclass(frozen=True)
class _Outcome:
    """What comes back from a worker: plain text and bytes, which pickle whatever went wrong."""

    content: bytes | None
    reason: str = ""
    details: str = ""


@dataclass
class _Entry:
    key: str
    task: Any
    failure: Failure
    alone: bool = False


class Campaign:
    """A folder of tasks that are done, failing or still to do.

    Args:
        directory: folder; created by the first run.
        identity: what the results depend on besides the task (method, settings). A folder keeps
            the identity of its first run and refuses another, as its results would be stale.
        codec: how results become files; JSON if not given.
    """

    def __init__(
        self, directory: str | Path, identity: str = "", codec: Codec | None = None
    ) -> None:
        self.store = TaskStore(directory, identity, codec or JsonCodec())

    def run(
        self,
        tasks: Iterable[Any],
        function: TaskFunction,
        *,
        workers: int = 1,
        executor: Executor | None = None,
        retries: int = 2,
        progress: bool = True,
    ) -> RunSummary:
        """Do the tasks that have no result yet.

        Args:
            tasks: JSON-like values, or objects with a `content_hash`; equal ones are done once.
            function: called as `function(task, attempt)`, attempt = 0, 1, ...; its result must
                suit the codec. An exception is a failed attempt. With workers it must pickle.
            workers: 1 runs in this process, more in local processes. With an executor, the number
                of tasks handed to it at a time.
            executor: anything with `submit(function, *args)` that returns futures.
            retries: how often a failing task is tried again, counted over all runs; a higher
                number takes up tasks that were given up before.
            progress: show a bar with the time left, on standard error.

        Returns:
            Numbers of tasks and the failures.

        Raises:
            InvalidInputError: bad arguments, or a folder that cannot be used.
            NeuralXCError: another engine runs in the folder, workers die at once, or the executor
                is lost.
        """
        if workers < 1:
            raise InvalidInputError(f"workers: expected at least 1, got {workers}")
        if retries < 0:
            raise InvalidInputError(f"retries: expected at least 0, got {retries}")
        unique: dict[str, Any] = {}
        n_given = 0
        for task in tasks:
            n_given += 1
            unique.setdefault(task_key(task), task)
        if workers > 1 or executor is not None:
            _check_picklable(function)
        with self.store.locked():
            done = self.store.done()
            entries = [
                _Entry(key, task, self.store.failure(key))
                for key, task in unique.items()
                if key not in done
            ]
            todo = [entry for entry in entries if entry.failure.attempts <= retries]
            given_up = {e.key: e.failure for e in entries if e.failure.attempts > retries}
            n_skipped = len(unique) - len(entries)
            with tqdm(
                total=len(unique),
                initial=n_skipped + len(given_up),
                unit="task",
                disable=not progress,
            ) as bar:
                loop = _Loop(self.store, function, retries, bar)
                if todo:
                    _drive(loop, todo, workers, executor)
        failures = {**given_up, **loop.failures}
        return RunSummary(
            n_done=loop.n_done,
            n_failed=len(failures),
            n_skipped=n_skipped,
            n_duplicates=n_given - len(unique),
            failures=failures,
        )

    def load(self, key: str) -> Any:
        """Result of a task by its key (see `task_key`)."""
        return self.store.load(key)

    def results(self) -> Iterator[tuple[str, Any]]:
        """Key and result of every finished task, in the order of the keys."""
        for key in sorted(self.store.done()):
            yield key, self.store.load(key)

    def failures(self) -> dict[str, Failure]:
        """The tasks that were tried and have no result, by key."""
        return self.store.failures()


def task_key(task: Any) -> str:
    """Content hash of a task: its `content_hash`, or the hash of a JSON-like value."""
    own = getattr(task, "content_hash", None)
    return own if isinstance(own, str) else digest(plain("task", task))


def _drive(loop: _Loop, todo: list[_Entry], workers: int, executor: Executor | None) -> None:
    if executor is not None:
        loop.run(todo, executor, workers)
        return
    pool = InlineExecutor() if workers == 1 else LocalPool(workers)
    try:
        loop.run(todo, pool, workers)
    finally:
        pool.close()


class _Loop:
    """Hands out tasks, takes back outcomes, decides about retries."""

    def __init__(self, store: TaskStore, function: TaskFunction, retries: int, bar: Any) -> None:
        self.failures: dict[str, Failure] = {}
        self.n_done = 0
        self._store = store
        self._function = function
        self._retries = retries
        self._bar = bar
        self._crashes = 0
        self._waiting: deque[_Entry] = deque()
        self._suspects: deque[_Entry] = deque()
        self._running: dict[str, _Entry] = {}

    def run(self, entries: list[_Entry], executor: Executor, window: int) -> None:
        """Work until every entry has a result or is given up.

        No more tasks are handed out than run at once: when a worker dies, exactly those that were
        running are in doubt.
        """
        self._waiting.extend(entries)
        finished: SimpleQueue[tuple[_Entry, Any]] = SimpleQueue()
        while True:
            while (entry := self._next(window)) is not None:
                self._running[entry.key] = entry
                future = executor.submit(
                    _attempt,
                    self._function,
                    self._store.codec,
                    entry.task,
                    entry.failure.attempts,
                )
                future.add_done_callback(lambda f, entry=entry: finished.put((entry, f)))
            if not self._running:
                return
            entry, future = finished.get()
            del self._running[entry.key]
            self._settle(entry, future)

    def _next(self, window: int) -> _Entry | None:
        """The task to hand out now, if any; suspects run alone, so that a death has one cause."""
        if self._suspects:
            if self._running:
                return None
            entry = self._suspects.popleft()
            entry.alone = True
            return entry
        if not self._waiting or len(self._running) >= window:
            return None
        if any(entry.alone for entry in self._running.values()):
            return None
        entry = self._waiting.popleft()
        entry.alone = window == 1
        return entry

    def _settle(self, entry: _Entry, future: Any) -> None:
        try:
            outcome: _Outcome = future.result()
        except BrokenExecutor:
            self._crashed(entry)
            return
        except ExecutorLost:
            raise
        except Exception as error:  # the executor's own: a lost node, a task that does not pickle
            self._failed(entry, f"{type(error).__name__}: {error}", "", final=True)
            return
        self._crashes = 0
        if outcome.content is None:
            self._failed(entry, outcome.reason, outcome.details, final=True)
            return
        self._store.save(entry.key, outcome.content)
        self.n_done += 1
        self._bar.update()

    def _crashed(self, entry: _Entry) -> None:
        self._crashes += 1
        # in company the task may be innocent: it is tried again alone before it is given up
        self._failed(entry, _DEATH, "", final=entry.alone)
        if self._crashes >= _HOPELESS and self.n_done == 0:
            raise NeuralXCError(
                f"workers: {self._crashes} workers died and no task came back: {_DEATH}"
            )

    def _failed(self, entry: _Entry, reason: str, details: str, final: bool) -> None:
        entry.failure = entry.failure.again(reason, details)
        self._store.record_failure(entry.failure)
        if final and entry.failure.attempts > self._retries:
            self.failures[entry.key] = entry.failure
            self._bar.set_postfix(failed=len(self.failures))
            self._bar.update()
        elif reason == _DEATH:
            self._suspects.append(entry)
        else:
            self._waiting.append(entry)


def _attempt(function: TaskFunction, codec: Codec, task: Any, attempt: int) -> _Outcome:
    """Runs where the task runs. Errors return as text: some exceptions cannot be unpickled."""
    try:
        return _Outcome(codec.encode(function(task, attempt)))
    except Exception as error:
        return _Outcome(None, f"{type(error).__name__}: {error}", traceback.format_exc())


def _check_picklable(function: TaskFunction) -> None:
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InvalidInputError(
            f"function: expected one that can be sent to other processes, got {function!r}: {error}"
        ) from error
