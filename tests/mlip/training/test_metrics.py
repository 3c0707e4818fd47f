"""Errors by group, and spreads that are calibrated to errors."""

import numpy as np
import pytest

from mlip.training.calibration import calibrate, curve, errors_and_spreads
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


@pytest.mark.parametrize(
    ("scale", "floor"), [(3.0, 0.0), (3.0, 0.2), (0.0, 0.2)], ids=["scale", "both", "floor"]
)
def test_the_calibration_finds_scale_and_floor(rng, scale, floor):
    n = 20000
    atoms = rng.integers(1, 9, size=n)
    spread = rng.lognormal(-3.0, 0.8, size=n)
    expected = np.hypot(scale * spread, floor)
    energies = rng.normal(size=n) * expected * atoms
    shape = (int(atoms.sum()), 3)
    wide = np.repeat(spread, atoms)
    forces = rng.normal(size=shape) * (np.hypot(scale * wide, floor) / 3**0.5)[:, None]
    made = Predictions(
        predicted={"energy": energies, "forces": forces},
        target={"energy": np.zeros(n), "forces": np.zeros(shape)},
        spread={"energy": spread * atoms, "forces": wide},
        n_atoms=atoms,
    )
    found = calibrate(made)
    for name, each in found.items():
        # what is zero in truth is found to be negligible: less than a tenth of the other part
        negligible = {"scale": 0.1 * floor / spread.mean(), "floor": 0.1 * scale * spread.mean()}
        for part, truth in (("scale", scale), ("floor", floor)):
            value = getattr(each, part)
            if truth:
                assert value == pytest.approx(truth, rel=0.03), (name, part)
            else:
                assert value < negligible[part], (name, part)
        error, raw = errors_and_spreads(made, name)
        estimated, seen = curve(error, each(raw))
        assert len(estimated) == 10
        np.testing.assert_allclose(seen / estimated, 1.0, rtol=0.1)
