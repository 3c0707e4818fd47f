"""Campaigns on a cluster, through dask.distributed and dask-jobqueue (extra `cluster`).

Tasks travel to the workers, results travel back, and the engine alone writes the folder of the
campaign: workers share no files with it. A task whose worker disappears is given to another one by
the scheduler; one that takes several workers with it is tried alone, then recorded as a failure.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import BrokenExecutor, CancelledError
from contextlib import contextmanager
from typing import Any

from ase_neuralxc.campaign.pool import Executor, ExecutorLost
from ase_neuralxc.errors import (
    InvalidInputError,
    MissingDependencyError,
    NeuralXCError,
    unknown_name,
)

#: Beginning of the address of a scheduler that is running.
ADDRESS = "dask://"
SCHEDULERS = ("local", f"{ADDRESS}HOST:PORT", "slurm")
#: Seconds to wait for a scheduler to answer.
_PATIENCE = 10.0


class DaskExecutor:
    """A dask client as the engine's executor.

    Args:
        client: a `distributed.Client`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def submit(self, function: Callable[..., Any], /, *args: Any) -> DaskFuture:
        """Start a call on a worker."""
        # Not pure: a retry is a new call, whatever dask remembers of the last one.
        return DaskFuture(self._client.submit(function, *args, pure=False))


class DaskFuture:
    """A dask future whose errors are those that the engine knows.

    Args:
        future: a `distributed.Future`.
    """

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> Any:
        """Result of the call.

        Returns:
            What the function returned.

        Raises:
            BrokenExecutor: workers died under this task, one after the other.
            ExecutorLost: the scheduler is gone.
        """
        from distributed import KilledWorker

        try:
            return self._future.result()
        except KilledWorker as error:
            raise BrokenExecutor(str(error)) from error
        except (CancelledError, OSError) as error:
            raise ExecutorLost(
                f"scheduler: lost it ({type(error).__name__}: {error}); what was finished is "
                "kept, run the same again to go on"
            ) from error

    def add_done_callback(self, function: Callable[[Any], None]) -> None:
        """Call a function with this future when it is done, in another thread."""
        self._future.add_done_callback(lambda _: function(self))


@contextmanager
def open_scheduler(
    scheduler: str, workers: int | None, job: Mapping[str, Any] | None = None
) -> Iterator[tuple[Executor | None, int]]:
    """What runs the tasks of a campaign, closed again at the end.

    Args:
        scheduler: "local" (processes of this machine), "dask://HOST:PORT" (a dask scheduler that
            is running, whose workers should have one thread each) or "slurm" (jobs that are
            submitted here and end with the campaign).
        workers: number of processes, of tasks handed out at a time, or of workers to ask SLURM for.
            None: 1, as many as the scheduler has threads, or an error.
        job: options of `dask_jobqueue.SLURMCluster`; what is not given comes from its
            configuration file (`~/.config/dask/jobqueue.yaml`).

    Yields:
        Arguments `executor` and `workers` of `Campaign.run`.

    Raises:
        InvalidInputError: an unknown scheduler, a job that SLURM cannot be asked for, no workers.
        MissingDependencyError: dask is not installed.
        NeuralXCError: the scheduler does not answer.
    """
    if job and scheduler != "slurm":
        raise InvalidInputError(f"job: expected no options for {scheduler!r}, got {dict(job)}")
    if workers is not None and workers < 1:
        raise InvalidInputError(f"workers: expected at least 1, got {workers}")
    if scheduler == "local":
        yield None, workers or 1
    elif scheduler == "slurm":
        if workers is None:
            raise InvalidInputError("workers: expected the number to ask SLURM for, got None")
        with _slurm(workers, job or {}) as client:
            yield DaskExecutor(client), workers
    elif scheduler.startswith(ADDRESS):
        with _connected(scheduler) as client:
            threads = sum(client.nthreads().values())
            if workers is None and threads == 0:
                raise InvalidInputError(
                    f"workers: expected workers at {scheduler} or their number, got none"
                )
            yield DaskExecutor(client), workers or threads
    else:
        raise unknown_name("scheduler", scheduler, SCHEDULERS)


def _connected(scheduler: str) -> Any:
    """Client of a scheduler that is running."""
    client = _distributed()
    try:
        return client(f"tcp://{scheduler.removeprefix(ADDRESS)}", timeout=_PATIENCE)
    except (OSError, ValueError) as error:
        raise NeuralXCError(
            f"scheduler: expected a dask scheduler at {scheduler}, got: {error}"
        ) from error


@contextmanager
def _slurm(workers: int, job: Mapping[str, Any]) -> Iterator[Any]:
    """Client of a cluster of SLURM jobs."""
    client = _distributed()
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as error:
        raise MissingDependencyError(_missing(error)) from error
    _check_job(job)
    cluster = SLURMCluster(**job)
    with cluster, client(cluster) as connected:
        cluster.scale(n=workers)
        yield connected


def _check_job(job: Mapping[str, Any]) -> None:
    """Refuse options that a SLURM cluster does not have, or that it needs and has not."""
    import dask
    from dask_jobqueue.core import Job, JobQueueCluster
    from dask_jobqueue.slurm import SLURMJob

    valid: set[str] = set()
    for kind in (Job, JobQueueCluster, SLURMJob):
        valid |= set(inspect.signature(kind.__init__).parameters)
    for name in job:
        if name not in valid:
            raise unknown_name("job option", name, valid - {"self", "args", "kwargs", "job_kwargs"})
    for name in ("cores", "memory"):
        if job.get(name, dask.config.get(f"jobqueue.slurm.{name}", None)) is None:
            raise InvalidInputError(
                f"job: expected {name} of a job, here or in dask's configuration, got {dict(job)}"
            )


def _distributed() -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(_missing(error)) from error
    return Client


def _missing(error: ImportError) -> str:
    return (
        "scheduler: expected dask.distributed and dask-jobqueue (pip install "
        f"'ase-neuralxc[cluster]'), got: {error}"
    )
