from itertools import pairwise

import pytest
import torch
from mlip_equivariance import random_rotation
from mlip_structures import ethanol, graph_of, potential

from mlip.data.graph import collate
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel

STATES = {
    "unknown": {},
    "neutral": {"charge": 0.0},
    "cation": {"charge": 1.0},
    "triplet": {"charge": 0.0, "n_unpaired": 2.0},
    "singlet": {"charge": 0.0, "n_unpaired": 0.0},
    "polarised": {"spin_polarised": 1},
    "unpolarised": {"spin_polarised": 0},
}


def test_every_state_has_an_energy_of_its_own():
    model = potential(system_state=True)
    energies = {k: float(model(graph_of(ethanol(), **v))["energy"]) for k, v in STATES.items()}
    values = sorted(energies.values())
    gaps = [b - a for a, b in pairwise(values)]
    assert min(gaps) > 1e-4, energies


def test_conditioning_starts_as_no_conditioning():
    torch.manual_seed(0)
    settings = {"elements": (1, 6, 8), "channels": 4, "hidden": 8}
    conditioned = Potential(SphereModel(ModelSettings(**settings, system_state=True))).double()
    plain = Potential(SphereModel(ModelSettings(**settings))).double()
    shared = {k: v for k, v in conditioned.state_dict().items() if "film" not in k}
    plain.load_state_dict(shared)
    graph = graph_of(ethanol(), charge=1.0, n_unpaired=1.0, spin_polarised=1)
    energies = [model.eval()(graph)["energy"] for model in (plain, conditioned)]
    assert torch.equal(*energies)


def test_fidelities_condition_and_have_their_own_reference_energies():
    model = potential(fidelities=("a" * 64, "b" * 64))
    first, second = (graph_of(ethanol(), fidelity=k) for k in (0, 1))
    here, there = model(first), model(second)
    assert (here["forces"] - there["forces"]).abs().max() > 1e-3
    table = torch.tensor([[-13.0, -1030.0, -2040.0], [-14.0, -1035.0, -2050.0]]).double()
    referenced = Potential(model.model, table).double().eval()
    both = referenced(collate([first, second]))["energy"]
    counts = torch.tensor([6.0, 2.0, 1.0]).double()
    expected = torch.cat([here["energy"], there["energy"]]) + table @ counts
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("improper", [False, True])
def test_conditioned_forces_turn_with_the_structure(improper):
    model = potential(system_state=True)
    rotation = random_rotation(torch.float64, improper)
    turned = ethanol()
    turned.positions = turned.positions @ rotation.T.numpy()
    here, there = (model(graph_of(a, charge=-1.0))["forces"] for a in (ethanol(), turned))
    torch.testing.assert_close(there, here @ rotation.T, rtol=0, atol=1e-11)
