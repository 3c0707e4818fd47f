"""What is chosen: the uncertain and the different, within the budget, always the same."""

import numpy as np
import pytest
import torch
from small_potential import MODEL, clusters

from ase_neuralxc.errors import InvalidInputError
from mlip.active.selection import SelectionSettings, farthest_points, select, structure_features
from mlip.calculator import MLIP
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import ModelCard, save_potential


def potential(path, **settings):
    torch.manual_seed(0)
    made = ModelSettings(elements=(29, 79), **{**MODEL, **settings})
    save_potential(path, Potential(SphereModel(made).double()), ModelCard())
    return MLIP(path)


@pytest.fixture
def calc(tmp_path):
    return potential(tmp_path / "model.pt")


def test_farthest_points_on_a_line():
    points = np.array([[0.0], [1.0], [10.0], [4.0], [10.0]])
    assert farthest_points(points, np.empty((0, 1)), 4) == [0, 2, 3, 1]
    # what is known counts as chosen, and a duplicate of it is never chosen
    assert farthest_points(points, np.array([[10.0], [0.0]]), 5) == [3, 1]


def test_the_uncertain_come_first_and_the_budget_holds(calc):
    candidates = clusters(20)
    chosen = select(candidates, calc, settings=SelectionSettings(3, 0.0, short_list=1.0))
    worst = np.argsort(-chosen.uncertainties)[:3]
    assert set(chosen.indices) == set(worst.tolist())
    assert chosen.uncertainties.shape == (20,)
    assert chosen.n_uncertain == 20
    again = select(candidates, calc, settings=SelectionSettings(3, 0.0, short_list=1.0))
    assert again.indices == chosen.indices
    # the same structure twice is one question
    double = select(candidates + candidates, calc, settings=SelectionSettings(40, 0.0))
    assert sorted(double.indices) == list(range(20))


def test_thresholds_and_what_is_known(calc):
    candidates = clusters(10)
    every = select(candidates, calc, settings=SelectionSettings(10, 0.0))
    middle = float(np.median(every.uncertainties))
    above = select(candidates, calc, settings=SelectionSettings(10, middle))
    assert set(above.indices) == set(np.flatnonzero(every.uncertainties >= middle).tolist())
    limits = SelectionSettings(10, 0.0, broken_above=middle)
    below = select(candidates, calc, settings=limits)
    assert set(below.indices) == set(np.flatnonzero(every.uncertainties <= middle).tolist())
    # a structure that is labelled already is not asked about again
    rest = select(candidates, calc, candidates[:4], SelectionSettings(10, 0.0))
    assert set(rest.indices) == set(range(4, 10))
    assert select([], calc).indices == ()


def test_features_of_structures_do_not_depend_on_the_order_of_atoms(calc):
    (atoms,) = clusters(1)
    turned = atoms[list(range(len(atoms)))[::-1]]
    other = clusters(2, seed=3)[1]
    first, second, third = structure_features(calc, [atoms, turned, other])
    np.testing.assert_allclose(first, second, atol=1e-9)
    assert np.abs(first - third).max() > 1e-2


def test_a_model_without_uncertainty_is_refused(tmp_path):
    single = potential(tmp_path / "single.pt", ensemble=1)
    with pytest.raises(InvalidInputError, match="expected one with uncertainties"):
        select(clusters(3), single)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"budget": 0}, "selection.budget: expected a positive number, got 0"),
        ({"uncertain_above": -1.0}, "uncertain_above: expected at least 0"),
        ({"broken_above": 0.01}, "broken_above: expected above uncertain_above = 0.05"),
        ({"short_list": 0.5}, "short_list: expected at least 1"),
    ],
)
def test_settings_are_checked(settings, text):
    with pytest.raises(InvalidInputError, match=text):
        SelectionSettings(**settings)
