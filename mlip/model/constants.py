"""Modules whose constants survive a change of precision.

`module.float().double()` rounds ordinary buffers to single precision for good, and a grid that is
exact only to 1e-8 makes a double-precision model that is equivariant only to 1e-8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class ExactModule(nn.Module):
    """Keeps double-precision originals of its constants."""

    def __init__(self) -> None:
        super().__init__()
        self._originals: dict[str, Tensor] = {}

    def keep(self, name: str, constant: Tensor) -> None:
        """Register a constant, found as `self.NAME` on the module's device and in its precision.

        Args:
            name: attribute.
            constant: float64 tensor.
        """
        self._originals[name] = constant
        self.register_buffer(name, constant.to(torch.get_default_dtype()), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        for name, original in self._originals.items():
            current = getattr(self, name)
            setattr(self, name, original.to(device=current.device, dtype=current.dtype))
        return self
