import numpy as np
import pytest

from ase_neuralxc.backend.clamps import (
    CHANNEL,
    FADE,
    ClampedEvaluator,
    DensityClamps,
    tau_band,
)
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional


def evaluator(clamps, name="r2scan", block=7):
    functional = load_functional(name)
    return ClampedEvaluator(
        lambda arrays, polarised: evaluate_invariants(functional, arrays, polarised)[:2],
        clamps,
        block,
    )


def points(polarised, n=40, seed=1):
    """Densities of which some have too little tau, some are negative, some all but vanish.

    A third have a tau that is nearly tau_W.
    """
    rng = np.random.default_rng(seed)
    spins = 2 if polarised else 1
    density = 10.0 ** rng.uniform(-3, 0, (spins, n))
    up, down = rng.normal(size=(2, 3, n)) * density[[0, -1]][:, None]
    products = [(up * up).sum(0), (up * down).sum(0), (down * down).sum(0)]
    sigma = np.array(products if polarised else products[:1])
    tau = sigma[::2] / (8 * density) * rng.uniform(0.5, 2.0, (spins, n))
    near = 1 + tau_band(spins * density)[0] * rng.uniform(-2, 2, density.shape)
    some = slice(-(n // 3), None)
    tau[:, some] = (near * sigma[::2] / (8 * density))[:, some]
    density[:, :3] = [[1e-9, -1e-3, -1e-20]]
    if polarised:
        density[1, 3] = -1e-9
    return [density, sigma, tau]


@pytest.mark.parametrize("polarised", [False, True])
def test_derivatives_are_those_of_the_clamped_energy(polarised):
    clamps = DensityClamps(3e-3)
    evaluate = evaluator(clamps)
    arrays = points(polarised)
    total = arrays[0].sum(axis=0)
    assert ((total > clamps.density) & (total < FADE * clamps.density)).sum() > 3
    own = slice(None, None, 2)
    positive = np.where(arrays[0] > 0, arrays[0], np.inf)
    bosonic = arrays[2] < arrays[1][own] / (8 * positive)
    assert bosonic.any()
    assert not bosonic.all()
    band, _ = tau_band(len(positive) * np.maximum(arrays[0], 0.0))
    within = np.abs(arrays[2] * 8 * positive / arrays[1][own] - 1) < band
    assert 3 < within.sum() < within.size / 2
    _, first = evaluate(arrays, polarised)
    assert np.abs(first).max() > 0.1
    row = 0
    for k, array in enumerate(arrays):
        for r in range(array.shape[0]):
            step = 3e-5 * np.abs(array[r])
            difference = 0.0
            for factor, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):  # of fourth order
                moved = [a.copy() for a in arrays]
                moved[k][r] += factor * step
                difference = difference + weight * evaluate(moved, polarised)[0]
            numerical = difference / (12 * step)
            np.testing.assert_allclose(first[row], numerical, rtol=1e-5, atol=1e-7)
            row += 1


def test_no_density_no_energy():
    arrays = points(False)
    energy, first = evaluator(DensityClamps(1e-6))(arrays, False)
    assert (energy[:3] == 0).all()
    assert (first[:, :3] == 0).all()
    assert (energy[3:] < 0).all()


def test_far_from_the_bounds_nothing_changes():
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(0.1, 1, (2, 30)), rng.uniform(0, 0.05, (3, 30)), np.full((2, 30), 1.0)]
    inside = evaluator(DensityClamps(1e-6))
    np.testing.assert_array_equal(inside(arrays, True)[0], inside.evaluate(arrays, True)[0])
    np.testing.assert_array_equal(inside(arrays, True)[1], inside.evaluate(arrays, True)[1])


@pytest.mark.parametrize("weizsaecker", [False, True])
def test_tau_is_raised_where_that_is_asked_for(weizsaecker):
    seen = []

    def spy(arrays, polarised):
        seen.append(arrays)
        return np.zeros(arrays[0].shape[1]), np.zeros((7, arrays[0].shape[1]))

    arrays = points(True)
    kept = arrays[0].sum(axis=0) > 1e-6
    ClampedEvaluator(spy, DensityClamps(1e-6, weizsaecker), 100)(arrays, True)
    density, sigma, tau = seen[0]
    bound = sigma[::2] / (8 * density)
    assert (arrays[2][:, kept] < bound).any()
    given = arrays[2][:, kept]
    if weizsaecker:
        band, _ = tau_band(2 * density)
        far = np.abs(given - bound) > band * bound
        np.testing.assert_array_equal(tau[far], np.maximum(given, bound)[far])
        assert (tau[~far] >= np.maximum(given, bound)[~far]).all()
        assert (tau - np.maximum(given, bound) <= (1 + 1e-12) * band / 4 * bound)[~far].all()
    else:
        np.testing.assert_array_equal(tau, given)
    assert density.min() == pytest.approx(CHANNEL * 1e-6)


def test_potentials_have_no_jump_where_tau_is_its_bound():
    n = 9
    density, sigma = np.full((1, n), 1e-3), np.full((1, n), 4e-8)
    bound = sigma / (8 * density)
    tau = bound * (1 + np.linspace(-1.2, 1.2, n) * tau_band(density)[0])
    _, first = evaluator(DensityClamps(1e-6))([density, sigma, tau], False)
    by_tau = first[2]
    assert by_tau[0] == 0.0
    changes = np.abs(np.diff(by_tau))
    assert changes.max() < 0.2 * np.abs(by_tau[-1])
    assert np.abs(by_tau[-1]) > 0.05


def test_an_empty_channel_is_harmless():
    density = np.array([[0.3], [0.0]])
    arrays = [density, np.array([[0.02], [0.0], [0.0]]), np.array([[0.2], [0.0]])]
    energy, first = evaluator(DensityClamps(1e-6))(arrays, True)
    filled = [a.copy() for a in arrays]
    filled[0][1] = CHANNEL * 1e-6
    assert energy == pytest.approx(evaluate_invariants(load_functional("r2scan"), filled, True)[0])
    assert first[1] == 0


def test_bounds_are_checked_and_named():
    with pytest.raises(InvalidInputError, match=r"clamps.density: expected a positive .* got 0"):
        DensityClamps(0)
    assert DensityClamps(1e-6).rule == "n > 1e-06 to 1e-05, tau >= tau_W within 0.01 to 0.5"
    assert DensityClamps(1e-5, weizsaecker=False).rule == "n > 1e-05 to 0.0001"
