from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write
from cli_runs import CHEAP, one_error_line, run_json, stretched_hydrogen

from ase_neuralxc.cli import main
from ase_neuralxc.cli.options import build_parser
from ase_neuralxc.errors import SCFNotConverged


@pytest.fixture
def stretched(tmp_path: Path) -> str:
    return stretched_hydrogen(tmp_path)


def test_energy_reads_charge_and_multiplicity_and_writes_what_it_prints(tmp_path, capsys) -> None:
    cation, radical = molecule("OH"), molecule("OH")
    cation.info.update(charge=1, multiplicity=1)
    source, target = str(tmp_path / "oh.extxyz"), str(tmp_path / "new" / "out.xyz")
    write(source, [radical, cation])
    code, document = run_json(capsys, ["energy", source, *CHEAP, "--forces", "--out", target])
    assert code == 0
    first, second = document["structures"]
    assert first["magmom"] == 1
    assert second["magmom"] == 0
    assert second["energy"] - first["energy"] > 5  # ionisation
    assert sum(second["charges"]) == pytest.approx(1, abs=1e-6)
    written = read(target, index=":")
    assert written[1].get_potential_energy() == pytest.approx(second["energy"], abs=1e-9)
    np.testing.assert_allclose(written[0].get_forces(), first["forces"], atol=1e-7)
    # The option counts more than the header of the file.
    _, forced = run_json(capsys, ["energy", source, *CHEAP, "--index", "1", "--multiplicity=3"])
    assert forced["structures"][0]["magmom"] == 2


def test_energy_table_agrees_with_the_calculator(stretched, capsys) -> None:
    from ase_neuralxc.calculator import NeuralXC

    assert main(["energy", stretched, *CHEAP, "--forces"]) == 0
    captured = capsys.readouterr()
    atoms = read(stretched)
    atoms.calc = NeuralXC(xc="lda", basis="sto-3g", grid_level=0)
    assert f"{atoms.get_potential_energy():.8f}" in captured.out
    assert f"{abs(atoms.get_forces()[0, 2]):.6f}" in captured.out
    assert "structure" in captured.err  # the bar


def test_relax_vib_and_back(stretched, tmp_path, capsys) -> None:
    relaxed, picture = str(tmp_path / "relaxed.xyz"), tmp_path / "relax.png"
    code, document = run_json(
        capsys,
        ["relax", stretched, *CHEAP, "--out", relaxed, "--plot", str(picture), "--fmax", "0.005"],
    )
    assert code == 0
    assert document["converged"] is True
    assert document["energies"][0] - document["energy"] > 0.1
    assert picture.stat().st_size > 1000
    bond = read(relaxed).get_distance(0, 1)
    assert 0.7 < bond < 0.8

    spectrum = tmp_path / "ir.png"
    cache = str(tmp_path / "vib")
    arguments = ["vib", relaxed, *CHEAP, "--directory", cache, "--temperature", "300"]
    code, document = run_json(capsys, [*arguments, "--plot", str(spectrum)])
    assert code == 0
    assert len(document["frequencies_cm1"]) == 1
    assert 4000 < document["frequencies_cm1"][0] < 6000
    assert document["intensities_km_mol"][0] == pytest.approx(0, abs=1e-6)
    thermo = document["thermochemistry"]
    assert thermo["zero_point_energy"] == pytest.approx(document["zero_point_energy"])
    assert spectrum.exists()
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert f"{document['frequencies_cm1'][0]:.2f}" in table
    assert "Gibbs energy" in table


def test_unconverged_relaxation_leaves_with_1_and_says_so(stretched, capsys) -> None:
    code = main(["relax", stretched, *CHEAP, "--steps", "1", "--fmax", "1e-4", "--quiet"])
    assert code == 1
    assert "NOT CONVERGED" in capsys.readouterr().out


def test_td(stretched, capsys) -> None:
    arguments = ["td", stretched, *CHEAP, "--basis", "6-31g", "--states", "2"]
    code, singlets = run_json(capsys, arguments)
    assert code == 0
    _, triplets = run_json(capsys, [*arguments, "--triplets"])
    assert len(singlets["excitation_energies"]) == len(triplets["excitation_energies"]) == 2
    assert singlets["excitation_energies"][0] - triplets["excitation_energies"][0] > 1
    assert singlets["oscillator_strengths"][0] > 0.1
    assert main(arguments) == 0
    assert f"{singlets['excitation_energies'][0]:.4f}" in capsys.readouterr().out


def test_excite(stretched, capsys) -> None:
    arguments = ["excite", stretched, *CHEAP, "--basis", "6-31g"]
    code, found = run_json(capsys, [*arguments, "--state", "triplet"])
    assert (code, found["state"]) == (0, "triplet HOMO->LUMO")
    _, response = run_json(capsys, ["td", *arguments[1:], "--states", "1", "--triplets"])
    assert found["excitation_energy"] == pytest.approx(response["excitation_energies"][0], abs=1.0)
    assert found["energy"] - found["excitation_energy"] == pytest.approx(response["energy"])
    assert main([*arguments, "--move", "HOMO:LUMO:0.5", "--move", "0:2:0.5"]) == 0
    assert "singlet HOMO->LUMO 0.5, 0->2 0.5 (T-CDFT)" in capsys.readouterr().out
    assert main([*arguments, "--move", "HOMO:LUMO:0.5"]) == 2
    assert "sum 1, one electron" in capsys.readouterr().err


def test_label_is_resumable_and_its_labels_are_readable(tmp_path, capsys) -> None:
    from ase_neuralxc.records.io import read_records

    source, out = str(tmp_path / "in.xyz"), tmp_path / "labels"
    neutral, cation = molecule("H2"), molecule("H2")
    cation.info["charge"] = 1
    write(source, [neutral, cation, neutral], format="extxyz")
    code, document = run_json(capsys, ["label", source, *CHEAP, "--out", str(out)])
    assert code == 0
    assert (document["n_done"], document["n_skipped"], document["n_duplicates"]) == (2, 0, 1)
    records = read_records(out / "labels.extxyz")
    assert sorted(record.spin_state.charge for record in records) == [0, 1]
    assert len({record.fidelity.functional for record in records}) == 1
    assert all(record.forces.shape == (2, 3) for record in records)
    _, again = run_json(capsys, ["label", source, *CHEAP, "--out", str(out)])
    assert (again["n_done"], again["n_skipped"]) == (0, 2)
    other = one_error_line(capsys, ["label", source, "--xc", "pbe", "--out", str(out)])
    assert "expected a campaign of" in other
    for options, message in [
        (["--scheduler", "pbs"], "unknown scheduler 'pbs'"),
        (["--scheduler", "slurm"], "workers: expected the number to ask SLURM for"),
        (["--job", "cores=1"], "job: expected no options for 'local', got {'cores': 1}"),
        (["--job", "cores"], "argument --job: expected KEY=VALUE, got 'cores'"),
    ]:
        told = one_error_line(capsys, ["label", source, *CHEAP, "--out", str(out), *options])
        assert message in told
    refused = one_error_line(capsys, ["label", source, "--txt", "log", "--out", str(out)])
    assert "txt: expected no such option" in refused


def test_a_label_that_fails_is_reported_with_its_reason(tmp_path, capsys) -> None:
    source = str(tmp_path / "in.xyz")
    helium = Atoms("He")
    helium.info["multiplicity"] = 2
    write(source, [molecule("H2"), helium], format="extxyz")
    code, document = run_json(capsys, ["label", source, *CHEAP, "--out", str(tmp_path / "out")])
    assert code == 1
    assert (document["n_done"], document["n_failed"]) == (1, 1)
    assert "multiplicity: 2 is impossible" in next(iter(document["failures"].values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["energy", "H2", "--bases", "x"], "unknown option '--bases'. Did you mean '--basis'?"),
        (["energy", "H2", "--xc", "pbf"], "unknown functional 'pbf'. Did you mean 'pbe'?"),
        (["energy", "H2", *CHEAP, "--multiplicity", "2"], "multiplicity: 2 is impossible"),
        (["energy", "nowhere.xyz"], "'nowhere.xyz', which does not exist"),
        (["energy", "H2", "--index", "7"], "cannot read frames '7'"),
        (["relax", "H2", *CHEAP, "--optimizer", "BFG"], "unknown optimizer 'BFG'"),
        (["relax", "H2", *CHEAP, "--out", "/"], "out: cannot write '/'"),
        (["energy", "H2", "--charge", "one"], "argument --charge: invalid int value: 'one'"),
        (["energy"], "the following arguments are required: structure"),
        (["enrgy", "H2"], "invalid choice: 'enrgy'"),
    ],
)
def test_errors_are_one_line(arguments, message, stretched, capsys) -> None:
    arguments = [stretched if part == "H2" else part for part in arguments]
    assert message in one_error_line(capsys, arguments)


def test_unreadable_file_is_one_line(tmp_path, capsys) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text("not a structure\n")
    assert "structure: cannot read" in one_error_line(capsys, ["energy", str(path)])


def test_an_unconverged_scf_gives_no_energy(stretched, capsys, monkeypatch) -> None:
    from ase_neuralxc import calculator

    def give_up(*args: object, **kwargs: object) -> None:
        raise SCFNotConverged("SCF: no strategy converged\n(diis, damping)")

    monkeypatch.setattr(calculator.NeuralXC, "calculate", give_up)
    message = one_error_line(capsys, ["energy", stretched, *CHEAP])
    assert "no strategy converged (diis, damping)" in message


def test_every_calculator_option_is_a_keyword_of_the_calculator() -> None:
    from ase_neuralxc.calculator import NeuralXC
    from ase_neuralxc.cli.options import _CALCULATOR, calculator_keywords

    own = {
        "charge": "-1", "multiplicity": "2", "magmoms": "1,-1", "xc": "pbe", "dispersion": "d3bj",
        "txt": "log", "label": "state",
    }  # fmt: skip
    molecule_only = {
        "grid_level": "2", "conv_tol": "1e-8", "max_cycle": "20", "electric_field": "0,0,0.1",
        "basis": "def2-svp", "auxbasis": "def2-svp-jkfit", "ecp": "none", "reference": "uks",
        "solvent": "water", "stability": "never", "device": "cpu",
    }  # fmt: skip
    crystal_only = {"backend": "gpaw", "kpts": "2,2,2", "smearing": "0.1", "ecut": "400"}
    assert {*own, *molecule_only, *crystal_only, "density_fit"} == set(_CALCULATOR)
    parser, _ = build_parser()

    def keywords(given: dict[str, str], *extra: str) -> dict:
        line = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
        found = calculator_keywords(parser.parse_args(["energy", "file", *line, *extra]))
        assert set(found) == {*given, *(option[2:].replace("-", "_") for option in extra)}
        return found

    calc = NeuralXC(**keywords({**own, **molecule_only}, "--density-fit"))
    assert calc.parameters["charge"] == -1
    assert calc.parameters["electric_field"] == (0, 0, 0.1)
    assert calc.parameters["density_fit"] is True
    assert calc.parameters["ecp"] is None
    crystal = NeuralXC(**keywords({**own, **crystal_only}))
    assert crystal.parameters["kpts"] == (2, 2, 2)
    dense = keywords({"kpts": "3.5"})
    assert dense["kpts"] == {"density": 3.5}


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from ase_neuralxc.cli import main\n"
        "try:\n    main(['relax', '--help'])\n"
        "except SystemExit as leaving:\n    assert leaving.code == 0\n"
        "print([name for name in ('ase', 'numpy', 'torch', 'pyscf') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "--density-fit" in done.stdout
    assert done.stdout.endswith("[]\n")
