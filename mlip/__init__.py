"""A spin-aware equivariant potential that is trained on labels and used as an ASE calculator.

`import mlip` is cheap: torch is loaded when a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import Any

_LAZY = {"MLIP": "mlip.calculator"}

__all__ = [*_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
