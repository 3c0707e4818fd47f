"""The layers of the package: who may import whom, read from the sources."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "ase_neuralxc"

# A part may import itself and parts of a lower layer, never a neighbour of the same layer.
LAYERS = [
    {"errors"},
    {"records", "settings", "process"},
    {"features", "workflows", "campaign"},
    {"functional"},
    {"backend"},
    {"terms", "derivatives", "response", "excited"},
    {"fidelity", "report", "levels", "recommended"},
    {"calculator", "training"},
    {"labeller"},
    {"validation"},
    {"cli"},
]
LAYER = {part: i for i, parts in enumerate(LAYERS) for part in parts}

# What a part may have of the package beyond the order of the layers: closed lists.
ONLY_PARTS = {
    "records": {"errors"},
    "settings": {"errors"},
    "process": {"errors"},
    "workflows": {"records", "errors"},
    "campaign": {"records", "errors"},
}
FORBIDDEN_LIBRARIES = {
    "features": {"pyscf", "gpu4pyscf"},
    "functional": {"pyscf", "gpu4pyscf"},
    "workflows": {"torch", "pyscf", "gpu4pyscf"},
    "campaign": {"torch", "pyscf", "gpu4pyscf"},
}
ONLY_LIBRARIES = {
    "records": {"numpy", "ase"},
    "settings": {"yaml"},
    "errors": set(),
    "process": set(),
}
FORBIDDEN_EVERYWHERE = {"mlip"}


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    `target` is the full dotted name of a module, or of an attribute of one; `at_import` tells
    imports that run when the module is loaded from those inside functions.
    """

    target: str
    at_import: bool


def is_type_checking(node):
    test = node.test
    return getattr(test, "id", getattr(test, "attr", None)) == "TYPE_CHECKING"


def imports_of(source, module, is_package):
    """Imports of a module's source; those for type checkers only do not count."""
    found = []

    def visit(node, at_import):
        if isinstance(node, ast.If) and is_type_checking(node):
            for child in node.orelse:
                visit(child, at_import)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, at_import) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if is_package else module.split(".")[:-1]
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            found.extend(Import(f"{base}.{alias.name}", at_import) for alias in node.names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_import and not inside)

    visit(ast.parse(source), True)
    return found


def part_of(module):
    """The part of the package that a dotted name belongs to, None for the package itself."""
    names = module.split(".")
    return names[1] if len(names) > 1 else None


def violations(module, imports):
    """Rules that the imports of a module break, in words."""
    part = part_of(module)
    broken = []
    for target in sorted({i.target for i in imports}):
        library = target.split(".")[0]
        if library in FORBIDDEN_EVERYWHERE:
            broken.append(f"{module} imports {target}")
        elif part is None:
            if library != "importlib" and library not in sys.stdlib_module_names:
                broken.append(f"{module} imports {target}: the package itself must stay light")
        elif library == PACKAGE:
            other = part_of(target)
            allowed = ONLY_PARTS.get(part)
            if other == part or other not in LAYER:
                continue  # itself, or an attribute of the package such as __version__
            if LAYER[other] >= LAYER[part]:
                broken.append(f"{module} imports {target}: not a lower layer")
            elif allowed is not None and other not in allowed:
                broken.append(f"{module} imports {target}: {part} may import {sorted(allowed)}")
        elif library in FORBIDDEN_LIBRARIES.get(part, ()):
            broken.append(f"{module} imports {target}")
        elif (
            part in ONLY_LIBRARIES
            and library not in ONLY_LIBRARIES[part]
            and library not in sys.stdlib_module_names
        ):
            broken.append(f"{module} imports {target}: only {sorted(ONLY_LIBRARIES[part])}")
    return broken


def resolve(target, modules):
    """The module of the package that a dotted name is or belongs to, None for libraries."""
    while target.split(".")[0] == PACKAGE:
        if target in modules:
            return target
        target = target.rpartition(".")[0]
    return None


def cycle(imports):
    """A cycle among imports that run at loading, as a list of modules, or None."""
    graph = {
        module: {
            other
            for i in found
            if i.at_import and (other := resolve(i.target, imports)) not in (None, module)
        }
        for module, found in imports.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def modules_of(package):
    """Imports of every module of a package."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        is_package = names[-1] == "__init__"
        module = ".".join(names[:-1] if is_package else names)
        found[module] = imports_of(path.read_text(encoding="utf-8"), module, is_package)
    return found


@pytest.fixture(scope="module")
def package():
    """Imports of every module of the DFT core."""
    return modules_of(PACKAGE)


def test_the_potential_meets_the_dft_core_in_one_place():
    shared = {"errors", "process", "records", "settings", "workflows", "campaign", "__version__"}
    broken = []
    for module, found in modules_of("mlip").items():
        part = part_of(module)
        for target in {i.target for i in found}:
            names = [*target.split("."), "", ""]
            if names[0] == PACKAGE and part != "active" and names[1] not in shared:
                broken.append(f"{module} imports {target}")
            if names[:2] == ["mlip", "active"] and part not in ("active", "cli"):
                broken.append(f"{module} imports {target}")
    assert broken == []


def test_every_part_has_a_layer(package):
    parts = {part_of(module) for module in package} - {None}
    assert {"records", "functional", "backend", "campaign"} <= parts
    assert parts <= set(LAYER)


def test_imports_keep_their_direction(package):
    broken = [text for module, found in package.items() for text in violations(module, found)]
    assert broken == []


def test_no_import_cycles(package):
    assert cycle(package) is None


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [
        ("records.spin", "import scipy.linalg", "only ['ase', 'numpy']"),
        ("records.spin", "from ase_neuralxc.functional import lda", "not a lower layer"),
        ("records.spin", "def f():\n    from mlip.model import x", "imports mlip.model.x"),
        ("functional.pbe", "from pyscf import dft", "imports pyscf.dft"),
        ("backend.molecular", "from ..terms import field", "not a lower layer"),
        ("terms.field", "from ase_neuralxc import response", "not a lower layer"),
        ("workflows.relax", "import torch", "imports torch"),
        ("workflows.relax", "from ase_neuralxc.campaign import Campaign", "not a lower layer"),
        ("campaign.engine", "import ase_neuralxc.calculator", "not a lower layer"),
        ("calculator", "if True:\n    import ase_neuralxc.cli.main", "not a lower layer"),
        ("", "import torch", "must stay light"),
    ],
)
def test_the_rules_find_what_breaks_them(module, source, broken):
    name = f"{PACKAGE}.{module}".rstrip(".")
    (text,) = violations(name, imports_of(source, name, is_package=not module))
    assert broken in text


def test_the_rules_let_pass_what_is_allowed():
    source = (
        "from __future__ import annotations\nimport json\nfrom typing import TYPE_CHECKING\n"
        "import numpy as np\nfrom ase_neuralxc.errors import InvalidInputError\n"
        "from . import units\nif TYPE_CHECKING:\n    import torch\n"
    )
    name = f"{PACKAGE}.records.spin"
    found = imports_of(source, name, is_package=False)
    assert f"{PACKAGE}.records.units" in {i.target for i in found}
    assert violations(name, found) == []


def test_a_cycle_is_found():
    def module(name, source):
        return imports_of(source, f"{PACKAGE}.{name}", is_package=False)

    looped = {
        f"{PACKAGE}.a": module("a", f"from {PACKAGE}.b import x"),
        f"{PACKAGE}.b": module("b", f"from {PACKAGE} import a"),
    }
    assert set(cycle(looped)) == set(looped)
    # an import inside a function runs later and is no cycle
    looped[f"{PACKAGE}.b"] = module("b", f"def f():\n    from {PACKAGE} import a")
    assert cycle(looped) is None


@pytest.mark.parametrize("parts", [(), ("errors", "records", "workflows", "campaign")])
def test_light_imports_load_neither_torch_nor_pyscf(parts):
    names = ", ".join([PACKAGE, *(f"{PACKAGE}.{part}" for part in parts)])
    code = f"import sys, {names}; print(sorted({{'torch', 'pyscf'}} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
