"""The closed loop: the potential explores, the DFT core is asked where it matters.

`import mlip.active` is cheap: torch and pyscf are loaded when a name that needs them is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {
    "refine": "mlip.active.refinement",
    "RefinedCalculator": "mlip.active.refined_calculator",
    "relax_refined": "mlip.active.refined",
    "run_loop": "mlip.active.loop",
    "read_loop_config": "mlip.active.loop_config",
    "select": "mlip.active.selection",
}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
