"""Nonlocal functionals on stored densities: the host's energies and gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from ase.data import atomic_numbers
from numerical import central_difference
from training.helpers import prepare, reaction_set

from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.moments import MomentFunctional
from ase_neuralxc.records import SpinState
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.nonlocal_batches import grid_batches
from ase_neuralxc.training.stored_energies import xc_energies


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    path = tmp_path_factory.mktemp("densities")
    assert prepare(path).n_failed == 0
    return ReactionTable.load([reaction_set()], path)


def moments(head_scale=0.3):
    return MomentFunctional(
        channels=2, width=6, exchange_width=6, depth=1, lmax=1, head_scale=head_scale,
        dtype="float64", seed=2,
    )  # fmt: skip


@pytest.mark.parametrize("atomwise", [True, False])
def test_batches_hold_every_point_once(table, atomwise):
    functional = load_functional("r2scan")
    found = torch.zeros(len(table.densities), dtype=torch.float64)
    electrons = np.zeros(len(table.densities))
    for batch in grid_batches(table.densities, atomwise):
        found += batch.energies(functional, len(table.densities))
        electrons[batch.species] += float(batch.features.weights @ batch.features.density.sum(0))
    np.testing.assert_allclose(found, [d.energies["xc"] for d in table.densities], atol=1e-7)
    counted = [float((d.weights * d.density).sum()) for d in table.densities]
    np.testing.assert_allclose(electrons, counted, rtol=1e-12)


def test_the_start_is_its_base(table):
    found = xc_energies(moments(head_scale=0.0), table.densities)
    np.testing.assert_allclose(
        found.detach(), [d.energies["xc"] for d in table.densities], atol=1e-7
    )


def test_energies_are_those_of_the_host(table):
    """The energy is stationary: on another density it is higher, by little."""
    functional = moments()
    density = next(d for d in table.densities if d.species.name == "HF")
    numbers = np.array([atomic_numbers[s] for s in density.species.symbols])
    system = System(numbers, np.array(density.species.positions), SpinState())
    settings = KSSettings(basis="6-31g", density_fit=True, grid_level=2)
    host = MolecularBackend().solve(system, functional, settings).energies["total"]
    xc = float(xc_energies(functional, [density])[0].detach())
    assert abs(xc - density.energies["xc"]) > 2e-2
    assert -1e-8 < density.energy_without_xc + xc - host < 1e-3


def test_moments_of_an_atom_do_not_depend_on_how_batches_are_cut(table):
    functional = moments()
    whole = torch.zeros(len(table.densities), dtype=torch.float64)
    with torch.no_grad():
        for batch in grid_batches(table.densities, atomwise=False):
            whole += batch.energies(functional, len(table.densities))
        np.testing.assert_allclose(xc_energies(functional, table.densities), whole, rtol=1e-12)


def test_gradients_equal_finite_differences(table):
    functional = moments()
    densities = table.densities[:2]
    weights = torch.tensor([1.0, -2.0], dtype=torch.float64)
    (xc_energies(functional, densities) @ weights).backward()
    parameter = functional.mix

    def shifted(delta):
        with torch.no_grad():
            parameter[0, 1, 0] += delta
            value = float(xc_energies(functional, densities) @ weights)
            parameter[0, 1, 0] -= delta
        return value

    expected = central_difference(shifted, 1e-3)
    assert abs(expected) > 1e-8
    assert float(parameter.grad[0, 1, 0]) == pytest.approx(expected, rel=1e-6)


def test_joined_points_are_refused(table):
    joined = replace(table.densities[0], coords=np.zeros((0, 3)), atom_counts=())
    with pytest.raises(InvalidInputError, match=r"joined points .*compress: false"):
        xc_energies(moments(), [joined])
