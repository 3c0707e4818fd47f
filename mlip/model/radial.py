"""Functions of the distance, zero with two continuous derivatives at the cutoff."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlip.model.constants import ExactModule


def cutoff(x: Tensor) -> Tensor:
    """Polynomial envelope of Gasteiger, Gross, Guennemann (ICLR 2020), eq. 8, with p = 5.

    Args:
        x: distance over cutoff radius.

    Returns:
        1 at 0; 0 from 1 on, with first and second derivative.
    """
    x = x.clamp(max=1.0)
    square = x * x
    return 1.0 - square * square * x * (21.0 - x * (35.0 - 15.0 * x))


class BesselBasis(ExactModule):
    """k^-decay sin(k pi r / r_max) / r times the cutoff, k = 1..n, of order one between neighbours.

    The optimiser moves all weights at the same pace: functions that are scaled down are learnt
    later. With few data that is a prior for smooth radial dependence (cf. the smoothness prior of
    the atomic cluster expansion, Witt et al., J. Chem. Phys. 159, 164101, 2023).

    Args:
        r_max: cutoff radius in Angstrom.
        n_radial: n.
        decay: how the size of the functions falls with their frequency; their mean square stays.
    """

    frequencies: Tensor
    sizes: Tensor

    def __init__(self, r_max: float, n_radial: int, decay: float = 0.0) -> None:
        super().__init__()
        self.r_max = r_max
        order = torch.arange(1, n_radial + 1, dtype=torch.float64)
        sizes = order**-decay
        self.keep("frequencies", math.pi / r_max * order)
        self.keep("sizes", math.sqrt(2.0) * sizes / sizes.square().mean().sqrt())

    def forward(self, distance: Tensor) -> Tensor:
        """[m] distances to [m, n]."""
        envelope = cutoff(distance / self.r_max) / distance
        waves = torch.sin(distance[:, None] * self.frequencies)
        return waves * (envelope[:, None] * self.sizes)
