"""The formulas of a perceptron that vanishes where two of its inputs do, with derivatives.

h(x) = x_(k-2) a(x) + x_(k-1) b(x) with a and b the two outputs of layers of tanh units. A
self-consistent field needs value and input gradient at every grid point, thousands of times, linear
response the Hessian, and training the derivatives by the weights: each comes from one pass over
cache-sized blocks, without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

#: Rows per block on a CPU: long enough to hide the calls, short enough for the caches.
_ROWS = 2048
#: The same where a point has several arrays of the size of its units.
_FEWER_ROWS = 512


def value_and_gradient(
    weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Compute h and its gradient in the way that the situation allows.

    Differentiable if gradients are enabled, else on a CPU in blocks.

    Args:
        weights: of the layers, [units, inputs] each.
        biases: [units] each.
        inputs: [n, k] float64.
        with_gradient: whether to return the gradient.

    Returns:
        [n] values, and [n, k] gradient or None; float64.
    """
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


def hessian(weights: Sequence[Tensor], biases: Sequence[Tensor], inputs: Tensor) -> Tensor:
    """Second derivatives of h by the inputs, without a graph.

    With z_l what enters layer l, the Hessian of y.(a, b) at fixed y is the sum over layers of
    J_l^T diag(dh/du_l u_l'') J_l, J_l = dz_l/dx: one pass forward for the tangents J and one
    backward. The anchors y = (x_(k-2), x_(k-1)) add the gradients of a and b.

    Args:
        weights: of the layers, [units, inputs] each.
        biases: [units] each.
        inputs: [n, k] float64.

    Returns:
        [n, k, k] float64, symmetric.
    """
    with torch.no_grad():
        scaled, shifted = _logistic(weights, biases)
        x = inputs.to(scaled[0].dtype)
        rows = _FEWER_ROWS if x.device.type == "cpu" else max(len(x), 1)
        blocks = [_hessian_block(scaled, shifted, part) for part in x.split(rows)]
        found = torch.cat(blocks).to(torch.float64)
        return 0.5 * (found + found.mT)  # exactly: sums over units round either side on its own


def _hessian_block(weights: Sequence[Tensor], biases: Sequence[Tensor], x: Tensor) -> Tensor:
    """Do it for all rows at once, from logistic units: u' = u (1 - u), u'' = u' (1 - 2 u)."""
    k = x.shape[1]
    first = weights[0].t().contiguous()  # of the first layer, J is the same for all rows
    units = [torch.sigmoid(torch.addmm(biases[0], x, first))]
    outgoing = (units[0] * (1.0 - units[0])) * first[:, None]  # du/dx, [k, n, units]
    tangents = []
    for weight, bias in zip(weights[1:-1], biases[1:-1], strict=True):
        tangents.append(torch.mm(outgoing.flatten(0, 1), weight.t()).view(k, len(x), -1))
        units.append(torch.sigmoid(torch.addmm(bias, units[-1], weight.t())))
        outgoing = tangents[-1] * (units[-1] * (1.0 - units[-1]))
    slopes = torch.mm(weights[-1], outgoing.flatten(0, 1).t()).view(2, k, len(x))
    result = nn.functional.pad(slopes.permute(2, 1, 0), (k - 2, 0))  # the anchors come last
    result = result + result.transpose(1, 2)
    adjoint = x[:, -2:] @ weights[-1]
    for layer in range(len(units) - 1, 0, -1):
        adjoint, curvature = _through(adjoint, units[layer])
        tangent = tangents[layer - 1]
        result = result + torch.einsum("inw,jnw->nij", tangent * curvature, tangent)
        adjoint = adjoint @ weights[layer]
    products = (first[:, None] * first).reshape(k * k, -1)
    return result + (_through(adjoint, units[0])[1] @ products.t()).reshape(-1, k, k)


def _through(adjoint: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """A derivative by the outputs of logistic units, by their inputs, and times the curvature."""
    adjoint = adjoint * unit * (1.0 - unit)
    return adjoint, adjoint * (1.0 - 2.0 * unit)


def weight_gradients(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    inputs: Tensor,
    by_value: Tensor | None,
    by_gradient: Tensor | None,
) -> tuple[list[Tensor], list[Tensor]]:
    """Derivatives of sum_n (c_n h(x_n) + d_n . grad h(x_n)) by weights and biases.

    Sums over points are in float64. The formulas are made of differentiable operations.

    Args:
        weights: of the layers, [units, inputs] each.
        biases: [units] each.
        inputs: x, [n, k] float64.
        by_value: c, [n], or None for zero.
        by_gradient: d, [n, k], or None for zero.

    Returns:
        Two lists, of the shapes and dtypes of weights and biases.
    """
    scaled, shifted = _logistic(weights, biases)
    dtype = scaled[0].dtype
    rows = _FEWER_ROWS if inputs.device.type == "cpu" else max(len(inputs), 1)
    totals: list[Tensor] = [torch.zeros_like(p, dtype=torch.float64) for p in (*scaled, *shifted)]
    parts = [
        [None] * -(-len(inputs) // rows) if values is None else values.to(dtype).split(rows)
        for values in (by_value, by_gradient)
    ]
    for x, c, d in zip(inputs.to(dtype).split(rows), *parts, strict=True):
        found = _backpropagate(scaled, shifted, x, c, d)
        totals = [total + part for total, part in zip(totals, found, strict=True)]
    last = len(weights) - 1
    by_weights, by_biases = [], []
    for layer, (weight, bias) in enumerate(
        zip(totals[: last + 1], totals[last + 1 :], strict=True)
    ):
        before = 1.0 if layer == 0 else 2.0
        after = 1.0 if layer == last else 2.0
        by_biases.append((after * bias).to(dtype))
        through_bias = 0.0 if layer == 0 else after * bias[:, None]
        by_weights.append((before * after * weight - through_bias).to(dtype))
    return by_weights, by_biases


def _backpropagate(
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    x: Tensor,
    by_value: Tensor | None,
    by_gradient: Tensor | None,
) -> list[Tensor]:
    """Derivatives by all weights, then all biases, of logistic units.

    d . grad h is the derivative of h along d: units carry it forward as tangents.
    """
    units, slopes, tangents = [x], [], [by_gradient]
    incoming: list[Tensor | None] = []  # tangents of what enters each layer
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        units.append(torch.sigmoid(torch.addmm(bias, units[-1], weight.t())))
        slopes.append(units[-1] * (1.0 - units[-1]))
        before = tangents[-1]
        incoming.append(None if before is None else before @ weight.t())
        tangents.append(None if incoming[-1] is None else slopes[-1] * incoming[-1])
    anchors = x[:, -2:]
    adjoint = torch.zeros_like(anchors)
    if by_value is not None:
        adjoint = adjoint + by_value[:, None] * anchors
    turned = None
    if by_gradient is not None:
        adjoint, turned = adjoint + by_gradient[:, -2:], anchors
    by_weights, by_biases = [], []
    for layer in range(len(weights) - 1, -1, -1):
        found, tangent = adjoint.t() @ units[layer], tangents[layer]
        if turned is not None and tangent is not None:
            found = found + turned.t() @ tangent
        by_weights.append(found)
        by_biases.append(adjoint.sum(0))
        if layer == 0:
            break
        slope, entered = slopes[layer - 1], incoming[layer - 1]
        adjoint = (adjoint @ weights[layer]) * slope
        if turned is not None and entered is not None:
            turned = (turned @ weights[layer]) * slope
            adjoint = adjoint + turned * entered * (1.0 - 2.0 * units[layer])
    return [*by_weights[::-1], *by_biases[::-1]]
