"""The command line from data to a relaxed structure, and its one-line errors."""

import json

import numpy as np
import pytest
import yaml
from ase.io import read, write
from small_potential import MODEL, clusters, write_clusters

from mlip.cli import main
from mlip.training.run import MODEL_FILE


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, a configuration and a short run."""
    folder = tmp_path_factory.mktemp("cli")
    write_clusters(folder / "data.xyz", 10)
    values = {
        "out": str(folder / "run"),
        "epochs": 50,
        "validate_every": 2,
        "data": {"train": str(folder / "data.xyz"), "energy_reference": "EMT"},
        "model": MODEL,
        "batch": {"structures": 3},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    assert main(["train", str(folder / "config.yaml"), "epochs=2", "--quiet"]) == 0
    return folder


def test_overrides_and_errors_are_printed(folder, capsys):
    again = [str(folder / "config.yaml"), "epochs=1", f"out={folder / 'again'}"]
    assert main(["train", *again]) == 0
    printed = capsys.readouterr()
    assert "override epochs: 50 -> 1\n" in printed.out
    assert "E0 / eV" in printed.out
    assert "meV/atom" in printed.out
    assert "epoch" in printed.err
    assert main(["train", *again]) == 2
    assert "holds a run; continue it with `mlip resume" in capsys.readouterr().err
    assert main(["resume", str(folder / "again"), "--quiet"]) == 0


def test_check_reads_the_weights_of_a_configuration(folder, tmp_path, capsys):
    assert main(["check", str(folder / "data.xyz"), "--quiet"]) == 0
    assert "10 structures" in capsys.readouterr().out
    values = yaml.safe_load((folder / "config.yaml").read_text())
    values["second_stage"] = {"loss": {"stress": 1.0}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
    assert main(["check", "--config", str(tmp_path / "c.yaml"), "--quiet"]) == 1
    assert "FAILED: stress has weight 1" in capsys.readouterr().out
    assert main(["check", "--quiet"]) == 2


def test_convert_eval_and_keys(folder, tmp_path, capsys, rng):
    frames = clusters(3)
    for atoms in frames:
        atoms.info["my_energy"] = atoms.get_potential_energy() - 1.0
        del atoms.calc.results["energy"]
    write(tmp_path / "a.xyz", frames, format="extxyz")
    store = str(tmp_path / "a.graphs")
    key = ["--key", "energy=my_energy"]
    assert main(["convert", str(tmp_path / "a.xyz"), "--out", store, *key, "--quiet"]) == 0
    capsys.readouterr()
    assert main(["eval", str(folder / "run"), store, "--json", "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["errors"]["eval"]["energy"]["count"] == 3
    assert (tmp_path / "report.html").exists()
    assert main(["eval", str(folder / "run"), str(tmp_path / "a.xyz"), *key]) == 0
    printed = capsys.readouterr().out
    assert "energy reference: EMT" in printed
    assert "forces by element: Cu" in printed
    archive = tmp_path / "m.npz"
    energies, forces = rng.normal(size=2), rng.normal(size=(2, 3, 3))
    np.savez(archive, z=[1, 1, 8], R=rng.normal(size=(2, 3, 3)), E=energies, F=forces)
    assert main(["convert", str(archive), "--out", str(tmp_path / "m.xyz")]) == 0
    assert len(read(tmp_path / "m.xyz", ":")) == 2
    assert main(["convert", str(archive), "--out", str(tmp_path / "m.graphs")]) == 2


@pytest.mark.filterwarnings("ignore::mlip.calculator.CloseContactWarning")
def test_dynamics_and_relaxation(folder, tmp_path, capsys):
    write(tmp_path / "start.xyz", clusters(1)[0], format="extxyz")
    run, start = str(folder / "run" / MODEL_FILE), str(tmp_path / "start.xyz")
    out = tmp_path / "end.xyz"
    assert main(["md", run, start, "--steps", "4", "--timestep", "0.5", "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "drift of the total energy" in printed.out
    assert "energy reference: EMT" in printed.err
    assert np.abs(read(out).positions - read(start).positions).max() > 1e-4
    assert main(["md", run, start, "--npt", "--steps", "4", "--quiet"]) == 2
    assert "expected three periodic directions for 'npt'" in capsys.readouterr().err
    options = ["--steps", "1", "--fmax", "1e-9", "--plot", str(tmp_path / "p.png"), "--quiet"]
    assert main(["relax", run, start, *options]) == 1
    assert "NOT CONVERGED" in capsys.readouterr().out
    assert (tmp_path / "p.png").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["relax", "none.pt", "none.xyz"], "structure: cannot read"),
        (["check", "none.xyz"], "does not exist"),
        (["check", "none.xyz", "--qiet"], "Did you mean '--quiet'"),
        (["check", "none.xyz", "--key", "enrgy=E"], "Did you mean 'energy'"),
        (["md", "a", "b", "--tempratur", "3"], "Did you mean '--temperature'"),
        (["train", "none.yaml"], "config: cannot read"),
        (["resume", "none"], "expected a folder with a config.yaml"),
        (["eval", "none.pt", "none.xyz"], "none.pt: cannot be read"),
    ],
)
def test_errors_are_one_line(capsys, arguments, text):
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("mlip: error: ")
    assert text in message
    assert message.count("\n") == 1
