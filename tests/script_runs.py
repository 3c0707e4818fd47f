"""How tests load and run the files of `scripts/`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"


def load_script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """One of the scripts as a module, known to pickle as long as the test runs."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    script = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, script)
    spec.loader.exec_module(script)
    return script


def run_script(script: ModuleType | str, monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> int:
    """Exit status of a script with these arguments, without the guard of its last line."""
    module = load_script(script, monkeypatch) if isinstance(script, str) else script
    monkeypatch.setattr("sys.argv", [f"{module.__name__}.py", *map(str, arguments)])
    return module.main()
