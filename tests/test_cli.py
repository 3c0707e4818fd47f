from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import read, write

from ase_neuralxc.cli import main
from ase_neuralxc.cli.options import build_parser
from ase_neuralxc.errors import SCFNotConverged

CHEAP = ["--xc", "lda", "--basis", "sto-3g", "--grid-level", "0"]


@pytest.fixture
def stretched(tmp_path: Path) -> str:
    path = str(tmp_path / "h2.xyz")
    write(path, Atoms("H2", [[0, 0, 0], [0, 0, 0.9]]), format="extxyz")
    return path


def run_json(capsys: pytest.CaptureFixture, arguments: list[str]) -> tuple[int, dict]:
    code = main([*arguments, "--json", "--quiet"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, json.loads(captured.out)


def one_error_line(capsys: pytest.CaptureFixture, arguments: list[str]) -> str:
    try:
        code = main([*arguments, "--quiet"] if "--quiet" not in arguments else arguments)
    except SystemExit as leaving:  # argparse's own errors
        code = leaving.code
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert captured.err.startswith("neuralxc: error: ")
    assert captured.err.count("\n") == 1
    return captured.err


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


def test_md_goes_on_where_it_stopped(stretched, tmp_path, capsys) -> None:
    trajectory, frames, pictures = str(tmp_path / "md.traj"), str(tmp_path / "md.xyz"), []
    for name in ("plot", "analysis"):
        pictures += [f"--{name}", str(tmp_path / f"{name}.png")]
    arguments = ["md", stretched, *CHEAP, "--timestep", "0.2", "--trajectory", trajectory]
    code, first = run_json(capsys, [*arguments, "--steps", "4"])
    assert code == 0
    code, both = run_json(
        capsys, [*arguments, "--steps", "8", "--restart", "--out", frames, *pictures]
    )
    assert code == 0
    np.testing.assert_allclose(both["potential"][:5], first["potential"], atol=1e-10)
    total = np.add(both["potential"], both["kinetic"])
    assert np.ptp(both["potential"]) > 10 * np.ptp(total)
    assert len(read(frames, index=":")) == len(both["msd"]) == 9
    assert (tmp_path / "analysis.png").stat().st_size > 1000
    assert "pressure: expected 0 for ensemble 'nve'" in one_error_line(
        capsys, ["md", stretched, *CHEAP, "--pressure", "1"]
    )
    assert "expected three periodic directions for 'npt'" in one_error_line(
        capsys, ["md", stretched, *CHEAP, "--npt", "--pressure", "1"]
    )


def hydrogen_exchange(distance: float) -> Atoms:
    """H3 on a line: H2 at one end, an atom at the other."""
    atoms = Atoms("H3", [(0, 0, 0), (0, 0, 0.8), (0, 0, 0.8 + distance)])
    atoms.info["multiplicity"] = 2
    return atoms


def test_neb_finds_the_symmetric_saddle_of_hydrogen_exchange(tmp_path, capsys) -> None:
    initial, final = hydrogen_exchange(1.6), hydrogen_exchange(1.6)
    final.positions[1, 2] = 1.6
    start, end = str(tmp_path / "start.xyz"), str(tmp_path / "end.xyz")
    write(start, initial, format="extxyz")
    write(end, final, format="extxyz")
    band, picture = str(tmp_path / "band.xyz"), tmp_path / "neb.png"
    # LDA has no barrier here
    arguments = ["neb", start, end, *CHEAP, "--xc", "pbe0", "--n-images", "1"]
    arguments += ["--no-relax-ends", "--no-verify"]
    code, document = run_json(capsys, [*arguments, "--out", band, "--plot", str(picture)])
    assert code == 0
    assert document["converged"] is True
    assert document["reaction_energy"] == pytest.approx(0, abs=1e-5)
    saddle = np.array(document["saddle"]["positions"])[:, 2]
    assert saddle[1] - saddle[0] == pytest.approx(saddle[2] - saddle[1], abs=2e-3)
    assert len(read(band, index=":")) == 3
    assert picture.stat().st_size > 1000
    assert "label: expected no such option for 'neb'" in one_error_line(
        capsys, [*arguments, "--label", str(tmp_path / "density")]
    )
    assert "expected the composition of initial" in one_error_line(
        capsys, ["neb", start, _water(tmp_path), *CHEAP]
    )


def _water(folder: Path) -> str:
    path = str(folder / "water.xyz")
    write(path, molecule("H2O"), format="extxyz")
    return path


def test_adsorb_ranks_sites_and_states_its_reference(tmp_path, capsys, monkeypatch) -> None:
    # a slab by DFT takes minutes: EMT stands in for the calculator behind the same command
    monkeypatch.setattr("ase_neuralxc.calculator.NeuralXC", lambda **keywords: EMT())
    slab, clean = str(tmp_path / "slab.xyz"), fcc111("Cu", (2, 2, 2), vacuum=8.0)
    clean.info.clear()
    write(slab, clean, format="extxyz")
    best, picture = str(tmp_path / "best.xyz"), tmp_path / "ads.png"
    arguments = ["adsorb", slab, "O", "--gas", "O2:0.5", "--sites", "top,hollow"]
    code, document = run_json(capsys, [*arguments, "--out", best, "--plot", str(picture)])
    assert code == 0
    assert document["reference"] == {"O2": 0.5}
    energies = [entry["adsorption_energy"] for entry in document["structures"]]
    assert energies == sorted(energies)
    assert document["structures"][-1]["site"] == "top Cu"
    assert len(read(best, index=":")) == len(energies) == 3
    assert picture.exists()
    assert main([*arguments, "--quiet"]) == 0
    assert "E(0.5 O2(g)), coverage 0.25 ML" in capsys.readouterr().out
    assert "unknown adsorbate 'Ox'" in one_error_line(capsys, ["adsorb", slab, "Ox"])
    assert "magmoms: expected no such option" in one_error_line(
        capsys, ["adsorb", slab, "O", "--magmoms=1"]
    )


def test_elastic_constants_of_a_crystal(tmp_path, capsys, monkeypatch) -> None:
    from ase_neuralxc.cli import crystals

    monkeypatch.setattr(crystals, "attach", lambda _, atoms: setattr(atoms, "calc", EMT()))
    path, picture = str(tmp_path / "cu.xyz"), tmp_path / "young.png"
    write(path, bulk("Cu", a=3.59), format="extxyz")
    code, document = run_json(capsys, ["elastic", path, "--plot", str(picture)])
    assert code == 0
    assert document["stable"] is True
    assert 120 < document["bulk_moduli_gpa"][0] < 150
    assert picture.stat().st_size > 1000
