"""Exchange-correlation functionals in torch: references, networks, files. No PySCF here."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ase_neuralxc.functional.checkpoint import (
        functional_hash,
        load_checkpoint,
        save_checkpoint,
    )
    from ase_neuralxc.functional.coefficient import CoefficientFunctional
    from ase_neuralxc.functional.moments import MomentFunctional
    from ase_neuralxc.functional.neural import NeuralSemilocal
    from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
    from ase_neuralxc.functional.registry import available, load_functional

# Lazy, so that the learned functionals and their files load only where they are used.
_LAZY = {
    "CoefficientFunctional": "coefficient",
    "MomentFunctional": "moments",
    "NeuralSemilocal": "neural",
    "SemilocalFunctional": "protocol",
    "XCFunctional": "protocol",
    "available": "registry",
    "functional_hash": "checkpoint",
    "load_checkpoint": "checkpoint",
    "load_functional": "registry",
    "save_checkpoint": "checkpoint",
}

__all__ = [
    "CoefficientFunctional",
    "MomentFunctional",
    "NeuralSemilocal",
    "SemilocalFunctional",
    "XCFunctional",
    "available",
    "functional_hash",
    "load_checkpoint",
    "load_functional",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
