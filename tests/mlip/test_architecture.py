"""The layers of mlip, read from the sources, and what importing it loads."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "mlip").rglob("*.py"))

# What each part may import of mlip; `training.checkpoint` is how a calculator reads a model.
ALLOWED = {
    "data": {"data"},
    "model": {"data", "model"},
    "training": {"data", "model", "training"},
    "evaluation": {"data", "model", "training"},
    "calculator": {"data", "model", "training", "evaluation"},
    "cli": {"data", "model", "training", "calculator", "cli", "active"},
    "active": {"data", "model", "training", "evaluation", "calculator", "active"},
}
CORE = {"records", "workflows", "campaign", "errors", "__version__"}


def imported(path):
    """Dotted names that a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part_of(path):
    name = path.relative_to(ROOT / "mlip").parts[0].removesuffix(".py")
    return None if name == "__init__" else name


def test_every_part_has_a_place():
    parts = {part_of(path) for path in SOURCES} - {None}
    assert {"data", "model", "training", "calculator", "cli"} <= parts <= set(ALLOWED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_keep_their_direction(path):
    part = part_of(path)
    for name in imported(path):
        library, _, rest = name.partition(".")
        other = rest.split(".")[0]
        if library == "mlip":
            assert part is not None
            assert other in ALLOWED[part], f"{part} imports {name}"
        if library == "ase_neuralxc" and part != "active":
            assert other in CORE, f"{part} imports {name}"
        assert library not in {"pyscf", "gpu4pyscf"}


def test_importing_loads_no_torch():
    code = "import sys, mlip; print(sorted({'torch', 'pyscf', 'ase_neuralxc'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
