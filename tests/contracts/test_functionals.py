"""What every `XCFunctional` must keep, semi-local or not, reference, network or foreign program."""

from __future__ import annotations

import functools
import math
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from functionals import AtomMoments, Disguised, MomentProgram, write_program
from numerical import central_difference
from torch import Tensor, nn

from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import (
    CoefficientFunctional,
    MomentFunctional,
    NeuralSemilocal,
    SemilocalFunctional,
    XCFunctional,
    available,
    load_functional,
)
from ase_neuralxc.functional.foreign import SkalaFunctional, SkalaHeader, load_skala

DOUBLE = torch.float64
SMALL = {"width": 16, "depth": 2, "dtype": "float64"}
RTOL = 1e-10  # float64 networks
STEP = 2e-4  # relative change of the densities; the switches of r2SCAN are sharp

BUILT = {
    # networks of shipped functionals are in float32, which no finite difference likes
    **{name: lambda name=name: load_functional(name).double() for name in available()},
    "neural": lambda: NeuralSemilocal(**SMALL),
    "neural on r2scan": lambda: NeuralSemilocal(base="r2scan", **SMALL),
    "coefficient": lambda: CoefficientFunctional(**SMALL),
    "trained moments": lambda: MomentFunctional(head_scale=0.3, channels=2, **SMALL),
    "moments": AtomMoments,
    "moments per atom": lambda: AtomMoments(atomwise=True),
    "disguised": lambda: Disguised(load_functional("pbe")),
}
FOREIGN = ["program", "skala package"]


@pytest.fixture(params=[*BUILT, *FOREIGN])
def functional(request, tmp_path):
    if request.param == "program":
        digest = write_program(tmp_path / "a.fun", MomentProgram(), MomentProgram.inputs)
        return load_skala(tmp_path / "a.fun", expected_hash=digest)
    if request.param == "skala package":
        return skala_architecture()
    return BUILT[request.param]()


@functools.cache
def skala_architecture():
    torch.manual_seed(0)
    model = pytest.importorskip("skala.functional.model").SkalaFunctional().double().eval()
    header = SkalaHeader({}, tuple(str(name) for name in model.features), "b3lyp5")
    return SkalaFunctional(model, header, Path("built.fun"), "")


def sample(n: int = 12, closed_shell: bool = False) -> GridFeatures:
    """Two atoms with n and n + 4 points; s to 3, alpha to 2, densities from 1e-3 to 10."""
    generator = torch.Generator().manual_seed(1)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=DOUBLE)

    total = 2 * n + 4
    density = 10.0 ** (-3 + 4 * uniform(2, total))
    direction = nn.functional.normalize(uniform(2, 3, total) - 0.5, dim=1)
    scale = 2 * (6 * math.pi**2) ** (1 / 3) * density ** (4 / 3)
    gradient = direction * (3 * uniform(2, total) * scale)[:, None]
    tau = (gradient**2).sum(1) / (8 * density)
    tau = tau + 2 * uniform(2, total) * 0.3 * (6 * math.pi**2) ** (2 / 3) * density ** (5 / 3)
    if closed_shell:
        density, gradient, tau = (t[:1].expand(2, *t.shape[1:]) for t in (density, gradient, tau))
    atoms = torch.tensor([[0.0, 0.1, -0.2], [1.0, 0.3, 0.9]], dtype=DOUBLE)
    centres = atoms.repeat_interleave(torch.tensor([n, n + 4]), 0)
    atomic_weights = uniform(total)
    return GridFeatures(
        density=density,
        gradient=gradient,
        tau=tau,
        coords=centres + 2 * uniform(total, 3) - 1,
        weights=atomic_weights * uniform(total),
        atom_slices=(slice(0, n), slice(n, total)),
        atom_coords=atoms,
        closed_shell=closed_shell,
        atomic_weights=atomic_weights,
    )


def alone(features, atom):
    """One atom with its points."""
    points = features.atom_slices[atom]
    return replace(
        features,
        **{
            key: getattr(features, key)[..., points]
            for key in ("density", "gradient", "tau", "weights", "atomic_weights")
        },
        coords=features.coords[points],
        atom_coords=features.atom_coords[atom : atom + 1],
        atom_slices=(slice(0, points.stop - points.start),),
    )


def energy(functional, features):
    """As hosts integrate it: atom by atom where that is allowed (programs may pad otherwise)."""
    parts = [features]
    if getattr(functional, "atomwise", False):
        parts = [alone(features, atom) for atom in range(len(features.atom_slices))]
    return sum(torch.dot(part.weights, functional.energy_density(part)) for part in parts)


def shifted(features, t, direction):
    """The densities moved by t times a relative change."""
    parts = (features.density, features.gradient, features.tau)
    moved = (p * (1 + t * d) for p, d in zip(parts, direction, strict=True))
    return replace(features, **dict(zip(("density", "gradient", "tau"), moved, strict=True)))


def derivatives(functional, features):
    """First and second derivative of the energy along a relative change of the densities."""
    generator = torch.Generator().manual_seed(5)
    parts = (features.density, features.gradient, features.tau)
    direction = [torch.rand(p.shape, generator=generator, dtype=DOUBLE) for p in parts]
    t = torch.zeros((), dtype=DOUBLE, requires_grad=True)
    value = energy(functional, shifted(features, t, direction))
    (first,) = torch.autograd.grad(value, t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    return direction, first.detach(), second


def test_it_is_a_module_that_keeps_the_protocol(functional):
    assert isinstance(functional, nn.Module)
    assert isinstance(functional, XCFunctional)
    assert functional.name
    assert functional.features <= frozenset(Feature)
    assert 0.0 <= functional.exchange_fraction <= 1.0


def test_energy_density_is_finite_negative_overall_and_float64(functional):
    features = sample()
    values = functional.energy_density(features)
    assert values.shape == features.weights.shape
    assert values.dtype == DOUBLE
    assert torch.isfinite(values).all()
    assert energy(functional, features) < -0.1


def test_spin_flip_changes_nothing(functional):
    features = sample()
    flipped = replace(
        features,
        **{key: getattr(features, key).flip(0) for key in ("density", "gradient", "tau")},
    )
    assert not torch.equal(flipped.density, features.density)
    torch.testing.assert_close(
        functional.energy_density(flipped), functional.energy_density(features), rtol=RTOL, atol=0
    )


def test_closed_shell_equals_two_equal_channels(functional):
    closed = sample(closed_shell=True)
    open_shell = replace(closed, closed_shell=False)
    torch.testing.assert_close(
        functional.energy_density(closed), functional.energy_density(open_shell), rtol=RTOL, atol=0
    )
    for a, b in zip(
        derivatives_of_total(functional, closed),
        derivatives_of_total(functional, open_shell),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def derivatives_of_total(functional, features):
    leaves = [p[0].clone().requires_grad_() for p in (features.density, features.tau)]
    moved = replace(features, density=leaves[0].expand(2, -1), tau=leaves[1].expand(2, -1))
    return torch.autograd.grad(energy(functional, moved), leaves, materialize_grads=True)


def test_rotation_and_translation_change_nothing(functional):
    features = sample()
    rotation, _ = torch.linalg.qr(
        torch.rand(3, 3, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    )
    rotation = rotation * torch.sign(torch.det(rotation))
    shift = torch.tensor([0.3, -1.0, 2.0], dtype=DOUBLE)
    moved = replace(
        features,
        gradient=torch.einsum("xy,syn->sxn", rotation, features.gradient),
        coords=features.coords @ rotation.T + shift,
        atom_coords=features.atom_coords @ rotation.T + shift,
    )
    torch.testing.assert_close(
        functional.energy_density(moved), functional.energy_density(features), rtol=1e-8, atol=0
    )


def test_order_of_an_atoms_points_changes_nothing(functional):
    features = sample()
    order = torch.cat([torch.arange(s.stop - 1, s.start - 1, -1) for s in features.atom_slices])
    mixed = replace(
        features,
        **{key: getattr(features, key)[..., order]
           for key in ("density", "gradient", "tau", "weights", "atomic_weights")},
        coords=features.coords[order],
    )  # fmt: skip
    torch.testing.assert_close(
        functional.energy_density(mixed),
        functional.energy_density(features)[order],
        rtol=RTOL,
        atol=0,
    )


def test_derivatives_equal_finite_differences(functional):
    features = sample()
    direction, first, second = derivatives(functional, features)

    def value(t):
        return float(energy(functional, shifted(features, t, direction)).detach())

    expected = central_difference(value, STEP)
    assert abs(expected) > 1e-2
    assert float(first) == pytest.approx(expected, rel=1e-7)

    def slope(t):
        u = torch.tensor(t, dtype=DOUBLE, requires_grad=True)
        value = energy(functional, shifted(features, u, direction))
        return float(torch.autograd.grad(value, u)[0])

    expected = central_difference(slope, STEP)
    assert abs(expected) > 1e-3
    assert float(second) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("density", [0.0, 1e-30, 1e-14])
def test_empty_points_contribute_nothing_and_break_nothing(functional, density):
    features = sample()
    empty = torch.arange(features.weights.numel()) % 3 == 0
    hollow = replace(
        features,
        density=features.density.masked_fill(empty, density),
        gradient=features.gradient.masked_fill(empty, density),
        tau=features.tau.masked_fill(empty, density),
    )
    leaves = [getattr(hollow, key).clone().requires_grad_() for key in ("density", "tau")]
    values = functional.energy_density(replace(hollow, density=leaves[0], tau=leaves[1]))
    assert torch.isfinite(values).all()
    assert values[empty].abs().max() < 1e-12
    assert values[~empty].abs().min() > 0
    for slope in torch.autograd.grad(values.sum(), leaves, materialize_grads=True):
        assert torch.isfinite(slope).all()


def test_what_is_not_in_features_is_not_read(functional):
    features = sample()
    values = functional.energy_density(features)
    parts = {
        Feature.DENSITY: ("density",),
        Feature.GRADIENT: ("gradient",),
        Feature.TAU: ("tau",),
        Feature.GRID: ("coords", "weights", "atom_coords", "atomic_weights"),
    }
    for feature, keys in parts.items():
        if feature not in functional.features:
            changed = replace(features, **{key: 1.1 * getattr(features, key) for key in keys})
            torch.testing.assert_close(functional.energy_density(changed), values, rtol=0, atol=0)


def test_locality_is_as_declared(functional):
    features = sample()
    values = functional.energy_density(features)
    bumped = replace(features, density=features.density.clone())
    bumped.density[:, 0] *= 1.5
    changed = functional.energy_density(bumped) != values
    first, second = features.atom_slices
    assert changed[0]
    if isinstance(functional, SemilocalFunctional) or Feature.GRID not in functional.features:
        assert not changed[1:].any()
    elif functional.atomwise:
        assert changed[first].all()
        assert not changed[second].any()
    else:
        assert changed[second].any()


def test_an_atom_alone_gives_what_it_gives_among_others(functional):
    if not getattr(functional, "atomwise", False):
        pytest.skip("not evaluated atom by atom")
    features = sample()
    values = functional.energy_density(features)
    for atom, points in enumerate(features.atom_slices):
        torch.testing.assert_close(
            functional.energy_density(alone(features, atom)), values[points], rtol=RTOL, atol=0
        )


def test_pickle_gives_the_same_energies(functional):
    if isinstance(functional, SkalaFunctional) and not functional.path.exists():
        pytest.skip("a foreign functional travels as its file")
    again = pickle.loads(pickle.dumps(functional))
    features = sample()
    assert torch.equal(again.energy_density(features), functional.energy_density(features))
