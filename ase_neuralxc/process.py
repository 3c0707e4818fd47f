"""How commands and scripts end: exit codes, and errors as one line instead of a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from ase_neuralxc.errors import NeuralXCError

USER_ERROR = 2
INTERRUPTED = 130


def guarded(program: str, work: Callable[[], int], interrupted: str = "") -> int:
    """Do the work of a process.

    Args:
        program: what messages begin with.
        work: returns the exit code.
        interrupted: what to add when the user interrupts.

    Returns:
        The exit code of the work, 2 after an error of this package, 130 after an interrupt.
    """
    try:
        return work()
    except NeuralXCError as error:
        sys.stderr.write(f"{program}: error: {' '.join(str(error).split())}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        sys.stderr.write(f"{program}: interrupted{interrupted}\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
