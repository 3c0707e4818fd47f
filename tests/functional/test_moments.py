"""The functional of atom-centred moments: limits, symmetry, and what its points see."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from contracts.test_functionals import alone, energy, sample

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import (
    MomentFunctional,
    load_checkpoint,
    load_functional,
    save_checkpoint,
)

SMALL = {"width": 8, "depth": 2, "channels": 2, "dtype": "float64"}


def strong(**changes) -> MomentFunctional:
    """Weights far from the base, so that moments matter."""
    return MomentFunctional(head_scale=10.0, seed=4, **{**SMALL, **changes})


@pytest.mark.parametrize("closed_shell", [True, False])
@pytest.mark.parametrize("base", ["lda", "r2scan"])
def test_a_zero_head_is_the_base(base: str, closed_shell: bool) -> None:
    functional = strong(base=base)
    features = sample(closed_shell=closed_shell)
    expected = load_functional(base).energy_density(features)
    assert (functional.energy_density(features) - expected).abs().max() > 1e-3
    functional.zero_head_()
    torch.testing.assert_close(functional.energy_density(features), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("lmax", [0, 1, 3])
def test_rotations_and_reflections_change_nothing(lmax: int) -> None:
    functional = strong(lmax=lmax)
    features = sample()
    generator = torch.Generator().manual_seed(0)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))
    turn = -torch.linalg.det(turn) * turn  # a rotation times the inversion
    turned = replace(
        features,
        gradient=torch.einsum("ij,sjn->sin", turn, features.gradient),
        coords=features.coords @ turn.T,
        atom_coords=features.atom_coords @ turn.T,
    )
    torch.testing.assert_close(
        functional.energy_density(turned), functional.energy_density(features), rtol=1e-9, atol=0
    )


def test_directions_count_beyond_monopoles() -> None:
    """Points of a shell that trade places keep every distance, and change the dipole."""
    features = sample()
    first = features.atom_slices[0]
    coords = features.coords.clone()
    centre = features.atom_coords[0]
    away = coords[first] - centre
    lengths = away.norm(dim=1, keepdim=True)
    coords[first] = centre + lengths * (away / lengths).roll(1, 0)
    moved = replace(features, coords=coords)
    for lmax, changes in ((0, False), (2, True)):
        functional = strong(lmax=lmax)
        change = functional.energy_density(moved) - functional.energy_density(features)
        assert (change.abs().max() > 1e-6) == changes


def test_points_see_their_own_atom_and_no_other() -> None:
    functional, features = strong(), sample()
    first, second = features.atom_slices
    density = features.density.clone()
    density[:, second.start] *= 1.3
    before = functional.energy_density(features)
    after = functional.energy_density(replace(features, density=density))
    torch.testing.assert_close(after[first], before[first], rtol=0, atol=0)
    assert (after[second][1:] - before[second][1:]).abs().max() > 1e-6
    total = sum(
        torch.dot(p.weights, functional.energy_density(p))
        for p in (alone(features, a) for a in (0, 1))
    )
    torch.testing.assert_close(energy(functional, features), total)


def test_a_checkpoint_rebuilds_it(tmp_path) -> None:
    functional, features = strong(), sample()
    save_checkpoint(tmp_path / "moments.safetensors", functional)
    read = load_checkpoint(tmp_path / "moments.safetensors")
    torch.testing.assert_close(
        read.energy_density(features), functional.energy_density(features), rtol=0, atol=0
    )


def test_bad_settings_and_missing_points_are_named() -> None:
    with pytest.raises(InvalidInputError, match="channels: expected an integer of at least 1"):
        MomentFunctional(channels=0)
    with pytest.raises(InvalidInputError, match="unknown base 'pbe'"):
        MomentFunctional(base="pbe")
    with pytest.raises(InvalidInputError, match="expected points, weights and atoms"):
        strong().energy_density(replace(sample(), coords=None))
