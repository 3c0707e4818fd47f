"""Samples: seeded, of the right size, at the right temperature, and saying their origin."""

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.harmonic import HarmonicCalculator, HarmonicForceField
from ase.constraints import FixAtoms

from ase_neuralxc.errors import InvalidInputError
from mlip.active.adsorbates import Adsorbates
from mlip.active.dynamics import Dynamics, PathImages
from mlip.active.rounds import read_frames, write_frames
from mlip.active.sampler import NormalModes, Rattle, Strain, draw, is_reasonable


def same(first, second):
    return all(np.array_equal(a.positions, b.positions) for a, b in zip(first, second, strict=True))


def test_rattled_structures_are_seeded_hold_constraints_and_say_their_origin():
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    slab.set_constraint(FixAtoms(indices=range(4)))
    slab.info.update(charge=0, note="not a state")
    found = draw({"rattle": Rattle(3, (0.1, 0.2))}, [slab], None, seed=1)
    assert len(found) == 6
    assert same(found, draw({"rattle": Rattle(3, (0.1, 0.2))}, [slab], None, seed=1))
    assert not same(found, draw({"rattle": Rattle(3, (0.1, 0.2))}, [slab], None, seed=2))
    moved = np.array([atoms.positions - slab.positions for atoms in found])
    assert not moved[:, :4].any()
    assert moved[::2, 4:].std() == pytest.approx(0.1, rel=0.3)
    assert moved[1::2, 4:].std() == pytest.approx(0.2, rel=0.3)
    origin = found[3].info["sample"]
    assert origin == {"sampler": "rattle", "parent": 0, "amplitude": 0.2, "number": 3}
    assert found[0].info["config_type"] == "rattle"
    assert "note" not in found[0].info
    assert found[0].info["charge"] == 0


def test_strain_changes_periodic_directions_only():
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    for atoms in Strain(4, largest=0.05, amplitude=0.0).sample([slab], None, 0):
        strain = np.linalg.solve(slab.cell.array, atoms.cell.array) - np.eye(3)
        assert 0.0 < np.abs(strain).max() <= 0.05 + 1e-9
        np.testing.assert_allclose(strain[2], 0.0, atol=1e-12)
        np.testing.assert_allclose(
            atoms.get_scaled_positions(), slab.get_scaled_positions(), atol=1e-9
        )
    with pytest.raises(InvalidInputError, match="without periodic directions"):
        next(Strain().sample([molecule("H2O")], None, 0))


def test_normal_modes_have_the_energy_of_equipartition():
    atoms = molecule("H2O")
    n = 3 * len(atoms)
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(n, n))
    # a stiff spring network without force on translations and rotations is not needed here: the
    # sampler leaves those out, and the energy of the six others is 3/2 k_B T at most
    field = HarmonicForceField(ref_atoms=atoms, ref_energy=0.0, hessian_x=matrix @ matrix.T + 9)
    calc = HarmonicCalculator(field)
    found = list(NormalModes(200, (300.0,)).sample([atoms], calc, 0))
    energies = []
    for sample in found:
        sample.calc = calc
        energies.append(sample.get_potential_energy())
    assert np.mean(energies) == pytest.approx(1.5 * units.kB * 300.0, rel=0.15)


def test_dynamics_is_hot_ends_at_collisions_and_at_the_threshold(monkeypatch):
    atoms = bulk("Cu", cubic=True)
    sampler = Dynamics((300.0, 900.0), steps=40, interval=10, timestep=2.0, friction=0.05)
    found = list(sampler.sample([atoms], EMT(), 3))
    assert [a.info["sample"]["step"] for a in found] == [10, 20, 30, 40] * 2
    assert same(found, list(sampler.sample([atoms], EMT(), 3)))
    spread = [np.std(found[k].positions - atoms.positions) for k in (3, 7)]
    assert 0.02 < spread[0] < spread[1]
    assert not found[0].has("momenta")
    monkeypatch.setattr("mlip.active.dynamics.largest_uncertainty", lambda calc, atoms: 0.3)
    curious = Dynamics((300.0,), steps=40, interval=10, stop_above=0.2)
    assert len(list(curious.sample([atoms], EMT(), 3))) == 1
    monkeypatch.setattr("mlip.active.dynamics.is_reasonable", lambda atoms: False)
    assert list(sampler.sample([atoms], EMT(), 3)) == []


def test_path_images_lie_between_and_relax():
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    first, last = slab.copy(), slab.copy()
    sites = slab.info["adsorbate_info"]["sites"]
    for image, name in ((first, "fcc"), (last, "hcp")):
        x, y = np.array(sites[name]) @ slab.info["adsorbate_info"]["cell"]
        image.append("Cu")
        image.positions[-1] = (x, y, slab.positions[:, 2].max() + 1.9)
    found = list(PathImages(images=3, steps=5).sample([first, last], EMT(), 0))
    assert [a.info["sample"]["image"] for a in found] == [1, 2, 3]
    heights = [a.positions[-1, 2] for a in found]
    assert heights[1] > first.positions[-1, 2]
    with pytest.raises(InvalidInputError, match="at least two starts"):
        next(PathImages().sample([first], EMT(), 0))
    with pytest.raises(InvalidInputError, match="expected the composition"):
        next(PathImages().sample([first, slab], EMT(), 0))


def test_adsorbates_are_placed_at_random_on_slabs():
    slab = fcc111("Cu", (2, 2, 2), vacuum=8.0)
    slab.set_constraint(FixAtoms(indices=range(4)))
    found = draw({"adsorbates": Adsorbates(("CO", "H"), count=3)}, [slab], None, seed=4)
    assert [len(atoms) for atoms in found] == [10] * 3 + [9] * 3
    assert found[0].info["sample"]["adsorbate"] == "CO"
    assert same(found, draw({"adsorbates": Adsorbates(("CO", "H"), 3)}, [slab], None, seed=4))
    assert np.ptp([atoms.positions[-1, 0] for atoms in found[:3]]) > 0.1
    assert all(atoms.positions[8:, 2].min() > slab.positions[:, 2].max() for atoms in found)
    assert found[0].constraints[0].index.tolist() == [0, 1, 2, 3]
    with pytest.raises(InvalidInputError, match="unknown adsorbate 'COO'"):
        Adsorbates(("COO",))
    with pytest.raises(InvalidInputError, match="adsorbates: expected slabs"):
        draw({"adsorbates": Adsorbates(("H",))}, [molecule("H2O")], None, seed=4)


def test_collisions_are_dropped_and_starts_are_needed():
    close = Atoms("H2", [(0, 0, 0), (0, 0, 0.3)])
    assert not is_reasonable(close)
    assert is_reasonable(molecule("H2"))
    assert not is_reasonable(Atoms("H", [(0, 0, np.nan)]))
    assert draw({"rattle": Rattle(2, (1e-6,))}, [close], None, 0) == []
    with pytest.raises(InvalidInputError, match="starts: expected at least one"):
        draw({"rattle": Rattle()}, [], None, 0)


def test_frames_survive_their_file(tmp_path):
    slab = fcc111("Cu", (2, 2, 2), vacuum=5.0)
    slab.set_constraint(FixAtoms(indices=[0, 1]))
    slab.set_initial_magnetic_moments([1.0] * 8)
    slab.set_velocities(np.ones((8, 3)))
    slab.info = {"sample": {"sampler": "x", "strain": [[1.0]]}}
    write_frames(tmp_path / "a.extxyz", [slab])
    (back,) = read_frames(tmp_path / "a.extxyz")
    np.testing.assert_allclose(back.positions, slab.positions, atol=1e-7)
    np.testing.assert_allclose(back.get_momenta()[2:], slab.get_momenta()[2:], atol=1e-7)
    assert back.get_initial_magnetic_moments().tolist() == [1.0] * 8
    assert back.info["sample"] == slab.info["sample"]
    assert back.constraints[0].index.tolist() == [0, 1]
    write_frames(tmp_path / "none.extxyz", [])
    assert read_frames(tmp_path / "none.extxyz") == []
