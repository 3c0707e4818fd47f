"""Entry point of `mlip`: parse, run one command, turn errors into one line."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ase_neuralxc.errors import NeuralXCError, unknown_name
from mlip.cli.options import build_parser

USER_ERROR = 2
INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0 done, 1 done but with a failed check or not converged, 2 an error, 130
        interrupted.
    """
    parser, options = build_parser()
    arguments, unknown = parser.parse_known_args(argv)
    try:
        if unknown:
            raise unknown_name("option", unknown[0].split("=")[0], options[arguments.command])
        # Only now: --help and a mistyped option must not wait for torch.
        from mlip.cli import commands

        return commands.COMMANDS[arguments.command](arguments)
    except NeuralXCError as error:
        sys.stderr.write(f"mlip: error: {' '.join(str(error).split())}\n")
        return USER_ERROR
    except KeyboardInterrupt:
        hint = {
            "train": "; continue with `mlip resume`",
            "resume": "; continue with `mlip resume`",
            "loop": "; continue with the same command",
        }.get(arguments.command, "")
        sys.stderr.write(f"mlip: interrupted{hint}\n")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
