"""Command-line options of `mlip`; those of workflows are the fields of their settings."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import Any, NoReturn

from ase_neuralxc import __version__
from ase_neuralxc.workflows import MDSettings, RelaxSettings
from ase_neuralxc.workflows.md import ENSEMBLES

#: Commands whose options are the fields of a record.
WORKFLOWS: dict[str, type] = {"md": MDSettings, "relax": RelaxSettings}


class Parser(argparse.ArgumentParser):
    """Parser whose errors are one line with exit code 2."""

    def error(self, message: str) -> NoReturn:
        """Write one line to standard error and leave.

        Args:
            message: what is wrong.
        """
        sys.stderr.write(f"mlip: error: {message} (see {self.prog} --help)\n")
        sys.exit(2)


def workflow_keywords(arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of a workflow that were given; the others keep the workflow's own defaults.

    Args:
        arguments: the parsed command line.

    Returns:
        Keywords and values.
    """
    names = [field.name for field in dataclasses.fields(WORKFLOWS[arguments.command])]
    return {name: getattr(arguments, name) for name in names if hasattr(arguments, name)}


def build_parser() -> tuple[Parser, dict[str, list[str]]]:
    """Parser of the whole command line.

    Returns:
        The parser (`command` names the command), and the options of each command.
    """
    parser = Parser(prog="mlip", description="A spin-aware equivariant potential.")
    parser.add_argument("--version", action="version", version=f"mlip {__version__}")
    commands = parser.add_subparsers(
        dest="command", required=True, metavar="command", parser_class=Parser
    )

    def command(name: str, summary: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=summary, description=summary, allow_abbrev=False)
        made.add_argument("--quiet", action="store_true", help="no progress on standard error")
        return made

    check = command("check", "look at a data set before training on it")
    check.add_argument("data", nargs="*", help="files, campaign folders, or a .graphs file")
    check.add_argument("--config", help="training configuration: its keys, weights and files")
    check.add_argument("--key", action="append", default=[], metavar="LABEL=NAME", help=_KEY)

    convert = command("convert", "make extended XYZ of an .npz, or a .graphs file of anything")
    convert.add_argument("data", nargs="+", help="an .npz archive, or labelled structures")
    convert.add_argument("--out", required=True, help="file ending in .xyz, .extxyz or .graphs")
    convert.add_argument("--cutoff", type=float, default=5.0, help="of a .graphs file (default 5)")
    convert.add_argument(
        "--energy-unit", default="kcal/mol", help="of an .npz (default kcal/mol, as in rMD17)"
    )
    convert.add_argument("--key", action="append", default=[], metavar="LABEL=NAME", help=_KEY)

    train = command("train", "train a potential")
    train.add_argument("config", help="YAML file")
    train.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="settings to change")

    resume = command("resume", "continue a training run that was interrupted")
    resume.add_argument("run", help="folder of the run")

    evaluate = command("eval", "errors of a potential on labelled structures")
    evaluate.add_argument("model", help="file of a model or folder of its run")
    evaluate.add_argument("data", nargs="+", help="files with labels")
    evaluate.add_argument("--key", action="append", default=[], metavar="LABEL=NAME", help=_KEY)
    evaluate.add_argument("--device", default="cpu", help="torch device (default cpu)")
    evaluate.add_argument("--out", help="folder for a picture and a page")
    evaluate.add_argument("--json", action="store_true", help="write JSON instead of tables")

    loop = command("loop", "explore, select, label, train; resumable: the same command goes on")
    loop.add_argument("config", help="YAML file (examples/loop.yaml)")

    for name, summary in (("md", "molecular dynamics"), ("relax", "relax a structure")):
        made = command(name, summary)
        made.add_argument("model", help="file of a model or folder of its run")
        made.add_argument("structure", help="file with the structure, any format of ASE")
        made.add_argument("--index", default="-1", help="frame of the file (default -1)")
        made.add_argument("--device", default="cpu", help="torch device (default cpu)")
        made.add_argument("--dtype", help="float32 or float64 (default: that of the training)")
        made.add_argument("--fidelity", help="level of theory, of models that know several")
        made.add_argument("--out", help="write the last structure (extxyz)")
        made.add_argument("--plot", help="picture")
        _add_fields(made, WORKFLOWS[name])
        if name == "md":
            for ensemble in ENSEMBLES:
                made.add_argument(
                    f"--{ensemble}", dest="ensemble", action="store_const", const=ensemble,
                    default=argparse.SUPPRESS, help=f"short for --ensemble {ensemble}",
                )  # fmt: skip
    options = {
        name: [option for option in made._option_string_actions if option.startswith("--")]
        for name, made in commands.choices.items()
    }
    return parser, options


_KEY = "where a label is, for example --key energy=REF_energy"


def _value(text: str) -> Any:
    """A number where it is one, None for none, else the text."""
    if text.lower() == "none":
        return None
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _add_fields(parser: argparse.ArgumentParser, settings: type) -> None:
    group = parser.add_argument_group(f"settings of the run (see {settings.__name__})")
    for field in dataclasses.fields(settings):
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            group.add_argument(flag, action="store_true", default=argparse.SUPPRESS)
            continue
        group.add_argument(
            flag,
            type=_value,
            default=argparse.SUPPRESS,
            metavar="VALUE",
            help=f"(default {field.default})",
        )
