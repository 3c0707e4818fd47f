"""Errors by group, and spreads that are scaled to errors."""

import numpy as np
import pytest

from mlip.training.calibration import curve, errors_and_spreads, scales
from mlip.training.metrics import Predictions, by_config_type, by_element, summary, text


@pytest.fixture
def made(rng):
    n_atoms = np.array([2, 3, 1])
    target = rng.normal(size=(6, 3))
    target[5] = np.nan
    error = rng.normal(size=(6, 3))
    return Predictions(
        predicted={"energy": np.array([1.0, 2.0, 3.0]), "forces": target + error},
        target={"energy": np.array([1.2, np.nan, 2.5]), "forces": target},
        n_atoms=n_atoms,
        numbers=np.array([1, 8, 1, 1, 8, 8]),
        graph_of=np.repeat([0, 1, 2], n_atoms),
        config_types=("a", "b", "a"),
    )


def test_figures_by_label_element_and_group(made):
    error = (made.predicted["forces"] - made.target["forces"])[:5]
    found = summary(made)
    assert found["energy"]["mae"] == pytest.approx((0.1 + 0.5) / 2)
    assert found["energy_total"]["mae"] == pytest.approx((0.2 + 0.5) / 2)
    assert found["forces"]["rmse"] == pytest.approx(np.sqrt(np.mean(error**2)))
    elements = by_element(made)
    assert elements["O"]["mae"] == pytest.approx(np.abs(error[[1, 4]]).mean())
    assert elements["H"]["count"] == 3
    groups = by_config_type(made)
    assert groups["a"]["forces"]["mae"] == pytest.approx(np.abs(error[:2]).mean())
    assert groups["b"]["forces"]["count"] == 3
    assert "energy" not in groups["b"]
    assert "300.000" in text("test", {"energy": found["energy"]})


def test_a_spread_that_is_too_small_is_scaled_up(rng):
    spread = rng.uniform(0.01, 0.1, size=20000)
    error = rng.normal(size=20000) * spread * 3.0
    made = Predictions(
        predicted={"energy": error},
        target={"energy": np.zeros(20000)},
        spread={"energy": spread},
        n_atoms=np.ones(20000, dtype=int),
    )
    assert scales(made)["energy"] == pytest.approx(3.0, rel=0.03)
    estimated, seen = curve(*errors_and_spreads(made, "energy"))
    assert len(estimated) == 10
    np.testing.assert_allclose(seen / estimated, 3.0, rtol=0.1)
