"""Where tasks run: in this process, in local worker processes, or wherever `submit` leads."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from multiprocessing.connection import wait
from typing import Any, Protocol

from ase_neuralxc.errors import NeuralXCError


class ExecutorLost(NeuralXCError):
    """Whatever ran the tasks is gone, and no task is to blame."""


class Executor(Protocol):
    """What the engine needs of an executor: `concurrent.futures` and a dask client have it."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Any:
        """Start a call; returns a future with `result` and `add_done_callback`."""


class InlineExecutor:
    """Runs each call at once, in this process; an interrupt ends the campaign, not the task."""

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future:
        """Call the function; the returned future is finished."""
        future: Future = Future()
        try:
            future.set_result(function(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Nothing to release."""


class LocalPool:
    """Local worker processes that outlive the death of any of them.

    Workers are spawned, not forked: numerical libraries hold threads and locks that do not
    survive a fork.

    Args:
        workers: number of processes.
    """

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._pool = self._start()

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future:
        """Start a call in a worker; a pool that broke is replaced first."""
        try:
            return self._pool.submit(function, *args)
        except BrokenExecutor:
            self._pool.shutdown(wait=True)
            self._pool = self._start()
            return self._pool.submit(function, *args)

    def close(self) -> None:
        """Drop what has not started and wait for the workers to end."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(
            self._workers, mp_context=context, initializer=_end_with_the_parent
        )


def _end_with_the_parent() -> None:
    """End this worker when the engine dies: a killed parent cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
