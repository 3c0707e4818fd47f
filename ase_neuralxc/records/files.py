"""Files that are either there completely or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from ase_neuralxc.errors import InvalidInputError

#: Suffix of files that are being written; one that is left over belongs to an interrupted write.
PARTIAL_SUFFIX = ".partial"

_PICKLE, _ZIP = b"\x80", b"PK\x03\x04"


def may_run_code(start: bytes) -> bool:
    """Whether a file is a pickle or a zip file of `torch.save`, which can run code when read.

    Args:
        start: its first nine bytes or more.

    Returns:
        False for a safetensors file, whose header opens with a brace after its length in eight
        bytes, whatever these eight are.
    """
    return start[8:9] != b"{" and start.startswith((_PICKLE, _ZIP))


def atomic_write(path: str | Path, content: bytes) -> None:
    """Write a file so that no reader, and no crash at any moment, ever sees a part of it.

    The content goes to a temporary file in the same folder, is forced to disk and renamed.

    Args:
        path: the file; replaced if it exists.
        content: all of it.

    Raises:
        InvalidInputError: the path cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        try:
            with open(temporary, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)
    except OSError as error:
        raise InvalidInputError(
            f"path: expected a writable file, got {str(path)!r}: {error.strerror or error}"
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
