"""The Gaunt product of features with the harmonics of edges, as one small matrix per edge.

The matrix M_e = sum_m2 Y_m2(e) Gaunt[m1, m2, m3] does not depend on the channel: it is made once
per edge by one matrix product with the pre-contracted coefficients, and applied to all channels by
a batched one. Radial weights multiply channels afterwards.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlip.model.gaunt import full_gaunt_tensor
from mlip.model.harmonics import degrees, n_components


class GauntConvolution(nn.Module):
    """Y(r_e) x h_e for many edges, with weights for each degree before and after.

    Args:
        l_in: largest degree of the features.
        l_edge: largest degree of the edges' harmonics.
        l_out: largest degree of the result.
        channels: channels, which do not mix.
    """

    coefficients: Tensor
    degree_in: Tensor
    degree_edge: Tensor
    degree_out: Tensor

    def __init__(self, l_in: int, l_edge: int, l_out: int, channels: int) -> None:
        super().__init__()
        gaunt = full_gaunt_tensor(l_edge, l_out, l_in).reshape(n_components(l_edge), -1)
        self.register_buffer("coefficients", gaunt, persistent=False)
        self.register_buffer("degree_in", degrees(l_in), persistent=False)
        self.register_buffer("degree_edge", degrees(l_edge), persistent=False)
        self.register_buffer("degree_out", degrees(l_out), persistent=False)
        self.before = nn.Parameter(torch.ones(l_in + 1, channels))
        self.edge = nn.Parameter(torch.ones(l_edge + 1))
        self.after = nn.Parameter(torch.ones(l_out + 1, channels))

    def edge_matrices(self, harmonics: Tensor) -> Tensor:
        """The matrices of the edges, to be used for all layers and channels.

        Args:
            harmonics: [e, (l_edge + 1)^2].

        Returns:
            [e, (l_out + 1)^2, (l_in + 1)^2].
        """
        weighted = harmonics * self.edge.index_select(0, self.degree_edge)
        flat = weighted @ self.coefficients.to(harmonics.dtype)
        return flat.reshape(len(harmonics), len(self.degree_out), len(self.degree_in))

    def forward(self, harmonics: Tensor, features: Tensor, radial: Tensor) -> Tensor:
        """Messages along edges.

        Args:
            harmonics: [e, (l_edge + 1)^2] of the edges' directions.
            features: [e, (l_in + 1)^2, channels] of the atoms that send.
            radial: [e, channels] weights that depend on distance.

        Returns:
            [e, (l_out + 1)^2, channels].
        """
        weighted = features * self.before.index_select(0, self.degree_in)
        product = torch.bmm(self.edge_matrices(harmonics), weighted)
        scale = radial[:, None] * self.after.index_select(0, self.degree_out)
        return product * scale
