"""Stored densities against the host's own energies of the same states."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
from pyscf import dft, gto, scf
from script_runs import run_script
from training.helpers import H2, HF, NH2, OH, SETTINGS, H, O, pair, prepare

from ase_neuralxc.errors import InvalidInputError, NeuralXCError, SCFNotConverged
from ase_neuralxc.records import units
from ase_neuralxc.training import precompute
from ase_neuralxc.training.planning import count_basis_functions
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.solve import RoomyBackend
from ase_neuralxc.training.stored import DensityCodec, density_path, open_density
from ase_neuralxc.validation.single_point import SinglePointSettings


def mole(species, basis="6-31g"):
    return gto.M(
        atom=list(zip(species.symbols, species.positions, strict=True)),
        basis=basis,
        charge=species.charge,
        spin=species.multiplicity - 1,
        verbose=0,
    )


def host_xc(stored, xc):
    """Energy of a functional of libxc from the points that were stored."""
    rows = np.concatenate(
        [stored.density[:, None], stored.gradient, stored.tau[:, None]], axis=1, dtype=float
    )
    given = rows[0] if stored.closed_shell else rows
    exc = dft.numint.NumInt().eval_xc_eff(xc, given, deriv=0, xctype="MGGA")[0]
    return float(rows[:, 0].sum(0) * exc @ stored.weights)


@pytest.mark.parametrize("species", [HF, NH2], ids=lambda s: s.name)
def test_energies_equal_those_of_the_host(species):
    """PySCF's own SCF, without density fitting, on the fine grid from the beginning."""
    fine = replace(SETTINGS, grid_level=3, scf_grid_level=1, density_fit=False)
    stored = DensityTask(fine)(species)
    mf = (dft.RKS if species.multiplicity == 1 else dft.UKS)(mole(species))
    mf.xc, mf.grids.level, mf.conv_tol = "r2scan", 3, 1e-10
    mf.kernel()
    assert mf.converged
    # second order in what the coarse grid does to the density
    assert stored.total_energy == pytest.approx(mf.e_tot, abs=1e-5)
    # at the stored density itself there is nothing left but rounding
    density = stored.occupations[:, None, :] * stored.orbitals @ stored.orbitals.T
    density = density[0] if stored.closed_shell else density
    assert stored.total_energy == pytest.approx(mf.energy_tot(density), abs=1e-7)
    assert host_xc(stored, "r2scan") == pytest.approx(stored.energies["xc"], abs=1e-7)
    exact = scf.HF(mf.mol).get_k(mf.mol, density)
    scale = 0.25 if stored.closed_shell else 0.5
    assert stored.energies["exact exchange"] == pytest.approx(
        -scale * np.sum(exact * density), abs=1e-9
    )
    assert stored.energies["exact exchange"] < -5
    dipole = mf.dip_moment(mf.mol, density, "AU", verbose=0)
    np.testing.assert_allclose(stored.provenance["dipole"], dipole, atol=1e-6)
    assert abs(dipole[2]) > 0.3


def test_a_hybrid_can_be_the_start():
    """What is stored without its exact exchange adds up to the energy of the host."""
    settings = replace(SETTINGS, xc="pbe0", grid_level=3, density_fit=False)
    stored = DensityTask(settings)(HF)
    mf = dft.RKS(mole(HF))
    mf.xc, mf.grids.level, mf.conv_tol = "pbe0", 3, 1e-10
    mf.kernel()
    assert stored.starting_fraction == 0.25
    assert stored.total_energy == pytest.approx(mf.e_tot, abs=1e-5)
    assert stored.energy_without_xc + stored.energies["xc"] > mf.e_tot + 1.0


def test_densities_are_narrow_only_where_that_does_not_hurt(monkeypatch):
    task = DensityTask(SETTINGS)
    narrow = task(HF)
    assert narrow.density.dtype == narrow.gradient.dtype == narrow.tau.dtype == np.float32
    assert narrow.weights.dtype == np.float64
    monkeypatch.setattr(precompute, "ROUNDING", 1e-13)
    wide = task(HF)
    assert wide.density.dtype == np.float64
    assert host_xc(wide, "r2scan") == pytest.approx(host_xc(narrow, "r2scan"), abs=1e-7)


def test_points_without_electrons_are_left_out():
    stored = DensityTask(replace(SETTINGS, grid_level=3, scf_grid_level=1))(OH)
    assert sum(stored.atom_counts) == stored.n_points < 0.95 * stored.provenance["n_grid_points"]
    assert stored.density.sum(0) @ stored.weights == pytest.approx(9.0, abs=1e-4)
    # each atom's points are around it
    oxygen = stored.coords[: stored.atom_counts[0]]
    hydrogen = stored.coords[stored.atom_counts[0] :]
    bond = 0.97 / units.BOHR_ANGSTROM
    weights = stored.weights[: len(oxygen)], stored.weights[len(oxygen) :]
    assert abs(np.average(oxygen[:, 2], weights=weights[0] * stored.density[0, : len(oxygen)])) < 1
    assert np.median(np.linalg.norm(hydrogen - [0, 0, bond], axis=1)) < np.median(
        np.linalg.norm(hydrogen, axis=1)
    )


def test_an_electric_field_acts():
    task = DensityTask(replace(SETTINGS, scf_grid_level=2, conv_tol=1e-9))
    # along the dipole, which points from F to H: energy goes down to first order
    field = replace(HF, positions=((0.0, 0.0, 0.0), (0.0, 0.0, 0.92)), symbols=("F", "H"))
    free = task(field)
    dipole = free.provenance["dipole"][2]
    assert dipole > 0.3
    step = 1e-3
    energies = [
        task(replace(field, field=(0.0, 0.0, sign * step))).total_energy for sign in (1, -1)
    ]
    assert (energies[1] - energies[0]) / (2 * step) == pytest.approx(dipole, rel=2e-3)


def test_what_is_written_is_read_back(tmp_path):
    stored = DensityTask(SETTINGS)(OH)
    codec = DensityCodec()
    content = codec.encode(stored)
    path = tmp_path / f"x{codec.suffix}"
    path.write_bytes(content)
    for again in (codec.decode(content, "memory"), open_density(path)):
        assert again.species == stored.species
        assert again.fidelity == stored.fidelity
        assert again.fidelity.digest == stored.fidelity.digest
        assert again.energies == stored.energies
        assert again.atom_counts == stored.atom_counts
        for name in ("weights", "density", "gradient", "tau", "orbitals", "orbital_energies"):
            np.testing.assert_array_equal(getattr(again, name), getattr(stored, name))
        assert not again.density.flags.writeable
    for damaged in (content[:-100], content[:50], content[:4], b""):
        path.write_bytes(damaged)
        with pytest.raises(InvalidInputError, match=r"x\.density"):
            open_density(path)
    with pytest.raises(InvalidInputError, match="expected a StoredDensity"):
        codec.encode({})


def test_the_tag_says_what_was_done():
    stored = DensityTask(SETTINGS)(replace(H2, field=(0.0, 0.0, 0.01)))
    assert stored.fidelity.functional == "libxc:r2scan"
    assert stored.fidelity.grid == "pyscf level 2, SCF at level 1"
    assert stored.fidelity.external_field[2] == pytest.approx(0.514220675)
    assert stored.provenance["converged"]
    assert stored.provenance["seconds"] >= stored.provenance["scf_seconds"] > 0


def test_a_torch_functional_gives_the_same_density():
    host = DensityTask(SETTINGS)(NH2)
    torch = DensityTask(replace(SETTINGS, xc="r2scan"))(NH2)
    assert torch.total_energy == pytest.approx(host.total_energy, abs=1e-7)
    assert SETTINGS.identity != replace(SETTINGS, xc="r2scan").identity


def test_settings_are_checked():
    with pytest.raises(InvalidInputError, match="unknown functional"):
        PrepareSettings(xc="r2scam").functional()
    assert SETTINGS.identity != replace(SETTINGS, grid_level=3).identity
    task = pickle.loads(pickle.dumps(DensityTask(SETTINGS)))
    assert task.settings == SETTINGS


def test_a_second_run_skips_and_failures_are_listed(tmp_path):
    first = prepare(tmp_path, [H, H2])
    assert (first.n_done, first.n_skipped, first.n_failed) == (2, 0, 0)
    again = prepare(tmp_path, [H, replace(H2, name="the same"), O])
    assert (again.n_done, again.n_skipped) == (1, 2)
    assert open_density(density_path(tmp_path, O)).species == O
    with pytest.raises(InvalidInputError, match="expected a campaign of"):
        prepare(tmp_path, [H], replace(SETTINGS, grid_level=0))
    impossible = prepare(tmp_path, [pair("H", "H", 0.1), H])
    assert (impossible.n_failed, impossible.n_skipped) == (1, 1)
    (failure,) = impossible.failures.values()
    assert "0.1000 Angstrom apart" in failure.reasons[-1]


def test_energies_do_not_come_from_a_summary_that_others_write_to():
    solve = RoomyBackend.solve
    task = DensityTask(SETTINGS)
    expected = task(NH2)

    def solve_and_spoil(self, *args, **kwargs):
        solution = solve(self, *args, **kwargs)
        parts = {"core": solution.energies["core"] + 0.3, "xc": solution.energies["xc"] - 0.3}
        return replace(solution, energies={**solution.energies, **parts})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RoomyBackend, "solve", solve_and_spoil)
        found = task(NH2)
    assert found.energies == pytest.approx(expected.energies, abs=1e-7)


def test_a_grid_too_coarse_for_the_scf_is_a_failure_that_the_second_attempt_repairs(monkeypatch):
    monkeypatch.setattr(precompute, "_GRID_ERRORS", (-1e-8, 1e-8))
    task = DensityTask(SETTINGS)
    with pytest.raises(NeuralXCError, match="scf_grid_level: expected the energy of 'HF' on"):
        task(HF)
    monkeypatch.setattr(precompute, "_GRID_ERRORS", (-1e-6, 1e-6))
    assert task(HF, attempt=1).provenance["n_basis_functions"] == 11


def test_no_convergence_is_a_failure(monkeypatch):
    monkeypatch.setattr("ase_neuralxc.backend.molecular.DEFAULT_LADDER", ())
    task = DensityTask(SETTINGS)
    monkeypatch.setattr(RoomyBackend, "__init__", lambda self: _no_ladder(self))
    with pytest.raises(SCFNotConverged):
        task(H2)


def _no_ladder(backend):
    backend.dft, backend.ladder = dft, ()


@pytest.mark.parametrize("basis", ["cc-pvdz", "def2-tzvpp", "ano-rcc"])
def test_basis_functions_are_counted_without_a_molecule(basis):
    species = pair("Br", "Cl", 2.1)
    count = count_basis_functions(species, basis, {})
    assert count == mole(species, basis).nao


def test_the_script(tmp_path, monkeypatch, capsys):
    meta = {"type": "meta", "set": "tiny"}
    lines = [meta]
    for s in (H, H2):
        lines.append(
            {
                "type": "species", "name": s.name, "charge": 0, "multiplicity": s.multiplicity,
                "symbols": s.symbols, "positions": s.positions,
            }
        )  # fmt: skip
    lines.append(
        {"type": "reaction", "id": "b", "species": ["H", "HH"], "coeffs": [2, -1], "ref": 109.5}
    )
    data = tmp_path / "tiny.jsonl"
    data.write_text("\n".join(map(json.dumps, lines)))
    arguments = [
        data, "--out", tmp_path / "out",
        "--basis", "6-31g", "--xc", "libxc:pbe", "--grid-level", "3",
        "--scf-grid-level", "2", "--quiet",
    ]  # fmt: skip
    with pytest.raises(InvalidInputError, match="reactions in 6-31g within a limit of 1, got none"):
        run_script("prepare_xc", monkeypatch, *arguments, "--max-basis-functions", "1")
    assert run_script("prepare_xc", monkeypatch, *arguments, "--dry-run") == 0
    assert not (tmp_path / "out").exists()
    outputs = []
    for _ in range(2):
        capsys.readouterr()
        assert run_script("prepare_xc", monkeypatch, *arguments) == 0
        outputs.append(capsys.readouterr().out)
    assert "2 species of 1 reactions in 6-31g, up to 4 basis functions" in outputs[0]
    assert "computed 2, there before 0, failed 0" in outputs[0]
    assert "computed 0, there before 2, failed 0" in outputs[1]
    made = list((tmp_path / "out" / "results").glob("*.density"))
    assert len(made) == 2
    assert open_density(made[0]).fidelity.grid == "pyscf level 3, SCF at level 2"


@pytest.mark.parametrize("kind", [PrepareSettings, SinglePointSettings])
@pytest.mark.parametrize("name", ["grid_level", "scf_grid_level"])
def test_levels_of_grids_are_checked(kind, name):
    with pytest.raises(
        InvalidInputError, match=f"^{name}: expected an integer from 0 to 9, got 99"
    ):
        kind(**{name: 99})
