"""Small calculations in GPAW that tests share."""

from functools import cache

import pytest
from ase.build import bulk
from systems import as_system

from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw_pw import GPAWBackend
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units

HOST = GPAWBackend()
SILICON = {
    "ecut": 200.0,
    "kpts": (2, 2, 2),
    "conv_tol_density": 1e-7,
    "conv_tol_eigenstates": 1e-11,
}
FORCE = units.HARTREE_BOHR_EV_ANGSTROM
needs_gpaw = pytest.mark.skipif(
    "not __import__('importlib').util.find_spec('gpaw')", reason="GPAW is not installed"
)


@cache
def functional(name):
    if name.startswith("libxc:"):
        return LibxcFunctional(name.removeprefix("libxc:"))
    return load_functional(name)


def crystal(atoms, **state):
    moments = atoms.get_initial_magnetic_moments()
    return as_system(atoms, magmoms=tuple(moments) if moments.any() else None, **state)


def silicon(shift=(0.05, 0.02, 0.0)):
    atoms = bulk("Si")
    atoms.positions[1] += shift
    return atoms


def solve(atoms, name="pbe", guess=None, terms=(), state=None, **settings):
    system = crystal(atoms, **(state or {}))
    return HOST.solve(system, functional(name), GPAWSettings(**settings), terms, guess)
