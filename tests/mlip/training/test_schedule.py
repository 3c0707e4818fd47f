"""Learning rates at their known points; the moving average against its sum."""

import pytest
import torch
from torch import nn

from mlip.training.schedule import MovingAverage, make_optimizer, rate
from mlip.training.settings import OptimizerSettings, ScheduleSettings


@pytest.mark.parametrize("kind", ["cosine", "exponential"])
def test_rates_rise_and_fall_to_the_final_one(kind):
    settings = ScheduleSettings(kind=kind, warmup=0.1, final=0.01)
    values = [rate(settings, k / 1000) for k in range(1001)]
    assert values[100] == pytest.approx(1.0)
    assert values[50] == pytest.approx(0.5)
    assert values[-1] == pytest.approx(0.01)
    assert values[0] > 0
    assert sorted(values[100:], reverse=True) == values[100:]
    half = {"cosine": 0.505, "exponential": 0.1}
    assert values[550] == pytest.approx(half[kind])


def test_constant_is_constant():
    assert rate(ScheduleSettings(kind="constant", warmup=0.0), 0.7) == 1.0


def test_the_average_is_the_weighted_sum_of_what_was_seen():
    weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    average = MovingAverage([weight], 0.5)
    expected, decays = torch.zeros(2, dtype=torch.float64), []
    for step in range(1, 40):
        with torch.no_grad():
            weight.add_(1.0)
        average.update()
        decays.append(min(0.5, (1 + step) / (10 + step)))
        expected = decays[-1] * expected + (1 - decays[-1]) * step
    assert decays[0] < 0.2
    assert decays[-1] == 0.5
    torch.testing.assert_close(average.average[0], expected)
    with average.applied():
        torch.testing.assert_close(weight.detach(), expected)
    torch.testing.assert_close(weight.detach(), torch.full((2,), 39.0, dtype=torch.float64))


def test_vectors_are_spared_from_weight_decay():
    module = nn.Linear(3, 2)
    optimizer = make_optimizer(module, OptimizerSettings(weight_decay=0.1))
    matrices, vectors = optimizer.param_groups
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert matrices["params"] == [module.weight]
    assert vectors["params"] == [module.bias]
