"""One-centre energies against GPAW's own, and against finite differences."""

import numpy as np
import pytest
from paw_atoms import EveryEntry, atom, of_atom, one_centre

from ase_neuralxc.backend.gpaw.radial import RadialRule

pytest.importorskip("gpaw")


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
    ours, derivative = one_centre(setup, name, EveryEntry)(D_sp)
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


def distorted(setup):
    """The density matrix of GPAW's atom, and one with a fifth of it in turned orbitals."""
    from gpaw.utilities import pack_density

    matrix = of_atom(setup)
    turn = np.random.default_rng(0).normal(size=matrix.shape)
    turn = np.linalg.qr(np.eye(len(turn)) + 0.15 * turn)[0]
    mixed = 0.8 * matrix + 0.2 * turn.T @ matrix @ turn
    return pack_density(matrix)[None], pack_density(mixed)[None]


class Fine(RadialRule):
    """The rule with so many points that its integrals are those of the interpolated tables."""

    def __init__(self, grid, entries):
        super().__init__(grid, entries, entries)


# The second density differs from the first by far more than those of two structures do. GPAW's sum
# itself is off by a constant of the core, largest where that is steep.
@pytest.mark.parametrize("name", ["pbe", "r2scan", "nxc-s9"])
@pytest.mark.parametrize(
    ("element", "constant"), [("H", 1e-6), ("O", 1e-6), ("Si", 1e-6), ("Fe", 1e-5), ("Pd", 3e-5)]
)
def test_few_radial_points_give_the_energies_of_all(element, constant, name):
    setup, _ = atom(element, "pbe")
    one, other = distorted(setup)
    few, fine, every = (one_centre(setup, name, r) for r in (RadialRule, Fine, EveryEntry))
    (e_few, v_few), (e_every, v_every) = few(one), every(one)
    assert e_few == pytest.approx(fine(one)[0], abs=constant)
    gap = every(other)[0] - e_every
    assert abs(gap) > 5e-5
    assert few(other)[0] - e_few == pytest.approx(gap, rel=1e-4, abs=1e-7)
    np.testing.assert_allclose(v_few, v_every, atol=5e-6)
