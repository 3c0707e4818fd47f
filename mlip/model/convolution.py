"""The Gaunt product of features with the harmonics of edges, as one small matrix per edge.

The matrix M_e = sum_m2 Y_m2(e) Gaunt[m1, m2, m3] does not depend on the channel: it is made once
per edge by one matrix product with the pre-contracted coefficients, and applied to all channels by
a batched one. Weights per degree commute with the sum over neighbours and with the reading of the
sender's features: they act on atoms, of which there are many fewer than edges.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlip.model.constants import ExactModule
from mlip.model.gaunt import DegreeWeights, full_gaunt_tensor
from mlip.model.harmonics import degrees, n_components


class _Messages(torch.autograd.Function):
    """matrices @ features * radial, all per edge, in as few passes over memory as there are."""

    @staticmethod
    def forward(ctx: Any, matrices: Tensor, features: Tensor, radial: Tensor) -> Tensor:
        product = torch.bmm(matrices, features)
        if not any(ctx.needs_input_grad):
            return product.mul_(radial[:, None])
        ctx.save_for_backward(matrices, features, radial, product)
        return product * radial[:, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        matrices, features, radial, product = ctx.saved_tensors
        if torch.is_grad_enabled():
            # The derivative is to be differentiated: the product must know where it comes from.
            product = torch.bmm(matrices, features)
        pulled = gradient * radial[:, None]
        wanted = ctx.needs_input_grad
        return (
            torch.bmm(pulled, features.mT) if wanted[0] else None,
            torch.bmm(matrices.mT, pulled) if wanted[1] else None,
            (gradient * product).sum(1) if wanted[2] else None,
        )


class GauntConvolution(ExactModule):
    """Sum over neighbours of radial weight times Y(r_e) x h_sender.

    Args:
        l_in: largest degree of the features.
        l_edge: largest degree of the edges' harmonics.
        l_out: largest degree of the result.
        channels: channels, which do not mix.
    """

    coefficients: Tensor
    degree_edge: Tensor

    def __init__(self, l_in: int, l_edge: int, l_out: int, channels: int) -> None:
        super().__init__()
        gaunt = full_gaunt_tensor(l_edge, l_out, l_in).reshape(n_components(l_edge), -1)
        self.keep("coefficients", gaunt)
        self.register_buffer("degree_edge", degrees(l_edge), persistent=False)
        self.before = DegreeWeights(l_in, channels, rank=1)
        self.edge = nn.Parameter(torch.ones(l_edge + 1))
        self.after = DegreeWeights(l_out, channels, rank=1)
        self._shape = (n_components(l_out), n_components(l_in))

    def matrices(self, harmonics: Tensor) -> Tensor:
        """The matrices of the edges, shared by all channels.

        Args:
            harmonics: [e, (l_edge + 1)^2] of the edges' directions.

        Returns:
            [e, (l_out + 1)^2, (l_in + 1)^2].
        """
        weights = self.edge.index_select(0, self.degree_edge)
        weighted = self.coefficients * weights[:, None]
        return (harmonics @ weighted).reshape(-1, *self._shape)

    def messages(self, harmonics: Tensor, features: Tensor, radial: Tensor) -> Tensor:
        """What each edge carries.

        Args:
            harmonics: [e, (l_edge + 1)^2].
            features: [e, (l_in + 1)^2, channels] of the atoms that send.
            radial: [e, channels].

        Returns:
            [e, (l_out + 1)^2, channels].
        """
        messages: Tensor = _Messages.apply(self.matrices(harmonics), features, radial)
        return messages

    def forward(
        self, features: Tensor, harmonics: Tensor, radial: Tensor, edge_index: Tensor
    ) -> Tensor:
        """One convolution.

        Args:
            features: [(l_in + 1)^2, n, channels].
            harmonics: [e, (l_edge + 1)^2] of the edges' directions.
            radial: [e, channels] weights that depend on distance.
            edge_index: [2, e] sender and receiver.

        Returns:
            [(l_out + 1)^2, n, channels].
        """
        sender, receiver = edge_index
        sent = self.before(features, 0).transpose(0, 1).index_select(0, sender)
        messages = self.messages(harmonics, sent, radial)
        total = messages.new_zeros(features.shape[1], *messages.shape[1:])
        return self.after(total.index_add(0, receiver, messages).transpose(0, 1), 0)
