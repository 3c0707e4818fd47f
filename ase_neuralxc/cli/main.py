"""Entry point of `neuralxc`: parse, run one command, turn errors into one line."""

from __future__ import annotations

from collections.abc import Sequence

from ase_neuralxc.cli.options import build_parser
from ase_neuralxc.errors import unknown_name
from ase_neuralxc.process import guarded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: arguments without the program's name; None takes those of the process.

    Returns:
        Exit code: 0 done, 1 done but not everything converged, 2 an error, 130 interrupted.
    """
    parser, options = build_parser()
    arguments, unknown = parser.parse_known_args(argv)

    def work() -> int:
        if unknown:
            raise unknown_name("option", unknown[0].split("=")[0], options[arguments.command])
        # Only now: --help and a mistyped option must not wait for ASE and SciPy.
        from ase_neuralxc.cli import commands

        return commands.COMMANDS[arguments.command](arguments)

    return guarded("neuralxc", work)
