"""A small network of one output per point whose derivatives cost no autograd graph.

A self-consistent field needs value and input gradient, linear response the Hessian: each comes from
one pass without a graph (`perceptron`) and is all that is kept. Everything else is still there, and
is paid for only when asked: derivatives by the weights recompute the units, third derivatives do it
with autograd.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn

from ase_neuralxc.functional.perceptron import hessian, value_and_gradient, weight_gradients

DTYPES = {"float32": torch.float32, "float64": torch.float64}


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
        return self._with_weights(_Value.apply(inputs, self), inputs)

    def differentiable_gradient(self, inputs: Tensor, gradient: Tensor) -> Tensor:
        """Attach a gradient that is known to the inputs and the weights that it comes from.

        Args:
            inputs: [n, k] float64.
            gradient: [n, k] of `evaluate`.

        Returns:
            [n, k], the same numbers.
        """
        return self._with_weights(_Gradient.apply(inputs, gradient, self), inputs)

    def _with_weights(self, result: Tensor, inputs: Tensor) -> Tensor:
        parameters = tuple(p for p in self.parameters() if p.requires_grad)
        if not parameters:
            return result
        # Hidden in a tuple, the inputs get no edge: their derivative is that of the other node.
        zero = _Weights.apply(self, (inputs, result.shape), *parameters)
        return result + zero

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
        return value_and_gradient(tuple(self.weights), tuple(self.biases), inputs, with_gradient)


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
            gradient = ctx.network.differentiable_gradient(inputs, gradient)
        return cotangents[0][:, None] * gradient, None


class _Gradient(torch.autograd.Function):
    """The input gradient, whose derivative by the inputs takes one Hessian for all cotangents."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, gradient: Tensor, network: AnchoredNetwork) -> Tensor:
        ctx.save_for_backward(inputs)
        ctx.network, ctx.hessian = network, None
        return gradient.clone()

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None, None]:
        (inputs,) = ctx.saved_tensors
        network = ctx.network
        if torch.is_grad_enabled():
            _, gradient = network.evaluate(inputs, with_gradient=True)
            (slope,) = torch.autograd.grad(gradient, inputs, cotangents[0], create_graph=True)
            return slope, None, None
        if ctx.hessian is None:
            ctx.hessian = hessian(tuple(network.weights), tuple(network.biases), inputs)
        return torch.einsum("nij,nj->ni", ctx.hessian, cotangents[0]), None, None


class _Weights(torch.autograd.Function):
    """Zero, whose derivative with respect to the weights is that of the value or the gradient.

    A node of its own: autograd runs it only if a weight's gradient is asked for, so that a
    self-consistent field does not pay for it.
    """

    @staticmethod
    def forward(
        ctx: Any, network: AnchoredNetwork, where: tuple[Tensor, torch.Size], *parameters: Tensor
    ) -> Tensor:
        ctx.network, ctx.parameters = network, parameters
        ctx.inputs, shape = where
        return ctx.inputs.new_zeros(shape)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        network, (given,) = ctx.network, cotangents
        of_value = len(ctx.inputs.shape) > len(given.shape)
        found = weight_gradients(
            tuple(network.weights),
            tuple(network.biases),
            ctx.inputs,
            given if of_value else None,
            None if of_value else given,
        )
        parameters = (*network.weights, *network.biases)
        by_identity = dict(zip(map(id, parameters), (*found[0], *found[1]), strict=True))
        return (None, None, *(by_identity[id(p)] for p in ctx.parameters))
