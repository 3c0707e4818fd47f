"""Single points, comparisons and the script, against the host and against themselves."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from dftd4.interface import DampingParam, DispersionModel
from pyscf import dft, gto
from script_runs import run_script
from training.helpers import H2, HF, NH2, SETTINGS, F, H, pair, prepare, reaction_set

from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.training import precompute
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.reactions import unique_species
from ase_neuralxc.validation.comparison import Column, Comparison, SCFSummary
from ase_neuralxc.validation.energies import (
    dispersion_energies,
    reaction_energies,
    stored_energies,
    without_species,
)
from ase_neuralxc.validation.report import as_values, markdown, write_report
from ase_neuralxc.validation.single_point import SinglePointSettings, SinglePointTask

QUICK = SinglePointSettings(basis="6-31g", grid_level=2)


@pytest.mark.parametrize("xc", ["r2scan", "b3lyp"])
@pytest.mark.parametrize("species", [HF, NH2], ids=lambda s: s.name)
def test_energies_equal_those_of_the_host(species, xc):
    """PySCF's own SCF, on the fine grid from the beginning."""
    settings = replace(QUICK, grid_level=3, density_fit=False)
    found = SinglePointTask(f"libxc:{xc}", settings)(species)
    mole = gto.M(
        atom=list(zip(species.symbols, species.positions, strict=True)),
        basis="6-31g", spin=species.multiplicity - 1, verbose=0,
    )  # fmt: skip
    mf = (dft.RKS if species.multiplicity == 1 else dft.UKS)(mole)
    mf.xc, mf.conv_tol = xc, 1e-10
    mf.kernel()
    assert found["energy"] == pytest.approx(mf.e_tot, abs=1e-5)
    assert found["dipole"] == pytest.approx(mf.dip_moment(unit="AU", verbose=0), abs=2e-3)
    levels = mf.mo_energy[mf.mo_occ > 0].max(), mf.mo_energy[mf.mo_occ == 0].min()
    assert found["levels"] == pytest.approx(levels, abs=1e-3)
    assert found["scf"]["cycles"] > 2
    assert json.loads(json.dumps(found)) == found


def test_torch_and_libxc_agree_and_the_task_travels():
    task = pickle.loads(pickle.dumps(SinglePointTask("pbe0", QUICK)))
    assert task(HF)["energy"] == pytest.approx(
        SinglePointTask("libxc:pbe0", QUICK)(HF)["energy"], abs=1e-6
    )


def test_a_coarse_grid_is_not_believed_blindly(monkeypatch):
    monkeypatch.setattr(precompute, "_GRID_ERRORS", (-1e-8, 1e-8))
    task = SinglePointTask("libxc:r2scan", QUICK)
    with pytest.raises(NeuralXCError, match="scf_grid_level: expected the energy of 'HF' on"):
        task(HF)
    assert task(HF, attempt=1)["scf"]["task_attempt"] == 1


def test_an_atom_without_empty_orbitals_or_second_spin():
    helium = replace(H, symbols=("He",), multiplicity=1)
    settings = replace(QUICK, basis="sto-3g")
    assert SinglePointTask("libxc:pbe", settings)(helium)["levels"][1] is None
    hydrogen = SinglePointTask("libxc:pbe", settings)(H)
    assert hydrogen["levels"][0] < hydrogen["levels"][1]


def test_settings_and_weights_are_the_identity():
    pbe, hybrid = load_functional("pbe"), load_functional("pbe0")
    other = replace(QUICK, basis="sto-3g")
    identities = {QUICK.identity(pbe), QUICK.identity(hybrid), other.identity(pbe)}
    assert len(identities) == 3
    assert QUICK.identity(load_functional("pbe")) in identities


def test_reaction_energies_and_whole_reactions():
    one = reaction_set()
    energies = {s.content_hash: -float(i + 1) for i, s in enumerate((H, F, H2, HF))}
    found = reaction_energies([one], energies)
    assert found == pytest.approx(
        {
            ("tiny", "H2"): (2 * -1 + 3) / units.KCALMOL_HARTREE,
            ("tiny", "HF"): (-1 - 2 + 4) / units.KCALMOL_HARTREE,
            ("tiny", "exchange"): (3 + 2 - 4 - 1) / units.KCALMOL_HARTREE,
        }
    )
    (left,) = without_species([one], [F])
    assert [r.name for r in left.reactions] == ["H2", "OH"]
    assert set(left.species) == {"H", "HH", "O", "OH"}
    assert without_species([one], [H]) == []


def test_stored_energies_are_those_of_the_table(tmp_path):
    prepare(tmp_path, [H, F, H2, HF])
    hybrid = load_functional("r2scan0")
    found = stored_energies(hybrid, unique_species([reaction_set()]), tmp_path)
    table = ReactionTable.load([reaction_set()], tmp_path)
    expected = table.reaction_energies(hybrid).tolist()
    assert list(reaction_energies([reaction_set()], found).values()) == pytest.approx(expected)
    assert SETTINGS.basis == table.densities[0].fidelity.basis


def test_dispersion_energies_are_those_of_dftd4():
    far = pair("Ar", "Ar", 3.76)
    found = dispersion_energies(Dispersion("d4", "pbe"), {"a": far}, ["a"])
    model = DispersionModel(np.array([18, 18]), np.array(far.positions) / units.BOHR_ANGSTROM)
    expected = model.get_dispersion(DampingParam(method="pbe"), grad=False)["energy"]
    assert expected < -1e-4
    assert found["a"] == pytest.approx(expected, rel=1e-10)


def result(cycles, attempts=1, task_attempt=0):
    scf = {"cycles": cycles, "attempts": attempts, "task_attempt": task_attempt}
    return {"scf": scf, "seconds": 30.0}


def comparison():
    one = reaction_set()
    all_species = {s.content_hash: 0.0 for s in one.species.values()}
    some = {k: v for k, v in all_species.items() if k != HF.content_hash}
    scf = SCFSummary.of([result(9), result(11, 2), result(30, 4, 1)], {"HF": "SCFNotConverged: no"})
    listed = without_species([one], [one.species["OH"]])
    return Comparison([one], listed, [Column("a", all_species), Column("b", some, scf)], {"q": 1})


def test_a_comparison_is_over_reactions_that_everyone_has(tmp_path):
    found = comparison()
    assert found.common == [("tiny", "H2")]
    assert found.left_out == {"tiny": (1, 2)}
    for subsets in found.subsets.values():
        assert [(s.name, s.n, s.mae) for s in subsets] == [("tiny", 1, 109.5)]
    text = markdown(found)
    assert "| tiny | 1/4 | 109.50 | 109.50 |" in text
    assert "| b | 3 | 1 | 11 | 30 | 2 | 1 | 1.5 |" in text
    assert "- b, HF: SCFNotConverged: no" in text
    assert "| tiny | 1 | 2 |" in text
    values = json.loads(json.dumps(as_values(found)))
    assert values["functionals"]["a"]["reaction_energies"] == {"tiny/H2": 0.0}
    assert values["left_out"]["tiny"] == {"beforehand": 1, "not computed": 2}
    write_report(found, tmp_path)
    assert (tmp_path / "report.md").read_text() == text
    assert (tmp_path / "report.png").stat().st_size > 1000


def test_a_comparison_of_nothing_is_refused():
    one = reaction_set()
    with pytest.raises(InvalidInputError, match="columns: expected at least one functional"):
        Comparison([one], [one], [])
    with pytest.raises(InvalidInputError, match="at least one reaction for which all"):
        Comparison([one], [one], [Column("a", {})])
    with pytest.raises(InvalidInputError, match="results: expected at least one energy"):
        SCFSummary.of([], {})


@pytest.fixture
def run(monkeypatch, capsys):
    def call(*arguments):
        return run_script("benchmark_xc", monkeypatch, *arguments), capsys.readouterr().out

    return call


@pytest.fixture
def data(tmp_path):
    def line(species):
        return {
            "type": "species", "name": species.name, "charge": 0, "symbols": species.symbols,
            "multiplicity": species.multiplicity, "positions": species.positions,
        }  # fmt: skip

    one = reaction_set()
    lines = [{"type": "meta", "set": "tiny"}, *(line(s) for s in one.species.values())]
    lines += [
        {"type": "reaction", "id": r.name, "species": r.species, "coeffs": r.coefficients,
         "ref": r.reference}
        for r in one.reactions
    ]  # fmt: skip
    path = tmp_path / "tiny.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_the_script_computes_once_and_reports(run, data, tmp_path):
    common = ["--data", data, "--out", tmp_path / "out", "--basis", "6-31g", "--quiet"]
    wanted = ["libxc:pbe", "libxc:pbe+d4", "--max-basis-functions", "10"]
    code, text = run(*wanted, *common)
    assert code == 0
    assert "| tiny | 1/4 |" in text  # H and H2 alone are that small
    assert "| tiny | 3 | 0 |" in text
    assert "| pbe | pbe+d4(pbe) |" in text
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    bond = report["functionals"]["pbe"]["reaction_energies"]["tiny/H2"]
    assert bond == pytest.approx(104.0, abs=3.0)  # kcal/mol
    shift = report["functionals"]["pbe+d4(pbe)"]["reaction_energies"]["tiny/H2"] - bond
    assert 0 < abs(shift) < 0.5
    code, again = run(*wanted, *common, "--report-only")
    assert (code, again) == (0, text)


def test_a_list_goes_on_where_another_ended(run, data, tmp_path):
    common = ["libxc:pbe", "--data", data, "--basis", "6-31g", "--quiet"]
    tables, protocols = {}, {}
    for name, limits in {
        "small": ["--max-basis-functions", "10"],
        "rest": ["--larger-than", "10"],
        "all": [],
    }.items():
        code, _ = run(*common, *limits, "--out", tmp_path / name)
        assert code == 0
        report = json.loads((tmp_path / name / "report.json").read_text())
        tables[name] = report["functionals"]["pbe"]["reaction_energies"]
        protocols[name] = report["protocol"]
    assert protocols["rest"]["larger_than"] == 10
    assert tables["small"].keys().isdisjoint(tables["rest"])
    assert tables["small"] | tables["rest"] == pytest.approx(tables["all"], abs=1e-6)
    with pytest.raises(InvalidInputError, match="larger_than: expected limits with reactions"):
        run(*common, "--larger-than", "900", "--out", tmp_path / "none")


def test_the_script_on_stored_densities(run, data, tmp_path):
    prepare(tmp_path / "densities", [H, F, H2, HF])
    stored = ["--stored", tmp_path / "densities", "--data", data, "--out", tmp_path / "out"]
    code, text = run("r2scan", "pbe", *stored, "--basis", "6-31g")
    assert code == 0
    assert "| tiny | 3/4 |" in text
    with pytest.raises(InvalidInputError, match="stored: expected semi-local functionals of torch"):
        run("libxc:pbe", *stored)
    with pytest.raises(InvalidInputError, match=r"unknown subset 'tine'.*Did you mean 'tiny'"):
        run("pbe", *stored, "--subsets", "tine")
