"""How tests run the command line, and what on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ase import Atoms
from ase.io import write

from ase_neuralxc.cli import main

CHEAP = ["--xc", "lda", "--basis", "sto-3g", "--grid-level", "0"]


def stretched_hydrogen(folder: Path) -> str:
    path = str(folder / "h2.xyz")
    write(path, Atoms("H2", [[0, 0, 0], [0, 0, 0.9]]), format="extxyz")
    return path


def run_json(capsys: pytest.CaptureFixture, arguments: list[str]) -> tuple[int, dict]:
    code = main([*arguments, "--json", "--quiet"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, json.loads(captured.out)


def one_error_line(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    try:
        code = main([*arguments, "--quiet"] if "--quiet" not in arguments else arguments)
    except SystemExit as leaving:  # argparse's own errors
        code = leaving.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("neuralxc: error: ")
    assert captured.err.count("\n") == 1
    return captured.err
