"""Why a functional returned NaN: the range of inputs at which it happened, in words."""

from __future__ import annotations

import torch
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional.protocol import SemilocalFunctional


def describe_nonfinite(functional: SemilocalFunctional, invariants: DensityInvariants) -> str:
    """Find where a functional is not finite, and name the features there.

    The energy density is examined first, then its first and second derivatives; the first of them
    that is not finite is reported. Meant for the text of a `FunctionalError`.

    Args:
        functional: the functional.
        invariants: the points at which it was evaluated.

    Returns:
        One sentence with the quantity, the number of points and the ranges of the density, its
        squared gradient and tau, and of r_s, s, alpha and zeta; if the inputs themselves are not
        finite, or if nothing is wrong, it says that instead.
    """
    inputs = (invariants.density, invariants.sigma, invariants.tau)
    broken = torch.stack([~t.isfinite().all(dim=0) for t in inputs]).any(dim=0)
    if broken.any():
        return (
            f"functional {functional.name!r} was given a density, gradient or tau that is not "
            f"finite at {int(broken.sum())} of {broken.numel()} points"
        )
    for quantity, bad in _suspects(functional, invariants):
        if bad.any():
            return (
                f"functional {functional.name!r}: {quantity} not finite at {int(bad.sum())} of "
                f"{bad.numel()} points, where {_ranges(invariants, bad)} (atomic units)"
            )
    return (
        f"functional {functional.name!r} is finite to second order at all {broken.numel()} points"
    )


def _suspects(
    functional: SemilocalFunctional, invariants: DensityInvariants
) -> list[tuple[str, Tensor]]:
    """Quantities with the [n] masks of the points where they are not finite."""
    density, sigma, tau = leaves = [
        t.detach().clone().requires_grad_()
        for t in (invariants.density, invariants.sigma, invariants.tau)
    ]
    with torch.enable_grad():
        energy = functional.local_energy_density(
            DensityInvariants(density, sigma, tau, invariants.closed_shell)
        )
        found = [("the energy density is", ~energy.isfinite())]
        if energy.requires_grad:
            first = _derivatives(energy, leaves)
            found.append(("the first derivative is", _any_nonfinite(first)))
            second = [d for g in first if g.requires_grad for d in _derivatives(g, leaves)]
            if second:
                found.append(("the second derivative is", _any_nonfinite(second)))
    return found


def _derivatives(value: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    gradients = torch.autograd.grad(value.sum(), leaves, create_graph=True, allow_unused=True)
    return [g for g in gradients if g is not None]


def _any_nonfinite(tensors: list[Tensor]) -> Tensor:
    return torch.stack([~t.isfinite().all(dim=0) for t in tensors]).any(dim=0)


def _ranges(invariants: DensityInvariants, bad: Tensor) -> str:
    """Smallest and largest features among the bad points, of the total density where derived."""
    density, sigma, tau = (
        t.detach()[:, bad] for t in (invariants.density, invariants.sigma, invariants.tau)
    )
    total, total_sigma = density.sum(0), sigma[0] + 2.0 * sigma[1] + sigma[2]
    ranges = {
        "spin density": density,
        "sigma": sigma,
        "tau": tau,
        "r_s": exact.WIGNER_SEITZ / exact.cube_root(total),
        "s": exact.reduced_gradient(total, total_sigma),
        "alpha": (tau.sum(0) - total_sigma / (8.0 * total))
        / exact.uniform_tau(total, exact.cube_root(total)),
        "zeta": (density[0] - density[1]) / total,
    }
    return ", ".join(
        f"{name} in [{values.min():.3e}, {values.max():.3e}]" for name, values in ranges.items()
    )
