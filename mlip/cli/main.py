"""Entry point of `mlip`: parse, run one command, turn errors into one line."""

from __future__ import annotations

from collections.abc import Sequence

from ase_neuralxc.errors import unknown_name
from ase_neuralxc.process import guarded
from mlip.cli.options import build_parser

#: What to do after an interrupt, by command.
_CONTINUE = {
    "train": "; continue with `mlip resume`",
    "resume": "; continue with `mlip resume`",
    "loop": "; continue with the same command",
}


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

    def work() -> int:
        if unknown:
            raise unknown_name("option", unknown[0].split("=")[0], options[arguments.command])
        # Only now: --help and a mistyped option must not wait for torch.
        from mlip.cli import commands

        return commands.COMMANDS[arguments.command](arguments)

    return guarded("mlip", work, _CONTINUE.get(arguments.command, ""))
