import json

import pytest

from ase_neuralxc.errors import InvalidInputError
from mlip.model.settings import ModelSettings


def test_round_trip_through_json():
    settings = ModelSettings(elements=(1, 8), fidelities=("a", "b"), moments="vector", soc=True)
    assert ModelSettings.from_dict(json.loads(json.dumps(settings.as_dict()))) == settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"elements": ()}, r"elements: expected distinct .* got \(\)"),
        ({"elements": (8, 1)}, "ascending order"),
        ({"elements": (0, 1)}, r"expected numbers 1..118, got \(0, 1\)"),
        ({"elements": (1,), "r_max": 0.0}, "r_max: expected > 0, got 0.0"),
        ({"elements": (1,), "ensemble": 0}, "ensemble: expected at least 1, got 0"),
        ({"elements": (1,), "l_hidden": 4}, "l_hidden: expected 0..l_max = 3, got 4"),
        ({"elements": (1,), "moments": "vectors"}, "Did you mean 'vector'"),
        ({"elements": (1,), "chanels": 8}, "Did you mean 'channels'"),
    ],
)
def test_unusable_settings_are_refused(values, message):
    with pytest.raises(InvalidInputError, match=message):
        ModelSettings.from_dict(values)
