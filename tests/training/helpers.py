"""Small species, and a folder of their densities."""

from __future__ import annotations

import numpy as np
import torch

from ase_neuralxc.campaign import Campaign
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species
from ase_neuralxc.training.stored import DensityCodec

SETTINGS = PrepareSettings(xc="libxc:r2scan", basis="6-31g", grid_level=2)


def atom(symbol, multiplicity, **state):
    return Species(symbol, (symbol,), ((0.0, 0.0, 0.0),), multiplicity=multiplicity, **state)


def pair(a, b, distance, multiplicity=1, **state):
    positions = ((0.0, 0.0, 0.0), (0.0, 0.0, distance))
    return Species(a + b, (a, b), positions, multiplicity=multiplicity, **state)


H, F, O = atom("H", 2), atom("F", 2), atom("O", 3)  # noqa: E741
H2, HF, OH = pair("H", "H", 0.74), pair("H", "F", 0.92), pair("O", "H", 0.97, 2)
#: Unlike OH it has no degenerate ground state, so that its SCF converges tightly.
NH2 = Species(
    "NH2", ("N", "H", "H"), ((0.0, 0.0, 0.0), (0.0, 0.80, 0.63), (0.0, -0.82, 0.62)), 0, 2
)


def reaction_set():
    """Three atomisations and an exchange."""
    species = {s.name: s for s in (H, F, O, H2, HF, OH)}
    reactions = (
        Reaction("H2", ("H", "HH"), (2.0, -1.0), 109.5),
        Reaction("HF", ("H", "F", "HF"), (1.0, 1.0, -1.0), 141.6),
        Reaction("OH", ("H", "O", "OH"), (1.0, 1.0, -1.0), 107.2),
        Reaction("exchange", ("HH", "F", "HF", "H"), (-1.0, -1.0, 1.0, 1.0), -32.1),
    )
    return ReactionSet("tiny", species, reactions)


def prepare(folder, species=None, settings=SETTINGS):
    campaign = Campaign(folder, settings.identity, DensityCodec())
    tasks = reaction_set().species.values() if species is None else species
    return campaign.run(tasks, DensityTask(settings), progress=False)


#: Two architectures, small, trained by Gauss-Newton steps.
NEURAL = {
    "architecture": "neural-semilocal",
    "settings": {"base": "r2scan", "width": 8, "depth": 1, "head_scale": 0.0},
    "optimizer": "gauss-newton",
}
MOMENTS = {
    "architecture": "moments",
    "compress": False,
    "settings": {"channels": 2, "width": 6, "exchange_width": 6, "depth": 1, "lmax": 1},
    "optimizer": "gauss-newton",
}


def slopes(functional, jacobian, values, step):
    """Changes of values along a random direction of all weights: from derivatives, numerical."""
    generator = torch.Generator().manual_seed(0)
    direction = [
        torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in functional.parameters()
    ]
    shifted = []
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, change in zip(functional.parameters(), direction, strict=True):
                parameter += sign * step * change
            shifted.append(np.asarray(values()))
    flat = torch.cat([d.reshape(-1) for d in direction]).numpy()
    return np.asarray(jacobian) @ flat, (shifted[0] - shifted[1]) / (2 * step)
