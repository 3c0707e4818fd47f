from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.io import read

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import UnconvergedWarning, optimizer_names, relax


def distorted_water() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.1, seed=3)
    atoms.calc = EMT()
    return atoms


@pytest.mark.parametrize("optimizer", optimizer_names())
def test_every_optimizer_of_ase_finds_the_same_minimum(optimizer: str) -> None:
    atoms = distorted_water()
    start = atoms.get_potential_energy()
    result = relax(atoms, optimizer=optimizer, fmax=2e-3, steps=1000)
    assert result.converged
    assert result.fmax < 2e-3
    assert result.energies[0] == pytest.approx(start, abs=1e-12)
    assert start - result.energy > 0.1  # the distortion cost something
    assert result.energy == pytest.approx(1.878883831, abs=2e-5)  # BFGS to 1e-5 eV/A
    assert len(result.energies) == len(result.fmaxes) >= 2


def test_atoms_are_relaxed_in_place_and_the_result_is_detached() -> None:
    atoms = distorted_water()
    result = relax(atoms)
    assert result.atoms is not atoms
    np.testing.assert_array_equal(result.atoms.positions, atoms.positions)
    np.testing.assert_allclose(result.atoms.get_forces(), atoms.get_forces(), atol=1e-12)
    atoms.positions += 1.0
    assert np.abs(result.atoms.positions - atoms.positions).min() > 0.9


def test_unconverged_relaxation_warns_and_says_so_in_the_table() -> None:
    with pytest.warns(UnconvergedWarning, match="not converged: fmax .* after 1 steps"):
        result = relax(distorted_water(), fmax=1e-4, steps=1)
    assert not result.converged
    assert result.n_steps == 1
    assert "NOT CONVERGED" in result.table()


def test_restart_continues_and_ends_where_an_uninterrupted_run_ends(tmp_path) -> None:
    whole = relax(distorted_water(), fmax=1e-3)
    path = tmp_path / "deep" / "path.traj"
    with pytest.warns(UnconvergedWarning):
        first = relax(distorted_water(), fmax=1e-3, steps=3, trajectory=path)
    second = relax(distorted_water(), fmax=1e-3, trajectory=path, restart=True)
    assert second.converged
    assert second.energies[0] == pytest.approx(first.energy, abs=1e-10)
    # BFGS kept its Hessian, so that nothing was lost by the interruption.
    assert first.n_steps + second.n_steps == whole.n_steps
    np.testing.assert_allclose(second.atoms.positions, whole.atoms.positions, atol=1e-10)
    frames = read(path, index=":")
    assert len(frames) == whole.n_steps + 1
    assert frames[-1].get_potential_energy() == pytest.approx(whole.energy, abs=1e-10)


def test_restart_survives_a_truncated_optimizer_file(tmp_path) -> None:
    path = tmp_path / "path.traj"
    with pytest.warns(UnconvergedWarning):
        relax(distorted_water(), fmax=1e-3, steps=3, trajectory=path)
    memory = tmp_path / "path.traj.optimizer"
    memory.write_text(memory.read_text()[:40])
    assert relax(distorted_water(), fmax=1e-3, trajectory=path, restart=True).converged


def test_restart_refuses_a_trajectory_of_other_atoms(tmp_path) -> None:
    path = tmp_path / "path.traj"
    relax(distorted_water(), trajectory=path)
    with pytest.raises(InvalidInputError, match="trajectory: expected frames of N2"):
        relax(Atoms("N2", [[0, 0, 0], [0, 0, 1.1]]), calc=EMT(), trajectory=path, restart=True)


def test_constraints_are_honoured() -> None:
    atoms = distorted_water()
    atoms.set_constraint(FixAtoms([0]))
    held = atoms.positions[0].copy()
    moved = atoms.positions[1].copy()
    assert relax(atoms).converged
    np.testing.assert_array_equal(atoms.positions[0], held)
    assert np.abs(atoms.positions[1] - moved).max() > 0.01


def strained_copper() -> Atoms:
    atoms = bulk("Cu", a=3.5, cubic=True)
    atoms.set_cell(atoms.cell @ np.array([[1.02, 0.01, 0], [0, 0.99, 0], [0, 0, 1.0]]), True)
    atoms.rattle(0.02, seed=1)
    atoms.calc = EMT()
    return atoms


def test_a_free_cell_ends_without_stress_at_the_known_lattice_constant(tmp_path) -> None:
    atoms = strained_copper()
    result = relax(atoms, cell="free", fmax=1e-3, trajectory=tmp_path / "cell.traj")
    assert result.converged
    assert np.abs(atoms.get_stress()).max() < 1e-4
    assert (atoms.get_volume() / 4) ** (1 / 3) == pytest.approx(2.2617, abs=2e-3)
    assert len(read(tmp_path / "cell.traj", index=":")) == result.n_steps + 1


def test_volume_and_plane_relax_alone() -> None:
    atoms = strained_copper()
    ratios = atoms.cell.cellpar()[1:] / atoms.cell.cellpar()[0]
    assert relax(atoms, cell="volume", fmax=5e-3).converged
    np.testing.assert_allclose((atoms.cell.cellpar()[1:] / atoms.cell.cellpar()[0])[:2],
                               ratios[:2], rtol=1e-9)  # fmt: skip
    assert abs(atoms.get_stress()[:3].sum()) < 2e-3
    slab = strained_copper()
    height = slab.cell[2].copy()
    assert relax(slab, cell="in-plane", fmax=5e-3).converged
    np.testing.assert_allclose(slab.cell[2], height, atol=1e-12)
    assert np.abs(slab.get_stress()[[0, 1, 5]]).max() < 2e-3
    assert np.abs(slab.get_stress()[2]) > 1e-2


def test_pressure_shrinks_the_cell() -> None:
    free, pressed = strained_copper(), strained_copper()
    relax(free, cell="free", fmax=2e-3)
    relax(pressed, cell="free", pressure=10.0, fmax=2e-3)
    assert pressed.get_stress()[:3].mean() * 160.2177 == pytest.approx(-10.0, abs=0.2)
    assert pressed.get_volume() < 0.98 * free.get_volume()


def test_symmetry_is_kept_on_request_and_given_back() -> None:
    atoms = bulk("Cu", a=3.7)
    atoms.calc = EMT()
    assert relax(atoms, cell="free", keep_symmetry=True, fmax=1e-3).converged
    np.testing.assert_allclose(atoms.cell.angles(), 60.0, atol=1e-8)
    assert not atoms.constraints


def test_progress_table_and_picture(tmp_path) -> None:
    seen: list[tuple[int, int, str]] = []
    result = relax(distorted_water(), progress=lambda *args: seen.append(args))
    assert seen[-1][0] == result.n_steps
    assert f"fmax {result.fmax:.4f}" in seen[-1][2]
    assert f"{result.energy:.8f}" in result.table()
    assert result.plot(tmp_path / "pictures" / "relax.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"optimiser": "BFGS"}, "unknown setting 'optimiser'. Did you mean 'optimizer'?"),
        ({"optimizer": "LBGFS"}, "unknown optimizer 'LBGFS'. Did you mean 'LBFGS'?"),
        ({"fmax": -1.0}, "fmax: expected a positive number, got -1.0"),
        ({"fmax": float("nan")}, "fmax: expected a positive number, got nan"),
        ({"steps": -1}, "steps: expected a number of steps >= 0, got -1"),
        ({"restart": True}, "restart: expected a trajectory"),
        ({"cell": "fre"}, "unknown cell 'fre'. Did you mean 'free'"),
        ({"pressure": 1.0}, "pressure: expected 0 for a fixed cell, got 1.0 GPa"),
        ({"cell": "free"}, "cell: expected 'fixed' for a structure without periodic directions"),
    ],
)
def test_bad_settings_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        relax(distorted_water(), **keywords)
    assert message in str(caught.value)


def test_bad_structures_are_named() -> None:
    with pytest.raises(InvalidInputError, match="at least one atom"):
        relax(Atoms(), calc=EMT())
    with pytest.raises(InvalidInputError, match="expected an ASE calculator, got none"):
        relax(molecule("H2O"))
    atoms = distorted_water()
    atoms.positions[2, 1] = np.nan
    with pytest.raises(InvalidInputError, match=r"finite positions, atoms \[2\]"):
        relax(atoms)
