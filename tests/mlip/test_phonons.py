"""Phonons of copper on a trained potential, against phonopy's own route through FORCE_SETS."""

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from phonopy import Phonopy
from phonopy.file_IO import parse_FORCE_SETS, write_FORCE_SETS
from phonopy.structure.atoms import PhonopyAtoms
from small_potential import MODEL

from ase_neuralxc.workflows import phonons
from mlip.calculator import MLIP
from mlip.training.config import build_config
from mlip.training.run import train


def copper_potential(folder, rng) -> MLIP:
    frames = []
    for _ in range(12):
        atoms = bulk("Cu", a=3.6).repeat(2)
        atoms.rattle(0.08, rng=rng)
        atoms.calc = EMT()
        results = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    write(folder / "copper.extxyz", frames)
    config = {
        "out": str(folder / "run"),
        "epochs": 40,
        "validate_every": 20,
        "dtype": "float64",
        "data": {"train": [str(folder / "copper.extxyz")], "valid_size": 2},
        "model": MODEL,
    }
    train(build_config(config), say=lambda line: None)
    return MLIP(folder / "run")


def test_copper_on_the_potential_agrees_with_phonopys_force_sets(tmp_path, rng):
    calc = copper_potential(tmp_path, rng)
    copper = bulk("Cu", a=3.6)
    result = phonons(copper, calc, supercell=(2, 2, 2), mesh=20.0, points=11)
    own = Phonopy(
        PhonopyAtoms(symbols=["Cu"], cell=np.array(copper.cell), scaled_positions=[[0.0] * 3]),
        supercell_matrix=2 * np.eye(3, dtype=int),
        primitive_matrix=np.eye(3),
    )
    own.generate_displacements(distance=0.01)
    sets = []
    for cell in own.supercells_with_displacements:
        atoms = Atoms("Cu8", scaled_positions=cell.scaled_positions, cell=cell.cell, pbc=True)
        atoms.calc = calc
        sets.append(atoms.get_forces())
    own.forces = np.array(sets)
    write_FORCE_SETS(own.dataset, filename=tmp_path / "FORCE_SETS")
    own.dataset = parse_FORCE_SETS(filename=tmp_path / "FORCE_SETS")
    own.produce_force_constants()
    own.symmetrize_force_constants()
    for q, frequencies in zip(result.qpoints, result.bands, strict=True):
        expected = np.asarray(own.run_qpoints(q).frequencies)
        assert expected.max() > 1.0
        np.testing.assert_allclose(frequencies, expected, atol=1e-6)
    # after symmetrisation the acoustic modes at Gamma have no frequency
    assert result.acoustic.max() < 1e-4
