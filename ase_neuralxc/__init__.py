"""Neural exchange-correlation functionals as an ASE calculator.

`import ase_neuralxc` is cheap: torch and pyscf are loaded when a name that needs them is used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "NeuralXC": "ase_neuralxc.calculator",
    "TransitionConstraint": "ase_neuralxc.excited.transition",
    "SpinState": "ase_neuralxc.records",
    "FidelityTag": "ase_neuralxc.records",
    "LabelRecord": "ase_neuralxc.records",
    "SCFNotConverged": "ase_neuralxc.errors",
    "InvalidInputError": "ase_neuralxc.errors",
    "load_functional": "ase_neuralxc.functional",
}

__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
