"""Energies and gradients on stored densities, against the host's and against plain autograd."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numerical import central_difference
from training.helpers import SETTINGS, H, pair, prepare, reaction_set

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.neural import NeuralSemilocal
from ase_neuralxc.functional.r2scan import R2SCAN
from ase_neuralxc.records import units
from ase_neuralxc.training.batches import batches
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.stored_energies import xc_energies


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("densities")
    assert prepare(path).n_failed == 0
    return path


@pytest.fixture
def table(folder):
    return ReactionTable.load([reaction_set()], folder)


def network():
    return NeuralSemilocal(width=6, depth=2, dtype="float64", seed=3)


def plain_energies(functional, densities):
    """Everything in one graph, through the features as the host hands them over."""
    out = []
    for density in densities:
        (batch,) = batches([density], chunk=10**9)
        out.append(batch.weights @ functional.local_energy_density(batch.invariants))
    return torch.stack(out)


def test_the_starting_functional_gives_the_stored_energies(table):
    with torch.no_grad():
        found = xc_energies(load_functional("r2scan"), table.densities)
    expected = [d.energies["xc"] for d in table.densities]
    assert max(expected) < -0.2
    np.testing.assert_allclose(found, expected, atol=1e-7)
    energies = table.reaction_energies(load_functional("r2scan"))
    np.testing.assert_allclose(energies, table.starting_energies(), atol=3e-4)


def test_reaction_energies_are_sums_over_species(table):
    totals = {d.species.name: d.total_energy / units.KCALMOL_HARTREE for d in table.densities}
    expected = [
        2 * totals["H"] - totals["HH"],
        totals["H"] + totals["F"] - totals["HF"],
        totals["H"] + totals["O"] - totals["OH"],
        totals["HF"] + totals["H"] - totals["HH"] - totals["F"],
    ]
    assert 80 < expected[0] < 130  # a bond, in kcal/mol
    np.testing.assert_allclose(table.starting_energies(), expected, atol=1e-9)
    assert table.references.tolist() == [109.5, 141.6, 107.2, -32.1]
    assert len(table.densities) == 6


@pytest.mark.parametrize("chunk", [700, 10**9])
def test_batches_hold_every_point_once(table, chunk):
    n = len(table.densities)
    points, electrons = torch.zeros(n), torch.zeros(n, dtype=torch.float64)
    kinds = set()
    for batch in batches(table.densities, chunk):
        assert len(batch.weights) <= chunk
        points += torch.bincount(batch.segments, minlength=n)
        total = batch.weights * batch.invariants.density.sum(0)
        electrons.index_add_(0, batch.segments, total)
        kinds.add(batch.invariants.closed_shell)
        assert batch.invariants.sigma.shape == (3, len(batch.weights))
        assert batch.invariants.density.dtype == torch.float64
    assert points.tolist() == [d.n_points for d in table.densities]
    np.testing.assert_allclose(
        electrons, [d.species.n_electrons for d in table.densities], atol=1e-3
    )
    assert kinds == {True, False}


@pytest.mark.parametrize("chunk", [700, 10**9])
def test_gradients_equal_those_of_one_graph(table, chunk):
    functional = network()

    def gradients(energies):
        loss = ((table.combine(table.fixed_energies() + energies) - table.references) ** 2).mean()
        return loss.detach(), torch.autograd.grad(loss, tuple(functional.parameters()))

    loss, found = gradients(xc_energies(functional, table.densities, chunk))
    expected_loss, expected = gradients(plain_energies(functional, table.densities))
    assert loss == pytest.approx(float(expected_loss), rel=1e-10)
    assert max(float(g.abs().max()) for g in expected) > 1.0
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_gradients_equal_finite_differences(table):
    functional = network()
    parameter = functional.exchange_net.weights[0]

    def loss():
        errors = table.reaction_energies(functional) - table.references
        return (errors**2).mean()

    (gradient,) = torch.autograd.grad(loss(), (parameter,))
    assert abs(float(gradient[0, 0])) > 1e-3
    start = float(parameter[0, 0].detach())

    @torch.no_grad()
    def shifted(shift):
        parameter[0, 0] = start + shift
        return float(loss())

    expected = central_difference(shifted, 1e-3)
    assert float(gradient[0, 0]) == pytest.approx(expected, rel=1e-7)


def test_species_without_weight_are_not_evaluated_again(table, monkeypatch):
    functional = network()
    energies = xc_energies(functional, table.densities)
    seen = []
    original = NeuralSemilocal.local_energy_density

    def spy(self, invariants):
        seen.append(invariants.density.shape[1])
        return original(self, invariants)

    monkeypatch.setattr(NeuralSemilocal, "local_energy_density", spy)
    energies[0].backward()
    assert sum(seen) == table.densities[0].n_points
    assert functional.exchange_net.weights[0].grad.abs().max() > 0


def test_a_hybrid_adds_exact_exchange(table):
    hybrid = R2SCAN(exchange_fraction=0.25)
    expected = table.fixed_energies() + xc_energies(hybrid, table.densities)
    exact = torch.tensor(
        [d.energies["exact exchange"] for d in table.densities], dtype=torch.float64
    )
    assert float(exact.max()) < -0.2
    found = table.reaction_energies(hybrid)
    torch.testing.assert_close(found, table.combine(expected + 0.25 * exact))
    assert (found - table.starting_energies()).abs().max() > 1.0


def test_dispersion_is_added(folder, table):
    key = "d4(r2scan)"
    corrected = ReactionTable.load([reaction_set()], folder, key)
    energies = torch.tensor([d.energies[key] for d in table.densities], dtype=torch.float64)
    assert energies.abs().max() > 1e-6
    torch.testing.assert_close(
        corrected.starting_energies(), table.starting_energies() + table.combine(energies)
    )
    with pytest.raises(InvalidInputError, match=r"dispersion: expected one of .*'d4\(r2scan\)'"):
        ReactionTable.load([reaction_set()], folder, "d4(pbe)")


def test_a_part_of_the_reactions(table):
    functional = network()
    whole = table.reaction_energies(functional).detach()
    part = table.subset([3, 0])
    assert [r.name for r in part.reactions] == ["exchange", "H2"]
    assert len(part.densities) == 4
    torch.testing.assert_close(part.reaction_energies(functional).detach(), whole[[3, 0]])
    assert part.references.tolist() == [-32.1, 109.5]
    with pytest.raises(InvalidInputError, match="indices: expected at least one"):
        table.subset([])


def test_reactions_with_missing_densities_are_left_out(tmp_path):
    prepare(tmp_path, [H, pair("H", "H", 0.74)])
    table = ReactionTable.load([reaction_set()], tmp_path)
    assert [r.name for r in table.reactions] == ["H2"]
    assert table.missing == 3
    other = replace(reaction_set(), reactions=reaction_set().reactions[1:])
    with pytest.raises(InvalidInputError, match=r"at least one reaction .* got none of 3"):
        ReactionTable.load([other], tmp_path)
    assert SETTINGS.basis == table.densities[0].fidelity.basis
