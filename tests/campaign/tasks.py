"""Task functions of the engine's tests; worker processes import them."""

import os
import signal
import time
from pathlib import Path


def square(task, attempt):
    return {"value": task**2, "attempt": attempt}


def note(folder, text):
    """Append a line that a kill cannot tear."""
    with open(Path(folder) / "calls", "a") as stream:
        stream.write(f"{text}\n")


def counted(task, attempt):
    note(task["folder"], f"{task['n']} {attempt}")
    return task["n"]


def fails_until(task, attempt):
    if attempt < task["needs"]:
        raise ValueError(f"strategy {attempt} is too weak")
    return attempt


def kills_its_worker(task, attempt):
    if task == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.02)
    return task


def always_dies(task, attempt):
    os.kill(os.getpid(), signal.SIGKILL)


def _refuse():
    raise TypeError("not to be unpickled")


class _Refusing:
    def __reduce__(self):
        return _refuse, ()


class Unpicklable(Exception):
    """Whatever libraries do to the pickling of exceptions, this one holds what refuses."""

    def __init__(self, message):
        super().__init__(message)
        self.content = _Refusing()


def raises_what_cannot_be_unpickled(task, attempt):
    raise Unpicklable("first")


def slow(task, attempt):
    """Say where it runs, take a moment, then give an answer."""
    note(task["folder"], f"{task['n']} {os.getpid()} {attempt}")
    time.sleep(0.25)
    return task["n"] ** 2
