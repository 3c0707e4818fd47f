"""Magnets approach their density with the base of a learned functional."""

import numpy as np
import pytest
from ase import Atoms
from gpaw_runs import HOST, functional, needs_gpaw, solve

from ase_neuralxc.backend.clamps import DensityClamps
from ase_neuralxc.backend.gpaw import scf
from ase_neuralxc.backend.gpaw.xc import Stages, load_gpaw, make_xc

pytestmark = needs_gpaw
CHEAP = {"ecut": 250.0}


def hydrogen():
    atom = Atoms("H", positions=[[2.0, 2.0, 2.0]], cell=[4.0, 4.0, 4.0], pbc=True)
    return solve(atom, "nxc-s9", state={"n_unpaired": 1}, **CHEAP)


def test_learned_functionals_have_a_base_that_stands_in_and_others_have_none():
    learned = make_xc(functional("nxc-s9"), DensityClamps(), "cpu").evaluate
    assert isinstance(learned, Stages)
    density, sigma, tau = np.full((1, 4), 0.3), np.full((1, 4), 0.05), np.full((1, 4), 0.4)
    full, _ = learned((density, sigma, tau), False)
    learned.far = True
    base, _ = learned((density, sigma, tau), False)
    r2scan = make_xc(functional("r2scan"), DensityClamps(), "cpu").evaluate
    assert not isinstance(r2scan, Stages)
    np.testing.assert_allclose(base, r2scan((density, sigma, tau), False)[0], rtol=1e-12)
    assert np.abs(full / base - 1).max() > 1e-4


def test_the_end_is_that_of_the_functional_itself(monkeypatch):
    calls = []
    original = Stages.__call__

    def counted(self, arrays, polarised):
        calls.append(self.far)
        return original(self, arrays, polarised)

    monkeypatch.setattr(Stages, "__call__", counted)
    staged = hydrogen()
    assert any(calls)
    assert not calls[-1]
    # after the start as GPAW makes it, one change from the base to the functional
    approach = calls[calls.index(True) :]
    assert approach == sorted(approach, reverse=True)
    monkeypatch.setattr(scf, "NEAR", np.inf)
    straight = hydrogen()
    assert staged.energy == pytest.approx(straight.energy, abs=2e-6)
    assert HOST.properties(staged)["magmom"] == pytest.approx(1, abs=1e-9)


def test_a_base_that_does_not_get_near_leaves_the_functional_to_the_next_strategy(monkeypatch):
    def stuck(dft, stages):
        raise load_gpaw().KohnShamConvergenceError

    monkeypatch.setattr(scf, "_approach", stuck)
    solution = hydrogen()
    assert [a.converged for a in solution.history] == [False, True]


def test_spin_unpolarised_calculations_do_without(monkeypatch):
    monkeypatch.setattr(scf, "_approach", lambda *arguments: pytest.fail("approached"))
    helium = Atoms("He", positions=[[2.0, 2.0, 2.0]], cell=[4.0, 4.0, 4.0], pbc=True)
    solution = solve(helium, "nxc-s9", **CHEAP)
    assert solution.reference == "rks"
