"""Radial functions: their sizes, and their end at the cutoff."""

import torch

from mlip.model.radial import BesselBasis


def test_functions_fall_with_frequency_and_keep_their_mean_square():
    distance = torch.linspace(0.8, 4.9, 50, dtype=torch.float64)
    flat, falling = (BesselBasis(5.0, 6, decay).double() for decay in (0.0, 1.0))
    ratios = falling(distance) / flat(distance)
    order = torch.arange(1, 7)
    torch.testing.assert_close(ratios * order, ratios[:, :1].expand(-1, 6))
    torch.testing.assert_close(falling.sizes.square().sum(), flat.sizes.square().sum())


def test_functions_vanish_at_the_cutoff_with_two_derivatives():
    basis = BesselBasis(5.0, 4, 1.0).double()
    distance = torch.tensor([5.0 - 1e-4, 5.0, 6.0], dtype=torch.float64)
    values = basis(distance)
    assert (values[1:] == 0.0).all()
    # third order in the distance to the cutoff, and one order of the sine
    assert values[0].abs().max() < 1e-12
