"""Slabs in GPAW: the bounds of densities, vacuum, the dipole layer."""

import pytest
from ase.build import add_adsorbate, fcc111
from gpaw_runs import FORCE, HOST, SILICON, needs_gpaw, silicon, solve

from ase_neuralxc import NeuralXC
from ase_neuralxc.backend.clamps import DensityClamps
from ase_neuralxc.errors import InvalidInputError


@needs_gpaw
@pytest.mark.slow
def test_a_meta_gga_converges_on_a_slab_and_forgets_the_vacuum():
    forces = []
    for vacuum in (4.0, 6.0):
        slab = fcc111("Al", (1, 1, 2), vacuum=vacuum)
        slab.positions[-1, 2] += 0.05
        solution = solve(slab, "r2scan", ecut=200.0, kpts=(4, 4, 1), smearing=0.2)
        forces.append(HOST.forces(solution)[-1, 2] * FORCE)
    assert abs(forces[0]) > 0.1
    assert forces[0] == pytest.approx(forces[1], abs=0.01)


@needs_gpaw
def test_a_dipole_layer_tells_the_sides_of_a_slab_apart():
    slab = fcc111("Al", (1, 1, 2), vacuum=4.0)
    settings = {"backend": "gpaw", "ecut": 150.0, "kpts": (2, 2, 1), "smearing": 0.3}
    slab.calc = NeuralXC("pbe", dipole_layer=True, **settings)
    slab.get_potential_energy()
    upper, lower = slab.calc.get_work_functions()
    assert upper == pytest.approx(lower, abs=0.02)
    assert 3 < upper < 5.5
    add_adsorbate(slab, "H", 1.1, "fcc")
    slab.center(vacuum=4.0, axis=2)
    slab.get_potential_energy()
    upper, lower = slab.calc.get_work_functions()
    assert abs(upper - lower) > 0.1
    slab.calc = NeuralXC("pbe", **settings)
    slab.get_potential_energy()
    with pytest.raises(InvalidInputError, match="dipole_layer: expected a slab"):
        slab.calc.get_work_functions()


@needs_gpaw
@pytest.mark.slow
def test_clamped_libxc_is_the_peer_of_torch():
    clamps = DensityClamps(1e-4)
    names = ("r2scan", "libxc:r2scan")
    energies = [solve(silicon(), name, clamps=clamps, **SILICON).energy for name in names]
    assert energies[0] == pytest.approx(energies[1], abs=1e-9)
