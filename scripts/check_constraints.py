"""Exact constraints of functionals, measured and side by side.

python scripts/check_constraints.py my-functional.safetensors
python scripts/check_constraints.py pbe r2scan --against libxc:b3lyp
"""

from __future__ import annotations

import argparse
import json

from ase_neuralxc.backend.libxc import find_functional
from ase_neuralxc.process import guarded
from ase_neuralxc.training.exactness import report, residuals


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("functional", nargs="+", help="names, checkpoints, or libxc:NAME")
    parser.add_argument(
        "--against",
        nargs="*",
        default=["libxc:b3lyp", "pbe", "r2scan"],
        help="functionals beside them (default: libxc:b3lyp pbe r2scan)",
    )
    parser.add_argument("--json", action="store_true", help="write JSON instead of a table")
    arguments = parser.parse_args()
    names = dict.fromkeys([*arguments.functional, *arguments.against])
    functionals = [find_functional(name) for name in names]
    if arguments.json:
        found = {f.name: {r.name: r.value for r in residuals(f)} for f in functionals}
        print(json.dumps(found, indent=1))
    else:
        print(report(functionals))
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("check_constraints", main))
