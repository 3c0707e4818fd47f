"""A small network of one output per point whose gradient costs no autograd graph.

A self-consistent field needs value and input gradient at every grid point, thousands of times, and
nothing else. Both come from one pass over cache-sized blocks that keeps only the gradient [n, k].
Everything else is still there, and is paid for only when asked: second derivatives and derivatives
with respect to the weights recompute the same formulas with autograd.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

DTYPES = {"float32": torch.float32, "float64": torch.float64}
#: Rows per block on a CPU: a few arrays [rows, 64] in float32 then stay in the second-level cache.
_ROWS = 1024


class AnchoredNetwork(nn.Module):
    """h(x) = x_(k-2) a(x) + x_(k-1) b(x), with a and b the two outputs of a perceptron.

    h vanishes where the last two inputs vanish, whatever the weights; by Hadamard's lemma every
    smooth function that does so has this form. Hidden units are SiLU: smooth, so that second
    derivatives exist.

    Args:
        inputs: number of inputs k.
        width: units of each hidden layer.
        depth: number of hidden layers.
        dtype: "float32" or "float64".
        generator: source of the initial weights.
        head_scale: scale of the initial last layer.
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        depth: int,
        dtype: str,
        generator: torch.Generator,
        head_scale: float,
    ) -> None:
        super().__init__()
        sizes = (inputs, *(width,) * depth, 2)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for index, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
            # SiLU about halves the second moment of a normal input, hence 2 / fan_in. Drawn in
            # float64, so that both dtypes start from the same weights.
            std = head_scale / math.sqrt(fan_in) if index == depth else math.sqrt(2.0 / fan_in)
            weight = std * torch.randn(fan_out, fan_in, generator=generator, dtype=torch.float64)
            self.weights.append(nn.Parameter(weight.to(DTYPES[dtype])))
            self.biases.append(nn.Parameter(torch.zeros(fan_out, dtype=DTYPES[dtype])))

    def forward(self, inputs: Tensor) -> Tensor:
        """Evaluate h.

        Args:
            inputs: [n, k] float64.

        Returns:
            [n] float64, twice differentiable in inputs and weights.
        """
        if not torch.is_grad_enabled():
            return self.evaluate(inputs, with_gradient=False)[0]
        value = _Value.apply(inputs, self)
        parameters = tuple(p for p in self.parameters() if p.requires_grad)
        if parameters:
            # Hidden in a tuple, the inputs get no edge: their derivative is that of _Value.
            value = value + _WeightGradient.apply(self, (inputs,), *parameters)
        return value

    def zero_head_(self) -> None:
        """Set the last layer to zero, so that h is zero everywhere."""
        with torch.no_grad():
            self.weights[-1].zero_()
            self.biases[-1].zero_()

    def evaluate(self, inputs: Tensor, with_gradient: bool) -> tuple[Tensor, Tensor | None]:
        """Compute h and its gradient; differentiable if gradients are enabled, else in blocks.

        Args:
            inputs: [n, k] float64.
            with_gradient: whether to return the gradient.

        Returns:
            [n] values, and [n, k] gradient or None; float64.
        """
        # Taken out of the lists once: ParameterList is slow, and blocks are many.
        weights, biases = tuple(self.weights), tuple(self.biases)
        x = inputs.to(weights[0].dtype)
        if torch.is_grad_enabled() or x.device.type != "cpu":
            value, gradient = _evaluate(weights, biases, x, with_gradient)
        else:
            value = x.new_empty(x.shape[0])
            gradient = torch.empty_like(x) if with_gradient else None
            for start in range(0, x.shape[0], _ROWS):
                block = slice(start, start + _ROWS)
                value[block], slope = _evaluate(weights, biases, x[block], with_gradient)
                if gradient is not None and slope is not None:
                    gradient[block] = slope
        return value.to(torch.float64), None if gradient is None else gradient.to(torch.float64)


def _evaluate(
    weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute h [n] and its gradient [n, k] in the precision of the weights."""
    anchors = x[:, -2:]
    hidden, slopes = x, []
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden, slope = _silu(torch.addmm(bias, hidden, weight.t()), with_gradient)
        slopes.append(slope)
    outputs = torch.addmm(biases[-1], hidden, weights[-1].t())
    value = (outputs * anchors).sum(1)
    if not with_gradient:
        return value, None
    adjoint = anchors @ weights[-1]
    for weight, slope in zip(reversed(weights[:-1]), reversed(slopes), strict=True):
        # A slope is used once; overwritten unless autograd needs it.
        out = None if torch.is_grad_enabled() else slope
        adjoint = torch.mul(adjoint, slope, out=out) @ weight
    return value, adjoint + nn.functional.pad(outputs, (x.shape[1] - 2, 0))


def _silu(argument: Tensor, with_slope: bool) -> tuple[Tensor, Tensor]:
    """SiLU and its slope, sigmoid + silu (1 - sigmoid); without it, the second is of no use."""
    if not with_slope:
        return nn.functional.silu(argument), argument
    sigmoid = torch.sigmoid(argument)
    if torch.is_grad_enabled():
        value = argument * sigmoid
        return value, torch.addcmul(sigmoid, value, 1.0 - sigmoid)
    # In place: fresh memory costs more than the arithmetic.
    value = argument.mul_(sigmoid)
    return value, sigmoid.addcmul_(value, 1.0 - sigmoid)


class _Value(torch.autograd.Function):
    """h with its input gradient computed along the way; weights are not inputs of this node."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, network: AnchoredNetwork) -> Tensor:
        value, gradient = network.evaluate(inputs, with_gradient=True)
        ctx.save_for_backward(inputs, gradient)
        ctx.network = network
        return value

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        inputs, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():
            _, gradient = ctx.network.evaluate(inputs, with_gradient=True)
        return cotangents[0][:, None] * gradient, None


class _WeightGradient(torch.autograd.Function):
    """Zero, whose derivative with respect to the weights is that of h.

    A node of its own: autograd runs it only if a weight's gradient is asked for, so that a
    self-consistent field does not pay for it.
    """

    @staticmethod
    def forward(
        ctx: Any, network: AnchoredNetwork, inputs: tuple[Tensor], *parameters: Tensor
    ) -> Tensor:
        ctx.network, ctx.inputs, ctx.parameters = network, inputs[0], parameters
        return inputs[0].new_zeros(inputs[0].shape[0])

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        higher = torch.is_grad_enabled()
        with torch.enable_grad():
            value, _ = ctx.network.evaluate(ctx.inputs, with_gradient=False)
            gradients = torch.autograd.grad(
                value, ctx.parameters, cotangents[0], create_graph=higher
            )
        return (None, None, *gradients)
