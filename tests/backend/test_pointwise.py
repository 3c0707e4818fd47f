"""Second derivatives of open shells from exchange and correlation apart."""

import numpy as np
import pytest

from ase_neuralxc.backend import pointwise
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.functional.neural import NeuralSemilocal
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.functional.registry import load_functional


class Joined(SemilocalFunctional):
    """The same functional without the promise that exchange obeys spin scaling."""

    def __init__(self, functional):
        super().__init__()
        self.functional = functional

    def local_energy_density(self, invariants):
        return self.functional.local_energy_density(invariants)


@pytest.fixture
def spins(rng):
    """Ordinary points, and some that are empty, of one spin, or with too small a tau."""
    n = 600
    density = np.exp(rng.uniform(-6, 1, size=(2, n)))
    slope = rng.uniform(0, 3, size=(2, n)) * density ** (4 / 3)
    sigma = np.stack([slope[0] ** 2, slope[0] * slope[1] * rng.uniform(-1, 1, n), slope[1] ** 2])
    tau = slope**2 / (8 * density) + rng.uniform(0.1, 2, size=(2, n)) * density ** (5 / 3)
    for array in (density, sigma, tau):
        array[:, :50] *= 0.0
    density[:, :50] = 1e-13
    for array in (density, tau):
        array[1, 50:100] = 0.0
    sigma[1:, 50:100] = 0.0
    tau[:, 100:150] *= 0.1
    return [density, sigma, tau]


@pytest.mark.parametrize(
    "functional",
    [
        NeuralSemilocal(width=9, seed=1, dtype="float64", base="r2scan", exchange_fraction=0.25),
        NeuralSemilocal(width=9, seed=2, dtype="float64", base="lda"),
        load_functional("nxc-s9"),
    ],
    ids=["r2scan", "lda", "float32"],
)
def test_open_shells_lose_nothing(functional, spins, monkeypatch):
    seen = []
    original = pointwise._spin_scaled
    monkeypatch.setattr(
        pointwise, "_spin_scaled", lambda *a: seen.append(1) or original(*a), raising=True
    )
    found = evaluate_invariants(functional, spins, True, 2)
    assert seen == [1]
    expected = evaluate_invariants(Joined(functional), spins, True, 2)
    assert seen == [1]
    for value, reference in zip(found, expected, strict=True):
        scale = np.abs(reference).max(axis=-1, keepdims=True)
        np.testing.assert_allclose(value, reference, rtol=1e-9, atol=1e-13 * float(scale.min()))
    np.testing.assert_array_equal(found[1].shape, (7, 600))
    np.testing.assert_allclose(found[2], found[2].transpose(1, 0, 2), rtol=1e-4, atol=1e-6)
