"""Moments as an input and output: spin rotations, time reversal, smoothness, derivatives."""

import pytest
import torch
from mlip_equivariance import random_rotation
from mlip_structures import graph_of, oxide, potential

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import collate
from mlip.model.potential import Wanted
from mlip.model.settings import ModelSettings

NICKEL_OXIDE = (8, 28)
WANTED = Wanted(forces=True, stress=True, magnetic_forces=True)
#: Rounding, relative to the largest number.
EXACT = 1e-11


def close(actual, expected):
    scale = float(expected.abs().max())
    assert scale > 1e-3
    torch.testing.assert_close(actual, expected, rtol=0, atol=EXACT * scale)


def vectors(scale=1.5, seed=4):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(len(oxide()), 3, generator=generator, dtype=torch.float64)


def turned_graph(rotation, magmoms):
    atoms = oxide()
    atoms.set_cell(atoms.cell[:] @ rotation.T.numpy())
    atoms.positions = oxide().positions @ rotation.T.numpy()
    return graph_of(atoms, magmoms=magmoms)


def spin_potential(**settings):
    return potential(NICKEL_OXIDE, **({"moments": "vector"} | settings))


def energy(model, magmoms):
    return float(model(graph_of(oxide(), magmoms=magmoms), Wanted(forces=False))["energy"])


def test_moments_change_energy_and_forces():
    model = spin_potential()
    some = model(graph_of(oxide(), magmoms=vectors()))
    none = model(graph_of(oxide(), magmoms=0 * vectors()))
    assert abs(float(some["energy"] - none["energy"])) > 1e-2
    assert (some["forces"] - none["forces"]).abs().max() > 1e-2


@pytest.mark.parametrize("soc", [False, True])
def test_time_reversal_is_exact(soc):
    model = spin_potential(soc=soc, predict_moments=True)
    plus = model(graph_of(oxide(), magmoms=vectors()), WANTED)
    minus = model(graph_of(oxide(), magmoms=-vectors()), WANTED)
    for even in ("energy", "forces", "stress"):
        assert torch.equal(plus[even], minus[even])
    for odd in ("magnetic_forces", "magmoms"):
        assert plus[odd].abs().max() > 1e-3
        assert torch.equal(plus[odd], -minus[odd])


@pytest.mark.parametrize("improper", [False, True])
def test_without_coupling_space_and_spin_turn_alone(improper):
    model = spin_potential(predict_moments=True)
    space = random_rotation(torch.float64, improper, seed=1)
    spin = random_rotation(torch.float64, improper, seed=2)
    here = model(graph_of(oxide(), magmoms=vectors()), WANTED)
    there = model(turned_graph(space, vectors() @ spin.T), WANTED)
    close(there["energy"], here["energy"])
    close(there["forces"], here["forces"] @ space.T)
    for name in ("magnetic_forces", "magmoms"):
        close(there[name], here[name] @ spin.T)


@pytest.mark.parametrize("improper", [False, True])
def test_with_coupling_moments_turn_as_axial_vectors(improper):
    model = spin_potential(soc=True)
    space = random_rotation(torch.float64, improper, seed=1)
    axial = space * torch.linalg.det(space)
    here = model(graph_of(oxide(), magmoms=vectors()), WANTED)
    there = model(turned_graph(space, vectors() @ axial.T), WANTED)
    close(there["energy"], here["energy"])
    close(there["forces"], here["forces"] @ space.T)
    turned = here["magnetic_forces"] @ axial.T
    close(there["magnetic_forces"], turned)
    # and spin alone does cost energy
    alone = random_rotation(torch.float64, improper=False, seed=2)
    assert abs(energy(model, vectors() @ alone.T) - energy(model, vectors())) > 1e-3


def test_a_mirror_may_act_on_moments_as_on_arrows():
    """Axial vectors and arrows differ by a sign in a mirror, and time reversal frees the sign."""
    model = spin_potential(soc=True)
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    arrows = model(turned_graph(mirror, vectors() @ mirror.T), Wanted(forces=False))["energy"]
    assert float(arrows) == pytest.approx(energy(model, vectors()), rel=EXACT)


def test_collinear_moments_are_vectors_along_any_axis():
    signed = vectors()[:, 0]
    collinear = potential(NICKEL_OXIDE, moments="collinear")
    vector = spin_potential()
    vector.load_state_dict(collinear.state_dict())
    axis = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -1.0]).double(), dim=0)
    expected = energy(collinear, signed)
    assert energy(vector, signed[:, None] * axis) == pytest.approx(expected, rel=EXACT)
    assert energy(vector, signed) == pytest.approx(expected, rel=EXACT)
    assert energy(collinear, signed.abs()) != pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("soc", [False, True])
@pytest.mark.parametrize("scale", [1.5, 0.0])
def test_magnetic_forces_are_derivatives_also_where_moments_vanish(soc, scale):
    model, moments, step = spin_potential(soc=soc), vectors(), 1e-5
    moments[0] *= scale
    forces = model(graph_of(oxide(), magmoms=moments), WANTED)["magnetic_forces"]
    shift = torch.zeros_like(moments)
    shift[0, 1] = step
    numerical = -(energy(model, moments + shift) - energy(model, moments - shift)) / (2 * step)
    assert abs(numerical) > 1e-4
    assert float(forces[0, 1]) == pytest.approx(numerical, rel=1e-5, abs=1e-7)


def test_torques_are_derivatives_by_rotations_of_moments():
    model, step = spin_potential(), 1e-5
    out = model(graph_of(oxide(), magmoms=vectors()), WANTED)
    # without coupling, turning all moments together is free
    assert out["torques"].abs().max() > 1e-2
    assert out["torques"].sum(0).abs().max() < 1e-11 * out["torques"].abs().max()
    energies = []
    for sign in (1, -1):
        turned = vectors()
        turned[0] += sign * step * torch.linalg.cross(torch.eye(3).double()[2], turned[0])
        energies.append(energy(model, turned))
    numerical = -(energies[0] - energies[1]) / (2 * step)
    assert float(out["torques"][0, 2]) == pytest.approx(numerical, rel=1e-5, abs=1e-8)


def test_magnetic_forces_of_signed_moments_have_their_shape():
    model = potential(NICKEL_OXIDE, moments="collinear", predict_moments=True)
    out = model(graph_of(oxide(), magmoms=vectors()[:, 0]), WANTED)
    assert out["magnetic_forces"].shape == out["magmoms"].shape == (len(oxide()),)


def test_moments_without_moments_as_an_input_are_numbers_per_atom():
    out = potential(NICKEL_OXIDE, predict_moments=True)(graph_of(oxide()))
    assert out["magmoms"].shape == (len(oxide()),)
    assert out["magmoms"].abs().max() > 1e-3


@pytest.mark.parametrize(
    ("settings", "magmoms", "message"),
    [
        ({"moments": "vector"}, None, "needs vector moments as an input, got none"),
        ({"moments": "collinear"}, vectors(), "expected shape .* for collinear moments"),
        ({"moments": "vector"}, vectors() * float("nan"), r"NaN or inf for atoms \[0, 1, 2, 3\]"),
    ],
)
def test_unusable_moments_are_refused(settings, magmoms, message):
    model = potential(NICKEL_OXIDE, **settings)
    with pytest.raises(InvalidInputError, match=message):
        model(graph_of(oxide(), magmoms=magmoms))


def test_a_batch_with_a_structure_without_moments_is_refused_by_name_of_its_atoms():
    graph = collate([graph_of(oxide(), magmoms=vectors()), graph_of(oxide())])
    with pytest.raises(InvalidInputError, match=r"for atoms \[4, 5, 6, 7\]"):
        spin_potential()(graph)


def test_coupling_needs_vectors():
    with pytest.raises(InvalidInputError, match="needs moments='vector', got 'collinear'"):
        ModelSettings(elements=(8, 28), moments="collinear", soc=True)
