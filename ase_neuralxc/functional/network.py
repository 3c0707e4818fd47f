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
#: Rows per block on a CPU: long enough to hide the calls, short enough for the caches.
_ROWS = 2048


class AnchoredNetwork(nn.Module):
    """h(x) = x_(k-2) a(x) + x_(k-1) b(x), with a and b the two outputs of a perceptron.

    h vanishes where the last two inputs vanish, whatever the weights; by Hadamard's lemma every
    smooth function that does so has this form. Hidden units are tanh: smooth, so that second
    derivatives exist, and with a slope that costs no second exponential.

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
            # 5/3 keeps the variance of tanh units from layer to layer. Drawn in float64, so that
            # both dtypes start from the same weights.
            std = (head_scale if index == depth else 5.0 / 3.0) / math.sqrt(fan_in)
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
        return _perceptron(tuple(self.weights), tuple(self.biases), inputs, with_gradient)


def _perceptron(
    weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute h [n] and its gradient [n, k] in float64, in the way that the situation allows."""
    scaled, shifted = _logistic(weights, biases)
    x = inputs.to(scaled[0].dtype)
    if torch.is_grad_enabled() or x.device.type != "cpu":
        value, gradient = _evaluate(scaled, shifted, x, with_gradient)
    else:
        value, gradient = _evaluate_in_blocks(scaled, shifted, x, with_gradient)
    return value.to(torch.float64), None if gradient is None else gradient.to(torch.float64)


def perceptron(weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Evaluate h of an `AnchoredNetwork` as a function of its weights, for `torch.func`.

    Args:
        weights: of the layers, [units, inputs] each.
        biases: [units] each.
        inputs: [n, k] of the dtype of the weights.

    Returns:
        [n].
    """
    return _evaluate(*_logistic(weights, biases), inputs, with_gradient=False)[0]


def _logistic(
    weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Rewrite tanh(z) as 2 sigmoid(2 z) - 1 and absorb all but the sigmoid in the next layer.

    torch's vectorised sigmoid takes a sixth of the time of its tanh.
    """
    last = len(weights) - 1
    scaled, shifted = [], []
    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        before = 1.0 if layer == 0 else 2.0
        after = 1.0 if layer == last else 2.0
        scaled.append((before * after) * weight)
        shifted.append(after * (bias if layer == 0 else bias - weight.sum(1)))
    return scaled, shifted


def _evaluate(
    weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute h [n] and its gradient [n, k] from logistic units, in the weights' precision."""
    anchors = x[:, -2:].t()
    hidden = [x]
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        hidden.append(torch.sigmoid(torch.addmm(bias, hidden[-1], weight.t())))
    outputs = torch.addmm(biases[-1][:, None], weights[-1], hidden[-1].t())
    value = (outputs * anchors).sum(0)
    if not with_gradient:
        return value, None
    adjoint = anchors.t() @ weights[-1]
    for weight, unit in zip(reversed(weights[:-1]), reversed(hidden[1:]), strict=True):
        adjoint = (adjoint * unit * (1.0 - unit)) @ weight
    return value, adjoint + nn.functional.pad(outputs, (0, 0, x.shape[1] - 2, 0)).t()


def _evaluate_in_blocks(
    weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Do the same without a graph, in memory that is reused: fresh pages cost more than sums.

    Thin products are written as [2, width] @ [width, rows], the order that the library is fast in.
    """
    n, k = x.shape
    value = x.new_empty(n)
    gradient = x.new_empty(k, n) if with_gradient else None
    rows = min(n, _ROWS)
    units = [x.new_empty(rows, weight.shape[0]) for weight in weights[:-1]]
    adjoint, spare = (torch.empty_like(units[-1]) for _ in range(2))
    transposed = [weight.t() for weight in weights]
    first = transposed[0].contiguous()
    for start in range(0, n, _ROWS):
        block = x[start : start + _ROWS]
        size = block.shape[0]
        hidden = block
        for weight, bias, unit in zip(transposed[:-1], biases[:-1], units, strict=True):
            hidden = torch.addmm(bias, hidden, weight, out=unit[:size]).sigmoid_()
        anchors = block[:, -2:]
        outputs = torch.addmm(biases[-1][:, None], weights[-1], hidden.t())
        torch.sum(outputs * anchors.t(), 0, out=value[start : start + size])
        if gradient is None:
            continue
        torch.mm(anchors, weights[-1], out=adjoint[:size])
        for layer in range(len(units) - 1, -1, -1):
            part = adjoint[:size]
            torch.ops.aten.sigmoid_backward.grad_input(part, units[layer][:size], grad_input=part)
            if layer:
                torch.mm(part, weights[layer], out=spare[:size])
                adjoint, spare = spare, adjoint
        slope = torch.mm(first, adjoint[:size].t())
        slope[-2:] += outputs
        gradient[:, start : start + size] = slope
    return value, None if gradient is None else gradient.t()


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
            # Aliases: the inputs may depend on the weights too, which is not this node's affair.
            aliases = [p.view_as(p) for p in ctx.parameters]
            alias_of = dict(zip(map(id, ctx.parameters), aliases, strict=True))
            weights, biases = (
                [alias_of.get(id(p), p) for p in group]
                for group in (ctx.network.weights, ctx.network.biases)
            )
            value, _ = _perceptron(weights, biases, ctx.inputs, with_gradient=False)
            gradients = torch.autograd.grad(value, aliases, cotangents[0], create_graph=higher)
        return (None, None, *gradients)
