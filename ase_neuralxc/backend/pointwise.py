"""A semi-local functional at points: energy density and its derivatives by the invariants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ase_neuralxc.errors import FunctionalError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional, SpinScaledFunctional


def evaluate_invariants(
    functional: SemilocalFunctional,
    arrays: Sequence[NDArray],
    polarised: bool,
    deriv: int = 1,
    device: str = "cpu",
) -> tuple[NDArray, NDArray, NDArray | None]:
    """Energy per volume and its derivatives with respect to the invariants, by autograd.

    Args:
        functional: evaluated on `device`, where it must be already.
        arrays: density, sigma and tau of the total density, [1, n] each, or of two spins if
            polarised, [2, n], [3, n] (up.up, up.down, down.down) and [2, n]; atomic units.
        polarised: which of the two.
        deriv: highest derivative, at most 2.
        device: torch device.

    Returns:
        energy [n] in Hartree/Bohr^3, first derivatives [m, n] and second ones [m, m, n] (None for
        `deriv` below 2), with the rows of the arrays below each other: m = 3, or 7 if polarised.

    Raises:
        FunctionalError: the functional returned a value that is not finite.
    """
    # said for everything below: backward passes, which may call this, switch gradients off
    with torch.set_grad_enabled(deriv > 0):
        leaves = [torch.from_numpy(a).to(device).requires_grad_(deriv > 0) for a in arrays]
        invariants = (
            DensityInvariants(leaves[0], leaves[1], leaves[2])
            if polarised
            else DensityInvariants.from_total(*(leaf[0] for leaf in leaves))
        )
        first = torch.zeros(sum(map(len, leaves)), arrays[0].shape[-1], dtype=torch.float64)
        second = None
        if deriv > 1 and polarised and isinstance(functional, SpinScaledFunctional):
            energy, first, second = _spin_scaled(functional, invariants, leaves)
        else:
            energy = functional.local_energy_density(invariants)
            if deriv > 0:
                first = _stack(_grad(energy, leaves, create_graph=deriv > 1), leaves)
            if deriv > 1:
                second = torch.stack([_row(each, leaves) for each in first])
    out = (
        energy.detach().cpu().numpy(),
        first.detach().cpu().numpy(),
        None if second is None else second.detach().cpu().numpy(),
    )
    if not all(a is None or np.isfinite(a).all() for a in out):
        raise FunctionalError(_describe(functional, arrays, out))
    return out


def _spin_scaled(
    functional: SpinScaledFunctional, invariants: DensityInvariants, leaves: list[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Energy and derivatives of two spins, from what exchange and correlation depend on."""
    exchange, correlation = functional.exchange_and_correlation(invariants)
    of_exchange, of_correlation = (
        _stack(_grad(part, leaves, create_graph=True), leaves) for part in (exchange, correlation)
    )
    # correlation sees sigma = up.up + 2 up.down + down.down and tau = tau_up + tau_down
    up, down, mixed, tau = (_row(of_correlation[row], leaves) for row in (0, 1, 3, 5))
    second = torch.stack([up, down, 0.5 * mixed, mixed, 0.5 * mixed, tau, tau])
    # spins do not meet in exchange: rows of both come from one pass
    spins = (0, 2, 5), (1, 4, 6)
    for a, b in zip(*spins, strict=True):
        both = _row(of_exchange[a] + of_exchange[b], leaves)
        for row, own in zip((a, b), spins, strict=True):
            second[row, list(own)] += both[list(own)]
    return exchange + correlation, of_exchange + of_correlation, second


def _row(derivative: Tensor, leaves: list[Tensor]) -> Tensor:
    """Derivatives of a first derivative [n] by all inputs, [rows, n]."""
    if not derivative.requires_grad:
        return leaves[0].new_zeros(sum(map(len, leaves)), derivative.shape[-1])
    return _stack(_grad(derivative, leaves, retain_graph=True), leaves).detach()


def _grad(
    value: Tensor, leaves: list[Tensor], create_graph: bool = False, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(
        value.sum(),
        leaves,
        create_graph=create_graph,
        retain_graph=retain_graph or create_graph,
        allow_unused=True,
    )


def _stack(parts: tuple[Tensor | None, ...], leaves: list[Tensor]) -> Tensor:
    """Join the gradients to [rows, n]; an input that is not used has none."""
    return torch.cat(
        [
            torch.zeros_like(leaf) if part is None else part
            for part, leaf in zip(parts, leaves, strict=True)
        ]
    )


def _describe(
    functional: SemilocalFunctional, arrays: Sequence[NDArray], out: tuple[NDArray | None, ...]
) -> str:
    bad = np.zeros(arrays[0].shape[-1], dtype=bool)
    for a in out:
        if a is not None:
            bad |= ~np.isfinite(a).reshape(-1, bad.size).all(axis=0)
    ranges = ", ".join(
        f"{name} in [{a[:, bad].min():.3e}, {a[:, bad].max():.3e}]"
        for name, a in zip(("density", "sigma", "tau"), arrays, strict=True)
    )
    return (
        f"functional {functional.name!r} returned values that are not finite at {bad.sum()} of "
        f"{bad.size} points, where {ranges} (atomic units)"
    )
