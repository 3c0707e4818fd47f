"""The configuration says what is wrong with it, and what was overridden."""

from pathlib import Path

import pytest
import yaml

from ase_neuralxc.errors import InvalidInputError
from mlip.training.config import build_config, read_config
from mlip.training.settings import TrainConfig

EXAMPLE = Path(__file__).parents[3] / "examples" / "mlip_config.yaml"


def write(path, values):
    path.write_text(yaml.safe_dump(values))
    return path


def test_the_annotated_example_shows_every_setting_with_its_default():
    config, changed = read_config(EXAMPLE)
    values = yaml.safe_load(EXAMPLE.read_text())
    assert changed == []

    def names(settings):
        return {k: names(v) if isinstance(v, dict) else None for k, v in settings.items()}

    shown, full = names(values), names(TrainConfig().as_dict())
    for settings in (shown, full):
        settings.pop("model")  # whose names belong to the model
        settings.pop("second_stage")  # none by default
    assert shown == full
    defaults, ours = TrainConfig().as_dict(), config.as_dict()
    for name in ("loss", "optimizer", "schedule", "batch", "epochs"):
        assert ours[name] == defaults[name]
    assert ours["data"]["keys"] == defaults["data"]["keys"]


def test_plain_values_build_the_same_configuration():
    config, _ = read_config(EXAMPLE)
    assert build_config(yaml.safe_load(yaml.safe_dump(config.as_dict()))) == config


def test_overrides_are_applied_and_told(tmp_path):
    path = write(tmp_path / "c.yaml", {"epochs": 10, "loss": {"energy": 2.0}})
    config, changed = read_config(
        path, ["optimizer.lr=1e-3", "loss.energy=5", "data.train=[a.xyz, b.xyz]", "batch.atoms=64"]
    )
    assert (config.optimizer.lr, config.loss.energy, config.epochs) == (1e-3, 5.0, 10)
    assert config.data.train == ("a.xyz", "b.xyz")
    assert config.batch.atoms == 64
    assert changed[0] == "optimizer.lr: 0.015 -> 0.001"
    assert changed[1] == "loss.energy: 2.0 -> 5.0"


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"epoch": 3}, "unknown setting 'epoch'. Did you mean 'epochs'"),
        ({"loss": {"froces": 3}}, "unknown setting 'loss.froces'. Did you mean 'loss.forces'"),
        ({"model": {"chanels": 3}}, "Did you mean 'model.channels'"),
        ({"loss": {"kind": "hubber"}}, "Did you mean 'huber'"),
        ({"epochs": "many"}, "epochs: expected an integer, got 'many'"),
        ({"optimizer": {"lr": "fast"}}, "optimizer.lr: expected a number, got 'fast'"),
        ({"deterministic": 1}, "deterministic: expected true or false, got 1"),
        ({"loss": 3}, "loss: expected settings, got 3"),
        ({"optimizer": {"ema": 1.0}}, r"optimizer.ema: expected in \[0, 1\), got 1.0"),
        ({"optimizer": {"kind": "adam"}}, "Did you mean 'adamw'"),
        (
            {"optimizer": {"betas": [0.9, 1.0]}},
            r"optimizer.betas: expected two numbers in \[0, 1\)",
        ),
        ({"optimizer": {"betas": []}}, "optimizer.betas: expected"),
        ({"optimizer": {"weight_decay": -0.1}}, "optimizer.weight_decay: expected >= 0, got -0.1"),
        ({"optimizer": {"amsgrad": True}}, "optimizer.amsgrad: of adamw, got kind 'soap'"),
        ({"loss": {"energy": 0, "forces": 0}}, "expected a weight above 0"),
        ({"second_stage": {"start": 2}}, "second_stage.start: expected between 0 and 1"),
        ({"data": {"valid_fraction": 0}}, "valid_fraction: expected between 0 and 1"),
        ({"data": {"keys": {"enrgy": "E"}}}, "Did you mean 'data.keys.energy'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
    ],
)
def test_mistakes_are_named(values, text):
    with pytest.raises(InvalidInputError, match=text):
        build_config(values)


def test_files_and_overrides_that_cannot_be_read(tmp_path):
    path = tmp_path / "c.yaml"
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_config(path)
    path.write_text("a: [")
    with pytest.raises(InvalidInputError, match="cannot read"):
        read_config(path)
    path.write_text("text")
    with pytest.raises(InvalidInputError, match="expected settings"):
        read_config(path)
    write(path, {"epochs": 3})
    with pytest.raises(InvalidInputError, match="expected key=value"):
        read_config(path, ["epochs"])
    with pytest.raises(InvalidInputError, match=r"Did you mean 'optimizer.lr'"):
        read_config(path, ["optimizer.l=3"])
