"""The folder of a campaign: one file per finished task, one per failing task, one lock.

campaign.json        format version and identity of what is computed
lock                 held by the engine that is running
results/KEY.SUFFIX   a finished task, written atomically
failures/KEY.json    reasons and number of the failed attempts of a task without a result
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.records.files import PARTIAL_SUFFIX, atomic_write

_FORMAT = 1


class Codec(Protocol):
    """How results become files.

    Attributes:
        suffix: of the file names, with the dot.
    """

    suffix: str

    def encode(self, result: Any) -> bytes:
        """File content for a result; raises for one it cannot hold."""

    def decode(self, content: bytes, source: str) -> Any:
        """Result from a file's content; raises `InvalidInputError` naming `source` if damaged."""


class JsonCodec:
    """Results made of dictionaries, lists, numbers, strings, booleans and None."""

    suffix = ".json"

    def encode(self, result: Any) -> bytes:
        """JSON text."""
        return json.dumps(result, allow_nan=False).encode()

    def decode(self, content: bytes, source: str) -> Any:
        """Value of a JSON text."""
        return _from_json(content, source)


@dataclass(frozen=True)
class Failure:
    """What is known of a task that has no result.

    Attributes:
        key: content hash of the task.
        attempts: how often it was tried.
        reasons: one text per attempt, "ErrorType: message".
        details: traceback of the last attempt, "" where there is none.
    """

    key: str
    attempts: int = 0
    reasons: tuple[str, ...] = ()
    details: str = ""

    def again(self, reason: str, details: str) -> Failure:
        """This failure after one more attempt."""
        return Failure(self.key, self.attempts + 1, (*self.reasons, reason), details)


class TaskStore:
    """Files of a campaign. Nothing is created before `locked` is entered.

    Args:
        directory: folder of the campaign.
        identity: what must not change while a campaign is resumed.
        codec: how results become files.
    """

    def __init__(self, directory: str | Path, identity: str, codec: Codec) -> None:
        self.directory = Path(directory)
        self.identity = identity
        self.codec = codec
        self._results = self.directory / "results"
        self._failures = self.directory / "failures"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Own the campaign: create or check the folder, remove what interrupted writes left.

        The kernel releases the lock when its owner dies, however it dies, so that a stale lock
        cannot exist; the process id in the file only serves the message.

        Yields:
            Nothing.

        Raises:
            InvalidInputError: the folder cannot be written, or belongs to another computation.
            NeuralXCError: another engine is running in it.
        """
        try:
            self._results.mkdir(parents=True, exist_ok=True)
            self._failures.mkdir(exist_ok=True)
            lock = open(self.directory / "lock", "a+", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            raise InvalidInputError(
                f"directory: expected a writable folder, got {str(self.directory)!r}: {error}"
            ) from error
        with lock:
            self._acquire(lock)
            self._check_identity()
            for folder in (self.directory, self._results, self._failures):
                for leftover in folder.glob(f".*{PARTIAL_SUFFIX}"):
                    leftover.unlink()
            yield
            lock.truncate(0)

    def _acquire(self, lock: Any) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise NeuralXCError(
                f"directory: expected a campaign that no other engine runs, got "
                f"{str(self.directory)!r}, in use by process {owner}"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()} on {os.uname().nodename}\n")
        lock.flush()

    def _check_identity(self) -> None:
        path = self.directory / "campaign.json"
        if not path.exists():
            header = {"format": _FORMAT, "identity": self.identity}
            atomic_write(path, json.dumps(header).encode())
            return
        header = _from_json(path.read_bytes(), str(path))
        if header.get("format") != _FORMAT:
            raise InvalidInputError(
                f"directory: expected a campaign of format {_FORMAT}, got format "
                f"{header.get('format')!r} in {str(self.directory)!r}"
            )
        if header.get("identity") != self.identity:
            raise InvalidInputError(
                f"directory: expected a campaign of {self.identity!r}, got one of "
                f"{header.get('identity')!r} in {str(self.directory)!r}; use another folder"
            )

    def done(self) -> set[str]:
        """Keys of the tasks that have a result; raises if the folder is not a campaign."""
        if not self._results.is_dir():
            raise InvalidInputError(
                f"directory: expected the folder of a campaign, got {str(self.directory)!r}"
            )
        suffix = self.codec.suffix
        return {
            p.name.removesuffix(suffix)
            for p in self._results.iterdir()
            if p.name.endswith(suffix) and not p.name.startswith(".")
        }

    def save(self, key: str, content: bytes) -> None:
        """Write the result of a task; its failures are forgotten."""
        atomic_write(self._results / f"{key}{self.codec.suffix}", content)
        self._failure_path(key).unlink(missing_ok=True)

    def load(self, key: str) -> Any:
        """Result of a finished task.

        Args:
            key: content hash of the task.

        Returns:
            What the codec reads.

        Raises:
            InvalidInputError: there is no result, or its file is damaged.
        """
        path = self._results / f"{key}{self.codec.suffix}"
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidInputError(
                f"key: cannot read the result {str(path)!r}: {error}"
            ) from error
        return self.codec.decode(content, str(path))

    def failure(self, key: str) -> Failure:
        """Failed attempts of a task so far; none if it never failed."""
        path = self._failure_path(key)
        if not path.exists():
            return Failure(key)
        data = _from_json(path.read_bytes(), str(path))
        return Failure(**{**data, "reasons": tuple(data["reasons"])})

    def failures(self) -> dict[str, Failure]:
        """Tasks that failed and have no result, by key."""
        done = self.done()
        keys = sorted(p.stem for p in self._failures.glob("*.json"))
        return {key: self.failure(key) for key in keys if key not in done}

    def record_failure(self, failure: Failure) -> None:
        """Write the failed attempts of a task."""
        content = json.dumps(asdict(failure), indent=1).encode()
        atomic_write(self._failure_path(failure.key), content)

    def _failure_path(self, key: str) -> Path:
        return self._failures / f"{key}.json"


def _from_json(content: bytes, source: str) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"path: expected JSON, got {source!r}: {error}") from error
