"""What every `KSBackend` must keep, whatever host is behind it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from importlib.util import find_spec

import numpy as np
import pytest
from ase import Atoms
from numerical import central_difference
from systems import water

from ase_neuralxc.backend.hosts import host_names, load_host
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import SCFNotConverged
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import FidelityTag, SpinState, units

CRYSTAL = Atoms("LiH", [(0, 0, 0), (0.1, 0.05, 1.7)], cell=np.diag([3.4, 3.5, 3.6]), pbc=True)
CASES = {
    "pyscf": (water(), {"basis": "6-31g", "conv_tol": 1e-10, "conv_tol_grad": 1e-6}),
    "pyscf-pbc": (
        CRYSTAL,
        {"basis": "gth-szv-molopt-sr", "ecut": 2500.0, "conv_tol": 1e-10, "mesh": (27, 27, 27)},
    ),
    "gpaw": (CRYSTAL, {"ecut": 250.0, "conv_tol": 1e-7, "conv_tol_density": 1e-6}),
}
#: Hartree/Bohr; plane waves have the noise of their own convergence.
FORCE_TOLERANCE = {"pyscf": 1e-6, "pyscf-pbc": 1e-5, "gpaw": 2e-5}


def as_system(atoms):
    cell = np.array(atoms.cell)
    return System(
        atoms.numbers.copy(),
        atoms.positions.copy(),
        SpinState(),
        cell if cell.any() else None,
        tuple(atoms.pbc.tolist()),
    )


@pytest.fixture(scope="module", params=host_names())
def case(request):
    """A backend, its system, functional, settings and solution."""
    if request.param == "gpaw" and find_spec("gpaw") is None:
        pytest.skip("GPAW is not installed")
    backend = load_host(request.param)
    atoms, keywords = CASES[request.param]
    system, functional = as_system(atoms), load_functional("pbe")
    settings = backend.Settings(**keywords)
    return backend, system, functional, settings, backend.solve(system, functional, settings)


def test_settings_are_frozen_and_describe_their_fidelity(case):
    backend, _, functional, settings, _ = case
    assert backend.name in host_names()
    assert is_dataclass(settings)
    tag = FidelityTag(functional="pbe", **settings.fidelity(functional))
    assert tag.host == backend.name
    other = replace(settings, **{"basis": "other"} if hasattr(settings, "basis") else {"ecut": 999})
    assert FidelityTag(functional="pbe", **other.fidelity(functional)).digest != tag.digest
    assert settings.guess_key == replace(settings).guess_key
    with pytest.raises(AttributeError):
        setattr(settings, fields(settings)[0].name, None)


def test_energies_add_up_and_the_history_ends_converged(case):
    _, _, _, _, solution = case
    items = dict(solution.energies)
    total, free = items.pop("total"), items.pop("free", None)
    assert sum(items.values()) == pytest.approx(total, abs=1e-7)
    assert solution.energy == total
    assert solution.free_energy == (total if free is None else free)
    assert solution.history[-1].converged
    assert solution.cycles > 1
    assert solution.system.spin_state.charge == 0


def test_forces_are_derivatives_of_the_free_energy(case):
    backend, system, functional, settings, solution = case
    forces = backend.forces(solution)
    assert forces.shape == system.positions.shape
    assert np.abs(forces).max() > 1e-3

    def energy(shift):
        positions = system.positions.copy()
        positions[1, 2] += shift * units.BOHR_ANGSTROM
        moved = replace(system, positions=positions)
        # from scratch: a host may hand its state on, and the solution would lose it
        return backend.solve(moved, functional, settings).free_energy

    expected = -central_difference(energy, 2e-2)
    assert forces[1, 2] == pytest.approx(expected, abs=FORCE_TOLERANCE[backend.name])


def test_stress_is_symmetric_or_refused(case):
    backend, system, _, _, solution = case
    if not system.periodic:
        assert not hasattr(backend, "stress")
        return
    stress = backend.stress(solution)
    assert stress.shape == (3, 3)
    assert np.abs(stress).max() > 1e-4
    np.testing.assert_allclose(stress, stress.T, atol=1e-12)


def test_properties_and_levels(case):
    backend, system, _, _, solution = case
    found = backend.properties(solution)
    assert set(found) <= {"dipole", "charges", "magmom", "magmoms"}
    assert found["magmom"] == pytest.approx(0.0, abs=1e-8)
    assert found["magmoms"].shape == (len(system.numbers),)
    spectrum = backend.spectrum(solution)
    spins, points, _ = spectrum["eigenvalues"].shape
    assert spins == 1
    assert spectrum["kpoints"].shape == (points, 3)
    assert spectrum["weights"].sum() == pytest.approx(1.0)
    assert spectrum["band_gap"] > 0.01


def test_a_guess_saves_cycles_and_changes_nothing(case):
    backend, system, functional, settings, _ = case
    solution = backend.solve(system, functional, settings)
    before = system.positions.copy()
    again = backend.solve(system, functional, settings, guess=solution.restart)
    assert again.cycles < solution.cycles
    assert again.energy == pytest.approx(solution.energy, abs=1e-6)
    np.testing.assert_array_equal(system.positions, before)


def test_unconverged_raises_with_its_history(case):
    backend, system, functional, settings, _ = case
    with pytest.raises(SCFNotConverged) as caught:
        # two cycles for each strategy, and a tolerance that none of them reaches
        backend.solve(system, functional, replace(settings, max_cycle=2, conv_tol=1e-13))
    assert caught.value.history
    assert not any(attempt.converged for attempt in caught.value.history)
