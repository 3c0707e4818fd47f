"""The text of a FunctionalError names what was not finite and where."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.diagnosis import describe_nonfinite
from ase_neuralxc.functional.neural import NeuralSemilocal
from ase_neuralxc.functional.protocol import SemilocalFunctional


class Faulty(SemilocalFunctional):
    name = "faulty"

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def local_energy_density(self, invariants: DensityInvariants) -> Tensor:
        total = invariants.density.sum(0)
        if self.kind == "energy":
            return torch.where(total > 0.5, total / 0.0, total)
        # |x|^p at x = 0 has an infinite first (p = 1/2) or second (p = 3/2) derivative.
        power = 0.5 if self.kind == "first" else 1.5
        return (total - 1.0).clamp(min=0.0) ** power


def points() -> DensityInvariants:
    density = torch.tensor([[0.1, 0.75, 0.2], [0.1, 0.25, 0.2]], dtype=torch.float64)
    return DensityInvariants(density, 0.01 * torch.ones(3, 3).double(), density.clone())


@pytest.mark.parametrize(
    ("kind", "quantity"),
    [
        ("energy", "the energy density"),
        ("first", "the first derivative"),
        ("second", "the second derivative"),
    ],
)
def test_names_quantity_points_and_ranges(kind: str, quantity: str) -> None:
    text = describe_nonfinite(Faulty(kind), points())
    assert text.startswith(f"functional 'faulty': {quantity} is not finite at 1 of 3 points, where")
    assert "spin density in [2.500e-01, 7.500e-01]" in text
    assert "zeta in [5.000e-01, 5.000e-01]" in text
    assert "r_s in [6.204e-01, 6.204e-01]" in text
    # s^2 = sigma / (4 (3 pi^2)^(2/3)) and tau_unif = 0.3 (3 pi^2)^(2/3) at unit density
    assert "s in [3.232e-02, 3.232e-02]" in text
    assert "alpha in [3.465e-01, 3.465e-01]" in text


def test_nan_weights_are_found() -> None:
    functional = NeuralSemilocal(width=4, depth=1)
    with torch.no_grad():
        functional.exchange_net.biases[0][0] = float("nan")
    assert "the energy density is not finite at 3 of 3 points" in describe_nonfinite(
        functional, points()
    )


def test_broken_inputs_and_sound_functionals_are_told_apart() -> None:
    y = points()
    assert "is finite to second order at all 3 points" in describe_nonfinite(
        NeuralSemilocal(width=4, depth=1), y
    )
    y.tau[0, 2] = float("inf")
    assert "was given a density, gradient or tau that is not finite at 1 of 3" in (
        describe_nonfinite(NeuralSemilocal(width=4, depth=1), y)
    )
