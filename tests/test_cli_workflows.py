from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.io import read, write
from cli_runs import CHEAP, one_error_line, run_json, stretched_hydrogen

from ase_neuralxc.cli import main


@pytest.fixture
def stretched(tmp_path: Path) -> str:
    return stretched_hydrogen(tmp_path)


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
