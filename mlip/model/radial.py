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
    """sin(k pi r / r_max) / r times the cutoff, k = 1..n, each of order one between neighbours.

    Args:
        r_max: cutoff radius in Angstrom.
        n_radial: n.
    """

    frequencies: Tensor

    def __init__(self, r_max: float, n_radial: int) -> None:
        super().__init__()
        self.r_max = r_max
        frequencies = math.pi / r_max * torch.arange(1, n_radial + 1, dtype=torch.float64)
        self.keep("frequencies", frequencies)

    def forward(self, distance: Tensor) -> Tensor:
        """[m] distances to [m, n]."""
        envelope = cutoff(distance / self.r_max) * math.sqrt(2.0) / distance
        waves = torch.sin(distance[:, None] * self.frequencies)
        return waves * envelope[:, None]
