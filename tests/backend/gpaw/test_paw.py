"""One-centre energies against GPAW's own, and against finite differences."""

import warnings

import numpy as np
import pytest

from ase_neuralxc.backend.clamps import ClampedEvaluator, DensityClamps
from ase_neuralxc.backend.gpaw.paw import OneCentre
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.functional import load_functional

pytest.importorskip("gpaw")

NAMES = {"pbe": "GGA_X_PBE+GGA_C_PBE", "r2scan": "MGGA_X_R2SCAN+MGGA_C_R2SCAN"}


def atom(element, name):
    from gpaw.setup import create_setup
    from gpaw.xc import XC

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="libxc should be compiled")
        return create_setup(element, XC("PBE"), lmax=2), XC(NAMES[name])


def occupied(setup, spins, seed=0):
    """A density matrix near that of an atom, of no symmetry at all."""
    from gpaw.utilities import pack_density

    rng = np.random.default_rng(seed)
    matrices = []
    for spin in range(spins):
        noise = 0.02 * rng.normal(size=(setup.ni, setup.ni))
        diagonal = np.linspace(1.0, 0.3, setup.ni) * (1 + 0.2 * spin) / spins
        matrices.append(pack_density(np.diag(diagonal) + noise + noise.T))
    return np.array(matrices)


def one_centre(setup, name):
    from gpaw.sphere.lebedev import weight_n

    functional = load_functional(name)

    def evaluate(arrays, polarised):
        return evaluate_invariants(functional, arrays, polarised)[:2]

    expansion = OneCentre(setup.xc_correction, weight_n, name == "r2scan")
    clamped = ClampedEvaluator(evaluate, DensityClamps(1e-9))
    return lambda D_sp: expansion.energy(clamped, D_sp)


# GPAW's libxc bounds sigma by tau, we bound tau by sigma: deep in the core of iron, where a
# meta-GGA sees one orbital, that is 13 micro-eV per atom, whatever surrounds it.
@pytest.mark.filterwarnings("ignore:libxc should be compiled")
@pytest.mark.parametrize("spins", [1, 2])
@pytest.mark.parametrize(
    ("element", "name", "tolerance"),
    [("O", "pbe", 1e-9), ("O", "r2scan", 1e-7), ("Fe", "pbe", 1e-9), ("Fe", "r2scan", 1e-6)],
)
def test_energy_and_potential_are_gpaws(element, name, tolerance, spins):
    setup, native = atom(element, name)
    D_sp = occupied(setup, spins)
    theirs = np.zeros_like(D_sp)
    energy = native.calculate_paw_correction(setup, D_sp.copy(), theirs)
    assert abs(energy) > 0.05
    assert np.abs(theirs).max() > 0.1
    ours, derivative = one_centre(setup, name)(D_sp)
    assert ours == pytest.approx(energy, abs=tolerance)
    # GPAW's derivative is not quite that of its energy at the first radial points
    np.testing.assert_allclose(derivative, theirs, atol=2e-6)


@pytest.mark.parametrize("spins", [1, 2])
@pytest.mark.parametrize("name", ["pbe", "r2scan"])
def test_potential_is_the_derivative_of_the_energy(name, spins):
    setup, _ = atom("Si", name)
    D_sp = occupied(setup, spins, seed=2)
    energy = one_centre(setup, name)
    _, derivative = energy(D_sp)
    direction = np.random.default_rng(3).normal(size=D_sp.shape)
    slope = (derivative * direction).sum()
    step = 1e-4
    numerical = (energy(D_sp + step * direction)[0] - energy(D_sp - step * direction)[0]) / 2 / step
    assert abs(slope) > 0.01
    assert slope == pytest.approx(numerical, abs=2e-7)
