"""SOAP: Adam in the eigenbasis of Shampoo's preconditioners, for stacks of small matrices.

Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (2024), algorithm 3. Weights of
this package are stacks of matrices, one for each degree or element: each matrix has preconditioners
of its own, and a stack is a few batched products. On a CPU that takes less time than an
implementation for general tensors, which would also make one preconditioner of all degrees.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError

#: Of the trace of the products. Rounding would choose among directions in which gradients are
#: nothing, and with them the path of the training. At the start, smaller eigenvalues are nothing;
#: later, the basis stays where it is in directions with eigenvalues below the second number.
_NOTHING, _FLOOR = 1e-5, 1e-8


class SOAP(torch.optim.Optimizer):
    """Vectors get plain Adam; of stacks [..., m, n], sides longer than `max_dim` are not turned.

    The first step only looks at the gradient, because there is no basis yet.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: decay of the averages of gradients and of their squares; that of the
            preconditioners is the second.
        eps: added to the root of the mean square.
        weight_decay: decoupled, per step and by learning rate.
        frequency: steps between updates of the basis.
        max_dim: longest side with a preconditioner.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        betas: tuple[float, float] = (0.95, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        frequency: int = 10,
        max_dim: int = 256,
    ) -> None:
        if frequency < 1:
            raise InvalidInputError(f"frequency: expected at least 1, got {frequency}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**defaults, "frequency": frequency, "max_dim": max_dim})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step.

        Args:
            closure: computes the loss anew, as for other optimisers of torch; None for gradients
                that are there.

        Returns:
            What the closure returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        gradient = parameter.grad
        assert gradient is not None
        shape = gradient.shape
        flat = gradient.reshape(-1, *shape[-2:]) if gradient.ndim > 1 else gradient.view(1, 1, -1)
        sides = [
            side
            for side, length in (("left", flat.shape[1]), ("right", flat.shape[2]))
            if gradient.ndim > 1 and 1 < length <= group["max_dim"]
        ]
        beta_1, beta_2 = group["betas"]
        if not state:
            state["step"] = 0
            state["average"], state["square"] = torch.zeros_like(flat), torch.zeros_like(flat)
            for side in sides:
                state[side] = _gram(flat, side) * (1.0 - beta_2)
                state[f"{side}_basis"] = _start(state[side])
            return
        state["step"] += 1
        turned = _turn(flat, state, sides, back=False)
        average = state["average"].lerp_(turned, 1.0 - beta_1)
        square = state["square"].lerp_(turned.square_(), 1.0 - beta_2)
        rate = group["lr"] / (1.0 - beta_1 ** state["step"])
        root = square.sqrt().div_((1.0 - beta_2 ** state["step"]) ** 0.5).add_(group["eps"])
        direction = _turn(average / root, state, sides, back=True)
        if group["weight_decay"]:
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
        parameter.sub_(direction.view(shape), alpha=rate)
        for side in sides:
            state[side].lerp_(_gram(flat, side), 1.0 - beta_2)
        if state["step"] % group["frequency"] == 0:
            for side in sides:
                _follow(state, side)


def _start(gram: Tensor) -> Tensor:
    """Eigenvectors; where the first gradients are nothing, as near to the axes as can be."""
    exact = gram.double()
    values, vectors = torch.linalg.eigh(exact)
    nothing = _NOTHING * values.sum(1)[:, None]
    empty = (vectors * (values < nothing)[:, None, :]) @ vectors.mT
    rank = torch.linspace(0.25, 0.5, exact.shape[-1], dtype=exact.dtype, device=exact.device)
    ranked = nothing[:, :, None] * (empty @ (rank[:, None] * empty))
    return torch.linalg.eigh(exact + ranked)[1].to(gram.dtype)


def _gram(x: Tensor, side: str) -> Tensor:
    """Products of the rows, or of the columns, of each matrix."""
    return torch.bmm(x, x.mT) if side == "left" else torch.bmm(x.mT, x)


def _turn(x: Tensor, state: dict[str, Any], sides: list[str], *, back: bool) -> Tensor:
    """Into the basis, or back."""
    if "left" in sides:
        basis = state["left_basis"]
        x = torch.bmm(basis if back else basis.mT, x)
    if "right" in sides:
        basis = state["right_basis"]
        x = torch.bmm(x, basis.mT if back else basis)
    return x


def _follow(state: dict[str, Any], side: str) -> None:
    """Turn the basis towards the eigenvectors by one step of orthogonal iteration.

    Directions are sorted first, as the iteration wants it, and their mean squares with them; the
    average gradient, which is kept in the basis, turns with it.
    """
    old = state[f"{side}_basis"]
    gram = state[side]
    floor = _FLOOR * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    product = torch.baddbmm(floor * old, gram, old)
    order = (old * product).sum(1).argsort(dim=1, descending=True)
    sorted_columns = order[:, None, :].expand_as(product)
    new = torch.linalg.qr(torch.gather(product, 2, sorted_columns))[0]
    overlap = torch.bmm(new.mT, old)
    square = state["square"]
    if side == "left":
        state["average"] = torch.bmm(overlap, state["average"])
        state["square"] = torch.gather(square, 1, order[:, :, None].expand_as(square))
    else:
        state["average"] = torch.bmm(state["average"], overlap.mT)
        state["square"] = torch.gather(square, 2, order[:, None, :].expand_as(square))
    state[f"{side}_basis"] = new
