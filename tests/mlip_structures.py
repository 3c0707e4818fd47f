"""Small structures as graphs, and models with random weights."""

import numpy as np
import torch
from ase.build import bulk, molecule

from mlip.data.graph import AtomGraph, collate
from mlip.data.neighbours import neighbours
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel

#: A small model of the default architecture; ample neighbours within the cutoff of the structures.
SMALL = {"r_max": 4.0, "channels": 4, "hidden": 8, "n_radial": 4, "average_neighbours": 10.0}


def graph_of(atoms, *, r_max=4.0, dtype=torch.float64, magmoms=None, fidelity=0, **state):
    """One structure as a graph; charge, n_unpaired and spin_polarised are unknown unless given."""
    found = neighbours(atoms.positions, atoms.cell[:], atoms.pbc, r_max)
    real = {"dtype": dtype}
    return AtomGraph(
        numbers=torch.from_numpy(atoms.numbers).long(),
        positions=torch.tensor(atoms.positions, **real),
        cell=torch.tensor(np.asarray(atoms.cell), **real)[None],
        edge_index=torch.from_numpy(found.edge_index),
        shifts=torch.tensor(found.shifts, **real),
        batch=torch.zeros(len(atoms), dtype=torch.long),
        n_graphs=1,
        charge=torch.tensor([state.get("charge", np.nan)], **real),
        n_unpaired=torch.tensor([state.get("n_unpaired", np.nan)], **real),
        spin_polarised=torch.tensor([state.get("spin_polarised", -1)]),
        fidelity=torch.tensor([fidelity]),
        magmoms=None if magmoms is None else torch.as_tensor(magmoms).to(dtype),
    )


def ethanol():
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=1)
    return atoms


def oxide(repeat=1):
    """A distorted rock-salt cell of nickel and oxygen, smaller than the cutoff."""
    atoms = bulk("NiO", "rocksalt", a=4.2) * (2, 1, 1)
    atoms.set_cell(atoms.cell[:] @ (np.eye(3) + 0.03), scale_atoms=True)
    atoms.rattle(0.08, seed=2)
    return atoms * (repeat, 1, 1)


def potential(elements=(1, 6, 8), *, dtype=torch.float64, seed=0, **settings):
    """A potential with random weights, conditioning included."""
    torch.manual_seed(seed)
    made = Potential(SphereModel(ModelSettings(elements=elements, **(SMALL | settings))))
    for name, parameter in made.named_parameters():
        if "film" in name:  # starts at zero
            parameter.data.normal_(0.0, 0.3)
    return made.to(dtype).eval()


__all__ = ["SMALL", "collate", "ethanol", "graph_of", "oxide", "potential"]
