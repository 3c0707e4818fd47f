"""Strategies, instabilities and the refusal of unconverged results."""

from __future__ import annotations

import pickle

import pytest
from systems import as_system, stretched_hydrogen, water

from ase_neuralxc.backend.ladder import DEFAULT_LADDER, DIIS
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import SCFNotConverged
from ase_neuralxc.functional import load_functional

SETTINGS = KSSettings(basis="6-31g", conv_tol=1e-9)


@pytest.fixture(scope="module")
def reference_energy():
    return MolecularBackend().solve(as_system(water()), load_functional("pbe"), SETTINGS).energy


@pytest.mark.parametrize("strategy", DEFAULT_LADDER, ids=lambda s: s.name)
def test_every_strategy_alone_finds_the_ground_state(strategy, reference_energy):
    backend = MolecularBackend(ladder=(strategy,))
    solution = backend.solve(as_system(water()), load_functional("pbe"), SETTINGS)
    assert solution.history[-1].strategy == strategy.name
    assert solution.energy == pytest.approx(reference_energy, abs=1e-7)


def test_unconverged_raises_with_history_that_survives_pickling():
    backend = MolecularBackend(ladder=(DIIS("diis"), DIIS("damped", damp=0.5)))
    settings = KSSettings(basis="6-31g", max_cycle=2)
    with pytest.raises(SCFNotConverged, match="did not converge with any strategy") as caught:
        backend.solve(as_system(water()), load_functional("pbe"), settings)
    history = pickle.loads(pickle.dumps(caught.value)).history
    assert [a.strategy for a in history] == ["diis", "damped"]
    assert not any(a.converged for a in history)


def test_instability_is_followed_to_the_broken_symmetry_solution():
    atoms = stretched_hydrogen(2.5)
    functional = load_functional("pbe")
    backend = MolecularBackend()
    broken = backend.solve(as_system(atoms, magmoms=(1.0, -1.0)), functional, SETTINGS)
    closed = KSSettings(basis="6-31g", reference="uks", stability="never")
    restricted = backend.solve(as_system(atoms), functional, closed)
    assert broken.energy < restricted.energy - 0.01
    followed = backend.solve(
        as_system(atoms), functional, KSSettings(basis="6-31g", reference="uks", stability="always")
    )
    assert followed.history[-1].strategy == "stability"
    assert followed.energy == pytest.approx(broken.energy, abs=1e-6)
