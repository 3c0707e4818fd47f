from dataclasses import replace

import pytest
import torch
from mlip_structures import graph_of, oxide, potential

from ase_neuralxc.errors import InvalidInputError
from mlip.model.potential import Wanted
from mlip.model.relax_moments import MomentRelaxation, relax_moments

START = torch.tensor([1.0, 0.3, -1.2, 0.4]).double()


def spin_potential(kind):
    return potential((8, 28), moments=kind)


@pytest.mark.parametrize("kind", ["collinear", "vector"])
def test_relaxed_moments_are_a_minimum(kind):
    model = spin_potential(kind)
    start = START if kind == "collinear" else START[:, None] * torch.tensor([1.0, 0.5, -0.2])
    graph = graph_of(oxide(), magmoms=start)
    relaxed = relax_moments(model, graph, MomentRelaxation(tolerance=1e-5, largest=4.0))
    assert relaxed.converged
    wanted = Wanted(forces=False, magnetic_forces=True)
    before, after = model(graph, wanted), model(relaxed.graph, wanted)
    assert float(before["magnetic_forces"].abs().max()) > 1e-2
    lowest = float(after["energy"])
    assert lowest < float(before["energy"]) - 1e-3
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        shift = 0.01 * torch.randn(start.shape, generator=generator, dtype=torch.float64)
        moved = (relaxed.graph.magmoms + shift).clamp(-4.0, 4.0)
        assert float(model(replace(graph, magmoms=moved), wanted)["energy"]) > lowest - 1e-9


def test_too_few_steps_are_reported():
    graph = graph_of(oxide(), magmoms=START)
    relaxed = relax_moments(spin_potential("collinear"), graph, MomentRelaxation(steps=1))
    assert not relaxed.converged
    assert relaxed.residual > 1e-3


def test_a_start_is_needed():
    with pytest.raises(InvalidInputError, match="expected moments to start from, got none"):
        relax_moments(spin_potential("collinear"), graph_of(oxide()))
