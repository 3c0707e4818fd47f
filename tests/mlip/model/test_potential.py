"""Contract of a potential: symmetries, extensivity, smoothness, derivatives; in both precisions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from mlip_equivariance import DTYPES, random_rotation
from mlip_structures import SMALL, ethanol, graph_of, oxide, potential

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import collate
from mlip.model.potential import Potential, Wanted
from mlip.model.protocol import SpinAwareModel
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel

#: Relative rounding of energies and forces of models with random weights.
ROUNDING = {torch.float64: 1e-11, torch.float32: 3e-4}
ALL = Wanted(forces=True, stress=True)


def close(actual, expected, dtype=torch.float64):
    expected = expected.detach()
    scale = float(expected.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=ROUNDING[dtype] * scale)


def turned(atoms, matrix):
    copy = atoms.copy()
    copy.set_cell(atoms.cell[:] @ matrix.T)
    copy.positions = atoms.positions @ matrix.T
    return copy


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("improper", [False, True])
def test_energy_forces_and_stress_turn_with_the_structure(improper, dtype):
    model = potential((8, 28), dtype=dtype)
    rotation = random_rotation(torch.float64, improper)
    here = model(graph_of(oxide()), ALL)
    there = model(graph_of(turned(oxide(), rotation.numpy())), ALL)
    matrix = rotation.to(dtype)
    close(there["energy"], here["energy"], dtype)
    close(there["forces"], here["forces"] @ matrix.T, dtype)
    close(there["stress"], matrix @ here["stress"] @ matrix.T, dtype)


def test_translation_and_order_of_atoms_do_not_matter():
    model, atoms = potential(), ethanol()
    order = np.random.default_rng(3).permutation(len(atoms))
    moved = atoms[order]
    moved.translate([1.0, -2.0, 30.0])
    here, there = model(graph_of(atoms)), model(graph_of(moved))
    close(there["energy"], here["energy"])
    close(there["energies"], here["energies"][order])
    close(there["forces"], here["forces"][order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_batch_is_its_structures_one_by_one(dtype):
    model = potential((1, 6, 8, 28), dtype=dtype)
    graphs = [graph_of(atoms) for atoms in (ethanol(), oxide(), oxide(2))]
    together = model(collate(graphs))
    alone = [model(graph) for graph in graphs]
    for name in ("energy", "energies", "forces"):
        close(together[name], torch.cat([result[name] for result in alone]), dtype)


def test_a_supercell_has_a_multiple_of_the_energy():
    model = potential((8, 28))
    one, three = model(graph_of(oxide()), ALL), model(graph_of(oxide(3)), ALL)
    close(three["energy"], 3 * one["energy"])
    close(three["forces"], one["forces"].repeat(3, 1))
    close(three["stress"], one["stress"])


def test_forces_are_minus_the_derivative_of_the_energy():
    model, atoms, step = potential(zbl=True), ethanol(), 1e-4
    forces = model(graph_of(atoms))["forces"]
    for atom, axis in [(0, 0), (2, 1), (8, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            energies.append(float(model(graph_of(moved), Wanted(forces=False))["energy"]))
        numerical = -(energies[0] - energies[1]) / (2 * step)
        assert abs(numerical) > 1e-3
        assert float(forces[atom, axis]) == pytest.approx(numerical, rel=1e-5, abs=1e-6)


def test_forces_sum_to_zero():
    forces = potential()(graph_of(ethanol()))["forces"]
    assert forces.abs().max() > 1e-2
    assert forces.sum(0).abs().max() < 1e-12 * len(forces) * float(forces.abs().max()) + 1e-13


def test_stress_is_the_derivative_by_strain():
    model, atoms, step = potential((8, 28), zbl=True), oxide(), 1e-5
    stress = model(graph_of(atoms), ALL)["stress"][0]
    sizes = []
    for a, b in [(0, 0), (1, 2), (0, 1), (0, 2)]:
        energies = []
        for sign in (1, -1):
            strain = np.zeros((3, 3))
            strain[a, b] += sign * step / 2
            strain[b, a] += sign * step / 2
            strained = turned(atoms, np.eye(3) + strain)
            energies.append(float(model(graph_of(strained), Wanted(forces=False))["energy"]))
        numerical = (energies[0] - energies[1]) / (2 * step) / atoms.get_volume()
        sizes.append(abs(numerical))
        assert float(stress[a, b]) == pytest.approx(numerical, rel=1e-5, abs=1e-8)
    # xy happens to be small with these weights
    assert sorted(sizes)[1] > 1e-4


def test_energy_and_forces_are_smooth_at_the_cutoff():
    from ase import Atoms

    model = potential((1, 8))

    def at(distance):
        # a third atom, so that the pair that crosses the cutoff takes part in products
        atoms = Atoms("OHO", [[0, 0, 0], [0.6, 0.8, 0], [0, 0, distance]])
        out = model(graph_of(atoms))
        return float(out["energy"]), out["forces"]

    r_max = SMALL["r_max"]
    inside, forces_inside = at(r_max - 1e-4)
    outside, forces_outside = at(r_max + 1e-4)
    near = at(r_max - 1.0)[0]
    assert abs(near - outside) > 1e-4  # the third atom matters further inside
    assert inside == pytest.approx(outside, abs=1e-9)
    torch.testing.assert_close(forces_inside, forces_outside, rtol=0, atol=1e-6)


def test_atoms_without_neighbours_have_an_energy_of_their_own():
    from ase import Atoms

    model = potential((1, 8))
    far = Atoms("OHO", [[0, 0, 0], [9, 0, 0], [0, 9, 0]])
    alone = Atoms("O")
    out = model(graph_of(far))
    close(out["energies"][[0]], model(graph_of(alone))["energy"])
    assert torch.equal(out["forces"], torch.zeros_like(out["forces"]))


def test_precision_survives_a_detour_through_single():
    model = potential((8, 28))
    graph, before = graph_of(oxide()), None
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = model(graph)
    detour = model.float().double()
    detour.load_state_dict(state)
    close(detour(graph)["forces"], before["forces"])


def test_float32_weights_take_float64_positions_far_from_the_origin():
    model, atoms = potential(dtype=torch.float32), ethanol()
    here = model(graph_of(atoms))
    atoms.translate([1e6, 0, 0])
    close(model(graph_of(atoms))["forces"], here["forces"], torch.float32)
    assert here["energy"].dtype == torch.float64


def test_reference_energies_are_added_unrounded():
    model = potential()
    table = torch.tensor([[-13.600000000123, -1030.123456789012, -2042.987654321098]])
    referenced = Potential(model.model, table.double()).float().eval()
    graph = graph_of(ethanol())
    model.float()
    difference = referenced(graph)["energy"] - model(graph)["energy"]
    expected = (table.double()[0] * torch.tensor([6, 2, 1])).sum()
    assert float(difference) == pytest.approx(float(expected), abs=1e-9)


def test_training_mode_differentiates_forces_by_weights():
    model = potential().train()
    graph = graph_of(ethanol())

    def loss():
        out = model(graph)
        return out["forces"].square().sum() + out["energy"].sum()

    loss().backward()
    weights = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in weights)
    generator = torch.Generator().manual_seed(5)
    along = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in weights]
    expected = sum((p.grad * a).sum() for p, a in zip(weights, along, strict=True)).item()
    step, values = 1e-6, []
    for sign in (1, -2):  # forward, then to the other side
        for p, a in zip(weights, along, strict=True):
            p.data.add_(a, alpha=sign * step)
        values.append(loss().item())
    numerical = (values[0] - values[1]) / (2 * step)
    assert abs(numerical) > 1e-2
    assert expected == pytest.approx(numerical, rel=1e-5)


def test_uncertainty_is_the_spread_of_the_readouts():
    model = potential(ensemble=5)
    graph = collate([graph_of(ethanol()), graph_of(turned(ethanol(), 1.02 * np.eye(3)))])
    out = model(graph, Wanted(uncertainty=True))
    members = out["member_energy"]
    close(members.mean(1), out["energy"])
    close(out["energy_uncertainty"], members.std(1))
    # the force spread by differences of the members' energies along one coordinate
    step, shifted = 1e-4, []
    for sign in (1, -1):
        positions = graph.positions.clone()
        positions[3, 0] += sign * step
        shifted.append(model(replace(graph, positions=positions))["member_energy"])
    along_x = -(shifted[0] - shifted[1]).sum(0) / (2 * step)
    assert along_x.mean().item() == pytest.approx(out["forces"][3, 0].item(), rel=1e-5)
    assert 0 < along_x.std().item() <= out["forces_uncertainty"][3].item() + 1e-9
    assert out["forces_uncertainty"].shape == (graph.n_atoms,)


def test_the_same_numbers_in_every_run():
    model, graph = potential(dtype=torch.float32), graph_of(ethanol())
    assert torch.equal(model(graph)["forces"], model(graph)["forces"])


def test_order_of_edges_does_not_matter():
    model, graph = potential(), graph_of(ethanol())
    order = torch.randperm(graph.n_edges, generator=torch.Generator().manual_seed(0))
    mixed = replace(graph, edge_index=graph.edge_index[:, order], shifts=graph.shifts[order])
    close(model(mixed)["forces"], model(graph)["forces"])


def test_zbl_repels_at_short_distances_only():
    from ase import Atoms

    plain, repelling = potential((1, 8)), potential((1, 8), zbl=True)

    def added(distance):
        graph = graph_of(Atoms("OH", [[0, 0, 0], [0, 0, distance]]))
        return float(repelling(graph)["energy"] - plain(graph)["energy"])

    assert added(1.0) == pytest.approx(0.0, abs=1e-12)  # beyond the covalent radii, 0.97
    # bare repulsion 14.3996 * 8 / 0.05 = 2304 eV, screened and cut off
    assert 500 < added(0.05) < 2304


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: potential()(graph_of(oxide())), r"atomic numbers \[1, 6, 8\], got \[28\]"),
        (
            lambda: potential()(graph_of(ethanol(), fidelity=1)),
            "fidelity: expected indices below 1",
        ),
        (lambda: potential()(graph_of(ethanol()), ALL), "stress: expected three lattice vectors"),
        (
            lambda: potential(ensemble=1)(graph_of(ethanol()), Wanted(uncertainty=True)),
            "uncertainty: expected a model with several readouts",
        ),
        (
            lambda: potential()(graph_of(ethanol()), Wanted(magnetic_forces=True)),
            "magnetic_forces: expected moments as an input",
        ),
        (lambda: Potential(potential().model, [[0.0]]), "reference_energies: expected shape"),
    ],
)
def test_unusable_input_is_refused(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_the_model_satisfies_the_protocol():
    assert isinstance(SphereModel(ModelSettings(elements=(1,))), SpinAwareModel)
