"""From invariants to energies and moments.

Energies have a shallow ensemble of readouts on shared features (Kellner and Ceriotti, Mach. Learn.:
Sci. Technol. 5, 035006, 2024): its spread estimates the uncertainty in the same pass.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlip.model.layers import SILU_GAIN, Linear, ScalarNetwork
from mlip.model.settings import ModelSettings
from mlip.model.slots import EdgeSlots

#: Hidden units of each readout.
WIDTH = 32


class EnsembleReadout(nn.Module):
    """Independent networks with one hidden layer, evaluated together.

    Args:
        n_in: invariants, which pass SiLU first.
        members: networks.
    """

    def __init__(self, n_in: int, members: int) -> None:
        super().__init__()
        self.hidden = Linear(n_in, members * WIDTH)
        self.weight = nn.Parameter(torch.randn(members, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in] to [n, members]."""
        x = self.hidden(nn.functional.silu(x) * SILU_GAIN)
        x = (nn.functional.silu(x) * SILU_GAIN).view(len(x), *self.weight.shape)
        return (x * self.weight).sum(2) / WIDTH**0.5


class MomentReadout(nn.Module):
    """Moments of atoms.

    With moments as an input they are m_i (1 + a_i) + sum_j b_ij m_j: odd under time reversal and
    turning with the moments. Without, they are magnitudes: nothing tells up from down.

    Args:
        channels: invariants of the first round.
        n_basis: radial functions.
        settings: of the model.
    """

    def __init__(self, channels: int, n_basis: int, settings: ModelSettings) -> None:
        super().__init__()
        self._scale = settings.moment_scale
        self.network = ScalarNetwork(channels + settings.hidden, settings.hidden, 1)
        self.exchange = Linear(n_basis, 1) if settings.moments != "none" else None
        self._neighbours = settings.average_neighbours

    def forward(
        self,
        first: Tensor,
        last: Tensor,
        basis: Tensor,
        slots: EdgeSlots,
        sent: Tensor | None,
        moments: Tensor | None,
    ) -> Tensor:
        """Moments in mu_B.

        Args:
            first: [n, channels] invariants of the first round.
            last: [n, hidden] invariants of the second round.
            basis: [n w, n_basis] radial functions of the slots.
            slots: of the edges.
            sent: [n w, a] saturated moments of the neighbours, None if they are no input.
            moments: [n, a] moments over `moment_scale`, None if they are no input.

        Returns:
            [n] for signed moments and magnitudes, [n, 3] for vectors.
        """
        scalars = self.network(torch.cat([first, last], dim=1))
        if moments is None or sent is None or self.exchange is None:
            return scalars[:, 0] * self._scale
        weights = self.exchange(basis) / self._neighbours**0.5
        neighbours = (weights * sent).view(slots.n_atoms, slots.width, -1).sum(1)
        out = (moments * (1.0 + scalars) + neighbours) * self._scale
        return out[:, 0] if out.shape[1] == 1 else out
