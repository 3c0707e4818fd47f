"""Crystals as species of a training: their points against GPAW's own energies."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.build import bulk
from gpaw_runs import needs_gpaw, solve
from script_runs import SCRIPTS, load_script, run_script
from training.helpers import H2

from ase_neuralxc.backend.clamps import DensityClamps
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw.xc import make_xc
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.training import crystals
from ase_neuralxc.training.composite import CompositeTask
from ase_neuralxc.training.compression import compress
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.folds import split
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import (
    Reaction,
    ReactionSet,
    Species,
    read_reactions,
    unique_species,
)
from ase_neuralxc.training.solve import system_of
from ase_neuralxc.training.stored import DensityCodec, density_path
from ase_neuralxc.training.stored_energies import xc_energies
from ase_neuralxc.validation.energies import reaction_energies, stored_energies

CHEAP = GPAWSettings(ecut=200.0, smearing=0.1)
KPTS = {"size": (2, 2, 2), "gamma": True}


def crystal(atoms, name="crystal"):
    return Species(
        name,
        tuple(atoms.get_chemical_symbols()),
        tuple(map(tuple, atoms.positions.tolist())),
        cell=tuple(map(tuple, atoms.cell.tolist())),
    )


SILICON = crystal(bulk("Si"), "Si")


def test_a_crystal_is_not_the_atom_in_it_nor_another_volume():
    atom = replace(SILICON, symbols=("Si",), positions=((0.0, 0.0, 0.0),))
    wider = replace(atom, cell=tuple(map(tuple, (1.01 * np.array(atom.cell)).tolist())))
    assert len({s.content_hash for s in (atom, wider, replace(atom, cell=None))}) == 3


def test_cells_are_read_and_checked(tmp_path):
    line = {
        "type": "species", "name": "Al", "charge": 0, "multiplicity": 1, "symbols": ["Al"],
        "positions": [[0, 0, 0]], "cell": [[0, 2, 2], [2, 0, 2], [2, 2, 0]],
    }  # fmt: skip
    reaction = {"type": "reaction", "id": "r", "species": ["Al"], "coeffs": [1], "ref": 0.0}
    path = tmp_path / "set.jsonl"

    def write(species):
        lines = ({"type": "meta", "set": "set"}, species, reaction)
        path.write_text("\n".join(map(json.dumps, lines)))

    write(line)
    assert read_reactions(path).species["Al"].cell[0] == (0.0, 2.0, 2.0)
    write({**line, "cell": [[0, 2, 2], [2, 0, 2]]})
    with pytest.raises(InvalidInputError, match="cell: expected 3 rows of three finite numbers"):
        read_reactions(path)
    # an odd number of electrons is a metal here, and a mistake without a cell
    del line["cell"]
    write(line)
    with pytest.raises(InvalidInputError, match="multiplicity"):
        read_reactions(path)


@pytest.mark.parametrize("change", [{"charge": 1}, {"cell": None}])
def test_charged_crystals_and_molecules_are_refused(change):
    with pytest.raises(InvalidInputError, match="expected a neutral crystal, got 'Si'"):
        crystals.crystal_density(replace(SILICON, **change), PrepareSettings())


def test_calculations_of_molecules_refuse_crystals():
    with pytest.raises(InvalidInputError, match="expected a molecule, got 'Si' with the cell"):
        system_of(SILICON)
    with pytest.raises(InvalidInputError, match="no field or cell, got a cell in 'Si'"):
        CompositeTask()(SILICON)


def test_a_crystal_of_the_formula_of_a_molecule_stays_in_the_training():
    dimer = replace(SILICON, name="Si2", cell=None, positions=((0, 0, 0), (0, 0, 2.2)))
    others = [replace(H2, name=f"H2 {i}", symbols=("H", e)) for i, e in enumerate(("H", "F"))]
    molecules = {s.name: s for s in (dimer, *others)}
    one = ReactionSet("W4-17", molecules, tuple(Reaction(n, (n,), (1.0,), 0.0) for n in molecules))
    crystal_set = ReactionSet("crystals", {"Si": SILICON}, (Reaction("Si", ("Si",), (1.0,), 0.0),))
    for fold in range(3):
        parts = split([one, crystal_set], "W4-17", 3, fold, 0)
        assert len(parts.validation) == 1
        assert ("crystals", "Si") in parts.training


@pytest.fixture(scope="module")
def stored():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crystals, "GPAW", CHEAP)
        patch.setattr(crystals, "KPOINTS_PER_ATOM", 16)
        return DensityTask(PrepareSettings())(SILICON)


@needs_gpaw
def test_energies_are_those_of_gpaw(stored):
    host = solve(bulk("Si"), "r2scan", ecut=200.0, kpts=KPTS, smearing=0.1)
    assert stored.total_energy == pytest.approx(host.energy, abs=1e-6)
    assert stored.closed_shell
    assert (stored.weights < 0).any()
    assert stored.energies["d4(r2scan)"] == 0.0
    decoded = DensityCodec().decode(DensityCodec().encode(stored), "memory")
    assert decoded.species == SILICON
    assert decoded.total_energy == stored.total_energy


@needs_gpaw
def test_another_functional_has_the_energy_that_it_has_in_gpaw_at_this_density(stored):
    other = load_functional("nxc-s9")
    with torch.no_grad():
        here = float(xc_energies(other, [stored])[0]) - stored.energies["xc"]
    host = solve(bulk("Si"), "r2scan", ecut=200.0, kpts=KPTS, smearing=0.1)
    dft = host.host.active()
    kernel = dft.pot_calc.xc.xc.kernel
    kernel.evaluate = make_xc(other, DensityClamps(), "cpu").evaluate.full
    _, energies, _ = dft.pot_calc.calculate_without_orbitals(dft.density)
    assert abs(here) > 0.05
    assert energies._energies["xc"] - host.energies["xc"] == pytest.approx(here, abs=2e-6)


@needs_gpaw
def test_a_magnet_has_two_spins(monkeypatch):
    monkeypatch.setattr(crystals, "GPAW", CHEAP)
    monkeypatch.setattr(crystals, "KPOINTS_PER_ATOM", 8)
    iron = bulk("Fe")
    stored = DensityTask(PrepareSettings())(replace(crystal(iron), multiplicity=3))
    assert len(stored.density) == 2
    iron.set_initial_magnetic_moments([2.0])
    host = solve(iron, "r2scan", ecut=200.0, kpts=KPTS, smearing=0.1)
    assert stored.total_energy == pytest.approx(host.energy, abs=1e-6)
    with torch.no_grad():
        own = float(xc_energies(load_functional("r2scan"), [stored])[0])
    assert own == pytest.approx(stored.energies["xc"], abs=1e-9)


@needs_gpaw
def test_joined_points_keep_the_energies(stored):
    joined = compress(stored, load_functional("r2scan"))
    assert joined.n_points < stored.n_points / 3
    other = load_functional("nxc-s9")
    with torch.no_grad():
        full, few = (float(xc_energies(other, [d])[0]) for d in (stored, joined))
    assert few + joined.energies["compression"] == pytest.approx(full, abs=5e-4)


@needs_gpaw
def test_exact_exchange_of_a_crystal_is_refused(stored, tmp_path):
    path = density_path(tmp_path, SILICON)
    path.parent.mkdir()
    path.write_bytes(DensityCodec().encode(stored))
    species = {
        "type": "species", "name": "Si", "charge": 0, "multiplicity": 1,
        "symbols": SILICON.symbols, "positions": SILICON.positions, "cell": SILICON.cell,
    }  # fmt: skip
    reaction = {"type": "reaction", "id": "r", "species": ["Si"], "coeffs": [1], "ref": 0.0}
    file = tmp_path / "set.jsonl"
    lines = ({"type": "meta", "set": "set"}, species, reaction)
    file.write_text("\n".join(map(json.dumps, lines)))
    table = ReactionTable.load([read_reactions(file)], tmp_path, "d4(r2scan)")
    assert float(table.fixed_energies()[0]) == pytest.approx(stored.energies["host"])
    with pytest.raises(InvalidInputError, match="exchange_fraction: expected 0 for 'Si'"):
        table.fixed_energies(0.25)


def test_hydrogen_has_no_cell_in_files_of_before():
    assert H2.cell is None


@needs_gpaw
def test_labels_are_the_energies_of_the_densities(tmp_path, monkeypatch):
    script = load_script("label_crystals", monkeypatch)
    monkeypatch.setattr(crystals, "GPAW", CHEAP)
    monkeypatch.setattr(crystals, "KPOINTS_PER_ATOM", 128)
    monkeypatch.setattr(script, "CRYSTALS", (("Si", "diamond", 5.43),))
    monkeypatch.setattr(script, "HELD_OUT", (("Al", "fcc", 4.0),))
    files = tmp_path / "train" / "c.jsonl", tmp_path / "test" / "h.jsonl"
    arguments = [files[0], "--held-out", files[1], "--densities", tmp_path / "dens", "--quiet"]
    assert run_script(script, monkeypatch, *arguments) == 0
    sets = [read_reactions(file) for file in files]
    assert [len(s.reactions) for s in sets] == [3, 3]
    assert [s.name for s in sets] == ["c", "h"]
    table = ReactionTable.load(sets, tmp_path / "dens", "d4(r2scan)")
    np.testing.assert_allclose(table.starting_energies(), table.references, atol=1e-4)
    assert (table.references > 0).all()
    stored = stored_energies(load_functional("r2scan"), unique_species(sets), tmp_path / "dens")
    found = list(reaction_energies(sets, stored).values())
    np.testing.assert_allclose(found, table.references, atol=1e-4)


def test_crystals_that_functionals_are_measured_on_are_not_among_those_with_labels(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPTS.parent / "benchmarks")
    solids = importlib.import_module("solids")
    measured = {
        (name.partition("_")[0], solids.STRUCTURES[name.partition("_")[2]])
        for name, *_ in solids.Protocol().solids
    }
    script = load_script("label_crystals", monkeypatch)
    labelled = {
        (formula, structure) for formula, structure, *_ in script.CRYSTALS + script.HELD_OUT
    }
    assert len(measured) == 19
    assert not labelled & measured
