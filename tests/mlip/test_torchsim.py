"""The adapter gives torch-sim what the calculator gives ASE."""

import numpy as np
import pytest
import torch
from ase.build import bulk
from small_potential import MODEL

from ase_neuralxc.errors import InvalidInputError
from mlip.calculator import MLIP
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import ModelCard, save_potential

torch_sim = pytest.importorskip("torch_sim", exc_type=ImportError)


@pytest.fixture
def file(tmp_path):
    return made(tmp_path / "model.pt")


def made(path, **settings):
    torch.manual_seed(0)
    model = SphereModel(ModelSettings(elements=(14, 26), **MODEL, **settings)).double()
    save_potential(path, Potential(model, torch.tensor([[-3.0, -4.0]])), ModelCard())
    return path


def images():
    found = [bulk("Si", a=5.43, cubic=True), bulk("Fe", "bcc", a=2.87) * (2, 1, 1)]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.1, seed=seed)
    return found


def test_results_equal_those_of_the_calculator(file):
    from mlip.torchsim import TorchSimModel

    model = TorchSimModel(file)
    state = torch_sim.io.atoms_to_state(images(), torch.device("cpu"), torch.float64)
    for _ in range(2):  # the second time with the lists of the first
        out = model(state)
        first = 0
        for k, atoms in enumerate(images()):
            atoms.calc = MLIP(file)
            assert float(out["energy"][k]) == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
            forces = out["forces"][first : first + len(atoms)].numpy()
            assert np.abs(forces).max() > 0.01
            np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-9)
            stress = atoms.get_stress(voigt=False)
            np.testing.assert_allclose(out["stress"][k].numpy(), stress, atol=1e-9)
            first += len(atoms)


def test_torch_sim_accepts_the_model(file):
    from torch_sim.models.interface import validate_model_outputs

    from mlip.torchsim import TorchSimModel

    validate_model_outputs(TorchSimModel(file), torch.device("cpu"), torch.float64)


def test_moments_have_no_place_in_a_state(tmp_path):
    from mlip.torchsim import TorchSimModel

    with pytest.raises(InvalidInputError, match="without moments as an input"):
        TorchSimModel(made(tmp_path / "spin.pt", moments="vector"))


def test_unknown_elements_are_refused(file):
    from mlip.torchsim import TorchSimModel

    state = torch_sim.io.atoms_to_state([bulk("Cu")], torch.device("cpu"), torch.float64)
    with pytest.raises(InvalidInputError, match=r"got \['Cu'\]"):
        TorchSimModel(file)(state)
