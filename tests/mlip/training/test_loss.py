"""Losses against their formulas, missing labels, and gradients that stay finite."""

from dataclasses import replace

import pytest
import torch
from ase.build import bulk, molecule

from ase_neuralxc.errors import InvalidInputError
from mlip.data.labelled import collate_labelled, to_graph
from mlip.data.structure import Structure
from mlip.training.loss import Loss, with_volume
from mlip.training.settings import LossSettings

ONLY_FORCES = {"energy": 0.0, "forces": 1.0}


@pytest.fixture
def item(rng):
    structures = []
    for k, atoms in enumerate((molecule("H2O"), bulk("Cu"), molecule("CO"))):
        structures.append(
            Structure(
                numbers=atoms.numbers,
                positions=atoms.positions,
                cell=atoms.cell.array,
                pbc=atoms.pbc,
                energy=float(k) if k != 1 else None,
                forces=rng.normal(size=(len(atoms), 3)) if k != 2 else None,
                stress=rng.normal(size=(3, 3)) if k == 1 else None,
                weight=1.0 + k,
            )
        )
    return collate_labelled([to_graph(s, 4.0) for s in structures])


@pytest.fixture
def results(item):
    generator = torch.Generator().manual_seed(1)

    def tensor(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    return {
        "energy": tensor(3),
        "forces": tensor(6, 3),
        "stress": tensor(3, 3, 3),
        "member_energy": tensor(3, 4),
    }


def total(settings, results, item):
    loss = Loss(settings)
    return loss.total(loss.sums(results, item))


def test_energies_count_per_atom_and_by_weight(item, results):
    settings = LossSettings(kind="mse", energy=2.0, forces=0.0)
    error = (results["energy"] - item.labels.energy) / torch.tensor([3.0, 1.0, 2.0])
    expected = 2.0 * (1.0 * error[0] ** 2 + 3.0 * error[2] ** 2) / 2.0
    assert expected > 0
    torch.testing.assert_close(total(settings, results, item), expected)


@pytest.mark.parametrize("kind", ["mse", "huber", "mae", "norm"])
def test_kinds_of_loss_on_forces(item, results, kind):
    item = replace(item, labels=replace(item.labels, weight=torch.ones(3, dtype=torch.float64)))
    error = (results["forces"] - item.labels.forces)[:4]
    delta = 0.5
    expected = {
        "mse": error.square().mean(),
        "mae": error.abs().mean(),
        "norm": error.norm(dim=1).mean(),
        "huber": torch.where(
            error.abs() < delta, 0.5 * error.square(), delta * (error.abs() - 0.5 * delta)
        ).mean(),
    }
    found = total(LossSettings(kind=kind, huber_delta=delta, **ONLY_FORCES), results, item)
    torch.testing.assert_close(found, expected[kind])
    found.backward()
    gradient = results["forces"].grad
    assert gradient.isfinite().all()
    assert (gradient[:4] != 0).any()
    assert (gradient[4:] == 0).all()


def test_parts_of_a_batch_add_up(item, results):
    settings = LossSettings(kind="mse", energy=1.0, forces=3.0, stress=2.0)
    loss = Loss(settings)
    sums = loss.sums(results, item)
    assert {name: int(count) for name, (_, count) in sums.items()} == {
        "energy": 2,
        "forces": 12,
        "stress": 9,
    }
    by_hand = sum(getattr(settings, name) * value / count for name, (value, count) in sums.items())
    torch.testing.assert_close(loss.total(sums), by_hand)


def test_a_batch_without_a_label_gives_no_gradient(item, results):
    none = replace(item.labels, stress=torch.full_like(item.labels.stress, torch.nan))
    settings = LossSettings(energy=0.0, forces=0.0, stress=1.0)
    found = total(settings, results, replace(item, labels=none))
    assert found == 0.0
    found.backward()
    assert (results["stress"].grad == 0).all()


def test_the_likelihood_moves_the_spread_and_not_the_mean(item, results):
    settings = LossSettings(energy=0.0, forces=1e-12, uncertainty=1.0)
    total(settings, results, item).backward()
    gradient = results["member_energy"].grad
    assert gradient.abs().max() > 0
    torch.testing.assert_close(gradient.sum(1), torch.zeros(3, dtype=torch.float64))


def test_what_the_model_does_not_give_is_an_error(item, results):
    with pytest.raises(InvalidInputError, match=r"loss.magmoms: the model does not"):
        Loss(LossSettings(magmoms=1.0)).sums(results, item)
    moments = torch.zeros(6, 3, dtype=torch.float64)
    labels = replace(item.labels, magmoms=torch.zeros(6, dtype=torch.float64))
    with pytest.raises(InvalidInputError, match="signed and vector moments"):
        Loss(LossSettings(magmoms=1.0)).sums(
            {**results, "magmoms": moments}, replace(item, labels=labels)
        )


def test_molecules_get_a_volume_and_crystals_keep_theirs(item):
    changed = with_volume(item).graph
    assert (torch.linalg.det(changed.cell).abs() > 0).all()
    torch.testing.assert_close(changed.cell[1], item.graph.cell[1])
    torch.testing.assert_close(changed.edge_vectors(), item.graph.edge_vectors())


def test_a_prediction_that_is_not_finite_is_not_taken_for_a_missing_label(item, results):
    results["forces"] = results["forces"].detach().index_fill(0, torch.tensor([0]), torch.nan)
    assert total(LossSettings(kind="mse", **ONLY_FORCES), results, item).isnan()
