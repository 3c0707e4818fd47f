"""Networks in float32 far from convergence and in float64 near it.

Rounding of float32 networks moves energies by some 1e-6 Ha, not by the same amount at densities
that differ by little: below a change of 1e-7 Ha or so an SCF follows noise, and takes cycles until
two energies agree by chance. Most cycles are far from that, and keep the cheaper networks.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch

from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Relative change of the exchange-correlation energy between calls below which float64 begins. The
#: total energy, stationary where this one is not, is then within 1e-5 Ha or so of its end.
NEAR = 3e-4


def in_double_precision(functional: SemilocalFunctional) -> SemilocalFunctional:
    """The same functional with all parameters in float64.

    Args:
        functional: any semi-local functional.

    Returns:
        Itself if nothing has to change, else a copy.
    """
    if all(p.dtype == torch.float64 for p in functional.parameters()):
        return functional
    return copy.deepcopy(functional).double()


class GrowingPrecision:
    """Mixin of `TorchNumInt` that looks at the energies of an SCF, whatever drives it.

    Once precise it stays so: forces belong to the energy that was converged. Second derivatives
    keep the networks of the functional.
    """

    functional: SemilocalFunctional
    precise: SemilocalFunctional
    _last: float | None = None

    def nr_rks(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Electrons, energy and matrices of closed shells (PySCF's interface)."""
        return self._watch(super().nr_rks(*args, **kwargs))  # type: ignore[misc]

    def nr_uks(self, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        """Electrons, energy and matrices of two spins (PySCF's interface)."""
        return self._watch(super().nr_uks(*args, **kwargs))  # type: ignore[misc]

    def _watch(self, result: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        if self.precise is self.functional and np.ndim(result[1]) == 0:
            energy, last = float(result[1]), self._last
            if last is not None and abs(energy - last) < NEAR * abs(energy):
                self.precise = in_double_precision(self.functional)
            self._last = energy
        return result
