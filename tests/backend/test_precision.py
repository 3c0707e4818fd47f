"""Networks that become more precise as the SCF converges."""

from __future__ import annotations

import pytest
import torch
from ase import Atoms
from systems import aminyl, as_system, water

from ase_neuralxc.backend import precision
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.backend.periodic import PeriodicBackend
from ase_neuralxc.backend.precision import in_double_precision
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.neural import NeuralSemilocal

SETTINGS = KSSettings(basis="6-31g", conv_tol=1e-9, density_fit=True, stability="never")
ENERGY_TOLERANCE = 2e-9  # Hartree, twice that of the SCF


def test_functionals_in_float64_are_returned_themselves():
    base, network = load_functional("r2scan"), NeuralSemilocal(width=8, depth=1, dtype="float64")
    assert in_double_precision(base) is base
    assert in_double_precision(network) is network


def test_others_are_copied_with_their_weights():
    network = NeuralSemilocal(width=8, depth=1)
    copy = in_double_precision(network)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert {p.dtype for p in copy.parameters()} == {torch.float64}
    for ours, theirs in zip(copy.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.double(), rtol=0, atol=0)


@pytest.mark.parametrize("build", [water, aminyl])
def test_an_scf_ends_with_the_energy_of_float64(build):
    functional = load_functional("nxc-s9")
    system, backend = as_system(build()), MolecularBackend()
    precise = backend.solve(system, in_double_precision(functional), SETTINGS)
    found = backend.solve(system, functional, SETTINGS)
    assert found.energy == pytest.approx(precise.energy, abs=ENERGY_TOLERANCE)
    assert found.cycles <= precise.cycles + 1
    assert {p.dtype for p in functional.parameters()} == {torch.float32}
    assert {p.dtype for p in found.host._numint.precise.parameters()} == {torch.float64}


def test_an_scf_that_starts_converged_ends_with_the_same_energy():
    functional, system = load_functional("nxc-s9"), as_system(water())
    first = MolecularBackend().solve(system, functional, SETTINGS)
    again = MolecularBackend().solve(system, functional, SETTINGS, guess=first.density_matrix)
    assert again.energy == pytest.approx(first.energy, abs=ENERGY_TOLERANCE)
    assert len(again.history) == 1
    assert again.cycles < first.cycles


def test_far_from_convergence_networks_stay_as_they_are(monkeypatch):
    functional = load_functional("nxc-s9")
    monkeypatch.setattr(precision, "NEAR", 0.0)
    loose = KSSettings(basis="6-31g", conv_tol=1e-6, density_fit=True, stability="never")
    found = MolecularBackend().solve(as_system(water()), functional, loose)
    assert found.host._numint.precise is functional


def test_crystals_end_with_the_energy_of_float64():
    settings = PeriodicSettings(basis="gth-szv", kpts=(1, 1, 2), ecut=900.0, smearing=3.0)
    cell = [[2.9, 0.2, 0.0], [0.0, 3.0, 0.3], [-0.2, 0.0, 3.6]]
    system = as_system(Atoms("H2", [[0, 0, 0], [0.3, 0.1, 1.7]], cell=cell, pbc=True))
    functional, backend = load_functional("nxc-s9"), PeriodicBackend()
    precise = backend.solve(system, in_double_precision(functional), settings)
    found = backend.solve(system, functional, settings)
    assert found.energy == pytest.approx(precise.energy, abs=2 * settings.conv_tol)
    assert {p.dtype for p in found.host._numint.precise.parameters()} == {torch.float64}
