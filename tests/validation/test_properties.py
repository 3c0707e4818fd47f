"""Polarisabilities against field differences, relaxed bonds against a scan, and the errors."""

import json

import numpy as np
import pytest
from pyscf import dft
from training.helpers import H2, HF, H, reaction_set
from training.test_precompute import mole

from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units
from ase_neuralxc.validation import properties
from ase_neuralxc.validation.properties import (
    GeometryTask,
    PolarizabilityTask,
    PropertySettings,
    bond_errors,
    polarizability_errors,
    read_bonds,
    read_polarizabilities,
)

QUICK = PropertySettings(basis="6-31g", density_fit=False, grid_level=2)


def test_polarizability_equals_a_difference_of_dipoles():
    found = PolarizabilityTask("libxc:pbe", QUICK)(HF)["polarizability"]

    def dipole(field):
        mf = dft.RKS(mole(HF))
        mf.xc, mf.grids.level, mf.conv_tol = "pbe", 2, 1e-11
        core = mf.get_hcore()
        mf.get_hcore = lambda *_: core + field * mf.mol.intor("int1e_r")[2]
        mf.kernel()
        return mf.dip_moment(unit="AU", verbose=0)[2]

    expected = (dipole(2e-3) - dipole(-2e-3)) / 4e-3 * units.BOHR3_ANGSTROM3
    assert expected > 0.3
    assert found[2][2] == pytest.approx(expected, rel=1e-3)


def test_a_relaxed_bond_is_the_minimum_of_a_scan():
    result = GeometryTask("libxc:pbe", QUICK)(H2)
    length = np.linalg.norm(np.subtract(*result["positions"]))
    lengths = length + np.array([-0.02, 0.0, 0.02])

    def energy(r):
        mf = dft.RKS(mole(properties.Species("H2", ("H", "H"), ((0, 0, 0), (0, 0, r)))))
        mf.xc, mf.grids.level = "pbe", 2
        return mf.kernel()

    a, b, _ = np.polyfit(lengths, [energy(r) for r in lengths], 2)
    assert length == pytest.approx(-b / (2 * a), abs=1e-3)
    assert result["steps"] > 0


def test_a_relaxation_that_does_not_end_is_an_error(monkeypatch):
    monkeypatch.setattr(properties, "_STEPS", 0)
    with pytest.raises(NeuralXCError, match="geometry: expected forces below"):
        GeometryTask("libxc:pbe", QUICK)(H2)


def test_settings_are_the_identity():
    pbe = load_functional("pbe")
    kinds = {QUICK.identity(kind, pbe) for kind in ("geometries", "polarizabilities")}
    assert len(kinds | {PropertySettings().identity("geometries", pbe)}) == 3


def test_references_are_read_and_errors_are_relative(tmp_path):
    path = tmp_path / "p.jsonl"
    line = {
        "type": "species", "name": "HF", "charge": 0, "multiplicity": 1, "symbols": HF.symbols,
        "positions": HF.positions, "polarizability_diag_A3": {"x": 0.5, "z": 0.8},
    }  # fmt: skip
    path.write_text('{"type": "meta", "set": "p"}\n' + json.dumps(line))
    (reference,) = read_polarizabilities(path)
    assert reference.species.content_hash == HF.content_hash
    results = {HF.content_hash: {"polarizability": np.diag([0.55, 9.0, 0.72]).tolist()}}
    assert polarizability_errors([reference], results) == pytest.approx([10.0, -10.0])
    assert polarizability_errors([reference], {}) == []
    for broken, message in [
        ({**line, "polarizability_diag_A3": {"w": 1.0}}, "expected axes among x, y, z"),
        ({k: v for k, v in line.items() if k != "charge"}, "path: cannot read"),
    ]:
        path.write_text(json.dumps(broken))
        with pytest.raises(InvalidInputError, match=message):
            read_polarizabilities(path)

    table = tmp_path / "b.csv"
    table.write_text("# c\nmolecule,atom_i,atom_j,r_A\nHF,0,1,0.917\nother,0,1,1.0\n")
    (bond,) = read_bonds(table, reaction_set())
    assert bond.species == reaction_set().species["HF"]
    results = {HF.content_hash: {"positions": [[0, 0, 0], [0, 0.6, 0.8]]}}
    assert bond_errors([bond], results) == pytest.approx([0.083])
    assert bond_errors([bond], {H.content_hash: {}}) == []
    table.write_text("molecule,atom_i,atom_j,r_A\nHF,0,one,0.9\n")
    with pytest.raises(InvalidInputError, match="path: cannot read"):
        read_bonds(table, reaction_set())
