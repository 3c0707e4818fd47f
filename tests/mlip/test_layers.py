"""The layers of mlip, and what it may have of the DFT core: read from the sources."""

import subprocess
import sys

import pytest
from test_architecture import ROOT, imports_of, part_of

# A part may import itself and parts of a lower layer.
LAYERS = [
    {"page"},
    {"data"},
    {"model"},
    {"training"},
    {"evaluation"},
    {"calculator", "torchsim"},
    {"active"},
    {"cli"},
]
LAYER = {part: i for i, parts in enumerate(LAYERS) for part in parts}
FROM_THE_CORE = {"records", "settings", "workflows", "campaign", "errors", "process", "__version__"}
# active learning asks the DFT core
FROM_THE_CORE_IN_ACTIVE = FROM_THE_CORE | {"calculator", "labeller"}
FORBIDDEN = {"pyscf", "gpu4pyscf", "gpaw"}


def violations(module, imports):
    part = part_of(module)
    core = FROM_THE_CORE_IN_ACTIVE if part == "active" else FROM_THE_CORE
    broken = []
    for target in sorted({i.target for i in imports}):
        library, other = target.split(".")[0], part_of(target)
        if library in FORBIDDEN or (library == "ase_neuralxc" and other not in core):
            broken.append(f"{module} imports {target}")
        elif (
            library == "mlip"
            and part is not None
            and other in LAYER
            and other != part
            and LAYER[other] >= LAYER[part]
        ):
            broken.append(f"{module} imports {target}: not a lower layer")
    return broken


def modules():
    for path in sorted((ROOT / "mlip").rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        is_package = names[-1] == "__init__"
        module = ".".join(names[:-1] if is_package else names)
        yield module, imports_of(path.read_text(encoding="utf-8"), module, is_package)


def test_imports_keep_their_direction():
    found = dict(modules())
    assert {part_of(module) for module in found} - {None} <= set(LAYER)
    assert [text for module, imports in found.items() for text in violations(module, imports)] == []


@pytest.mark.parametrize(
    ("module", "source", "broken"),
    [("data.graph", "from mlip.model import gaunt", "not a lower layer"),
     ("model.gaunt", "from ase_neuralxc.calculator import NeuralXC", "imports ase_neuralxc.calc"),
     ("calculator", "import pyscf", "imports pyscf")],
)  # fmt: skip
def test_the_rules_find_what_breaks_them(module, source, broken):
    (text,) = violations(f"mlip.{module}", imports_of(source, f"mlip.{module}", False))
    assert broken in text


def test_import_is_light():
    code = "import sys, mlip; print(sorted({'torch', 'pyscf'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
