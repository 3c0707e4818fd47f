"""Workflows that take the potential's batches go the way they go one by one."""

import warnings

import numpy as np
import torch
from small_potential import MODEL, clusters

from ase_neuralxc.workflows import UnconvergedWarning, relax, relax_together
from mlip.calculator import MLIP, CloseContactWarning
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import ModelCard, save_potential


def test_relaxations_in_batches_equal_single_ones(tmp_path):
    torch.manual_seed(0)
    model = SphereModel(ModelSettings(elements=(29, 79), **MODEL)).double()
    file = tmp_path / "model.pt"
    save_potential(file, Potential(model, torch.tensor([[-3.0, -4.0]])), ModelCard())
    potential = MLIP(file)
    starts = clusters(4)
    with warnings.catch_warnings():
        # an untrained model is no landscape to end in: the way there is what is compared
        warnings.simplefilter("ignore", UnconvergedWarning)
        warnings.simplefilter("ignore", CloseContactWarning)
        together = relax_together(starts, potential.evaluate, fmax=1e-3, steps=6)
        for start, result in zip(starts, together, strict=True):
            alone = relax(start.copy(), MLIP(file), fmax=1e-3, steps=6)
            assert result.n_steps == alone.n_steps > 0
            np.testing.assert_allclose(result.energies, alone.energies, atol=1e-8)
            np.testing.assert_allclose(result.atoms.positions, alone.atoms.positions, atol=1e-6)
