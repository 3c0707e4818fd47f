from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.constraints import FixAtoms
from ase.geometry.rdf import get_rdf
from ase.io import read

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import eos, md
from ase_neuralxc.workflows.analysis import mean_square_displacement, radial_distribution


def copper() -> Atoms:
    atoms = bulk("Cu", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    return atoms


def test_nve_conserves_energy_and_improves_with_the_time_step() -> None:
    fine = md(copper(), timestep=2.0, steps=60, temperature=600)
    coarse = md(copper(), timestep=8.0, steps=15, temperature=600)
    assert fine.potential.std() > 1e-2  # energy does flow
    assert fine.fluctuation < 0.02 * fine.potential.std() / len(fine.frames[0])
    # Velocity Verlet is of second order: a quarter of the step, a sixteenth of the error.
    assert 8 < coarse.fluctuation / fine.fluctuation < 32
    assert abs(fine.drift) < 5e-3
    np.testing.assert_allclose(fine.times[:3], [0.0, 2.0, 4.0])


def test_velocities_are_drawn_at_the_temperature_without_drift_or_rotation() -> None:
    atoms = molecule("C6H6")
    md(atoms, calc=EMT(), steps=1, timestep=1e-3, temperature=400)
    assert np.abs(atoms.get_momenta().sum(axis=0)).max() < 1e-10
    assert np.abs(atoms.get_angular_momentum()).max() < 1e-8
    assert atoms.get_temperature() == pytest.approx(400, rel=1e-3)


def test_given_momenta_are_kept_and_none_are_drawn_without_temperature() -> None:
    atoms = copper()
    result = md(atoms, steps=1, temperature=None)
    assert result.kinetic[0] == 0.0
    atoms = copper()
    atoms.set_momenta(np.arange(24.0).reshape(8, 3) / 24)
    result = md(atoms, steps=1)
    np.testing.assert_array_equal(
        result.frames[0].get_momenta(), np.arange(24.0).reshape(8, 3) / 24
    )


def test_langevin_reaches_the_temperature() -> None:
    result = md(
        copper(),
        ensemble="nvt",
        timestep=5.0,
        steps=400,
        temperature=500,
        friction=0.02,
    )
    # 24 degrees of freedom: one sample scatters by 30 %, some thirty independent ones by 5 %.
    assert result.temperatures[100:].mean() == pytest.approx(500, rel=0.2)


class IdealGas(Calculator):
    """No interaction."""

    implemented_properties = ["energy", "forces", "stress"]

    def calculate(self, atoms=None, properties=("energy",), system_changes=()):
        super().calculate(atoms, properties, system_changes)
        self.results = {
            "energy": 0.0, "forces": np.zeros((len(atoms), 3)), "stress": np.zeros(6)
        }  # fmt: skip


def test_volume_of_an_ideal_gas_at_constant_pressure(rng) -> None:
    # p(V) ~ V^N exp(-PV/kT): mean (N+1) kT/P, relative spread 1/sqrt(N+1)
    n, temperature, pressure = 32, 300.0, 0.1
    volume = (n + 1) * units.kB * temperature / (pressure * units.GPa)
    gas = Atoms(f"Ar{n}", cell=[volume ** (1 / 3)] * 3, pbc=True)
    gas.set_scaled_positions(rng.random((n, 3)))
    result = md(
        gas, IdealGas(), ensemble="npt", timestep=4.0, steps=2400, temperature=temperature,
        pressure=pressure, barostat_time=100.0, thermostat_time=50.0,
    )  # fmt: skip
    volumes = result.volumes[200:]
    assert volumes.mean() == pytest.approx(volume, rel=0.1)
    assert volumes.std() / volume == pytest.approx(1 / np.sqrt(n + 1), rel=0.3)
    assert result.pressures[200:].mean() == pytest.approx(pressure, rel=0.15)


@pytest.mark.parametrize("cell", ["volume", "free"])
def test_a_crystal_under_pressure(cell: str) -> None:
    atoms = bulk("Cu", cubic=True) * (1, 2, 2)
    before = atoms.cell.lengths()
    result = md(
        atoms, EMT(), ensemble="npt", cell=cell, timestep=5.0, steps=300, temperature=300,
        pressure=10.0, barostat_time=250.0,
    )  # fmt: skip
    half = len(result.frames) // 2
    assert result.pressures[half:].mean() == pytest.approx(10.0, abs=1.5)
    cold = eos(bulk("Cu", cubic=True), EMT())
    expected = 4 * cold.volume * (1 - 10.0 / cold.bulk_modulus)  # Hooke; expansion is below 1 %
    assert result.volumes[half:].mean() == pytest.approx(expected, rel=0.04)
    strains = result.frames[-1].cell.lengths() / before
    assert (np.ptp(strains) < 1e-9) == (cell == "volume")
    assert "pressure / GPa" in result.table()


def test_constant_pressure_needs_a_free_crystal() -> None:
    with pytest.raises(InvalidInputError, match="three periodic directions for 'npt'"):
        md(molecule("H2O"), EMT(), ensemble="npt", steps=1)
    fixed = copper()
    fixed.set_constraint(FixAtoms([0]))
    with pytest.raises(InvalidInputError, match="no constraints for 'npt'"):
        md(fixed, ensemble="npt", steps=1)
    with pytest.raises(InvalidInputError, match="pressures: expected frames with stress"):
        _ = md(molecule("H2O"), EMT(), steps=1).pressures


@pytest.mark.parametrize("ensemble", ["nve", "nvt", "npt"])
def test_restart_continues_the_run(tmp_path, ensemble: str) -> None:
    common = {"ensemble": ensemble, "timestep": 2.0, "interval": 5, "seed": 4}
    path = tmp_path / "md.traj"
    first = md(copper(), steps=10, trajectory=path, **common)
    both = md(copper(), steps=20, trajectory=path, restart=True, **common)
    assert len(first.frames) == 3
    assert len(both.frames) == len(read(path, index=":")) == 5
    np.testing.assert_allclose(both.potential[:3], first.potential, atol=1e-12)
    np.testing.assert_allclose(both.times, [0, 10, 20, 30, 40])
    stored = read(path, index=":")
    for frame, kept in zip(both.frames, stored, strict=True):
        np.testing.assert_allclose(frame.cell, kept.cell, atol=1e-12)
    assert (np.ptp(both.volumes) > 0) == (ensemble == "npt")
    if ensemble == "nve":
        whole = md(copper(), steps=20, **common)
        np.testing.assert_allclose(both.total, whole.total, atol=1e-9)
        np.testing.assert_allclose(both.frames[-1].positions, whole.frames[-1].positions, atol=1e-9)
    # Nothing is left to do: the same command again only reads.
    again = md(copper(), steps=20, trajectory=path, restart=True, **common)
    np.testing.assert_array_equal(again.potential, both.potential)


def test_restart_refuses_another_run(tmp_path) -> None:
    path = tmp_path / "md.traj"
    md(copper(), steps=2, timestep=2.0, trajectory=path)
    with pytest.raises(InvalidInputError, match="timestep: expected 2 fs"):
        md(copper(), steps=4, timestep=1.0, trajectory=path, restart=True)
    gold = bulk("Au", cubic=True) * (2, 1, 1)
    with pytest.raises(InvalidInputError, match="trajectory: expected frames of Au8"):
        md(gold, EMT(), steps=4, timestep=2.0, trajectory=path, restart=True)


def test_rdf_of_a_perfect_crystal_peaks_at_its_shells() -> None:
    frames = [copper()]
    a = 3.61
    r, g = radial_distribution(frames, rmax=1.2 * a, n_bins=60)
    width = r[1] - r[0]
    shells = 4 / 3 * np.pi * ((r + width / 2) ** 3 - (r - width / 2) ** 3)
    neighbours = g * shells * 8 / frames[0].get_volume()
    near = r < 0.85 * a
    assert neighbours[near].sum() == pytest.approx(12)
    assert neighbours.sum() == pytest.approx(18)
    assert r[near][np.argmax(g[near])] == pytest.approx(a / np.sqrt(2), abs=width)


def test_rdf_of_an_ideal_gas_is_one_and_pairs_are_told_apart(rng) -> None:
    symbols = ["H"] * 60 + ["O"] * 30
    gas = Atoms(symbols, positions=rng.uniform(0, 12, (90, 3)), cell=[12] * 3, pbc=True)
    for pair in [None, ("H", "O"), ("O", "H")]:
        _, g = radial_distribution([gas], rmax=8.0, n_bins=2, pair=pair)
        assert g[1] == pytest.approx(1.0, abs=0.05)
    with pytest.raises(InvalidInputError, match="pair: expected symbols among"):
        radial_distribution([gas], 4.0, pair=("H", "C"))
    with pytest.raises(InvalidInputError, match="periodicity in three directions"):
        radial_distribution([molecule("H2O")], 4.0)


def test_rdf_equals_that_of_ase() -> None:
    atoms = copper() * (2, 4, 4)
    atoms.rattle(0.1, seed=1)
    r, g = radial_distribution([atoms], rmax=5.0, n_bins=50)
    expected, distances = get_rdf(atoms, rmax=5.0, nbins=50)
    np.testing.assert_allclose(r, distances, atol=1e-12)
    assert g.max() > 3
    np.testing.assert_allclose(g, expected, rtol=1e-6, atol=1e-9)


def test_msd_of_a_random_walk_grows_as_it_must(rng) -> None:
    n, steps, sigma = 40, 400, 0.1
    walk = np.cumsum(rng.normal(scale=sigma, size=(steps, n, 3)), axis=0)
    msd = mean_square_displacement([Atoms(f"Ar{n}", positions=p) for p in walk])
    lags = np.arange(20)
    # three directions, less the motion of the centre of mass
    np.testing.assert_allclose(msd[:20], 3 * sigma**2 * lags * (1 - 1 / n), rtol=0.05, atol=1e-12)


def test_msd_equals_the_sum_over_origins(rng) -> None:
    walk = np.cumsum(rng.normal(size=(12, 4, 3)), axis=0)
    frames = [Atoms("H3C", positions=p) for p in walk]
    relative = np.array([f.positions - f.get_center_of_mass() for f in frames])
    direct = [
        ((relative[lag:] - relative[: 12 - lag]) ** 2).sum(axis=2).mean() for lag in range(12)
    ]
    assert direct[-1] > 1
    np.testing.assert_allclose(mean_square_displacement(frames), direct, atol=1e-10)


def test_table_and_picture(tmp_path) -> None:
    result = md(copper(), steps=4)
    assert "drift of the total energy" in result.table()
    assert "4 steps of 0.5 fs, 5 frames" in result.table()
    assert result.plot(tmp_path / "md.png").stat().st_size > 1000
    r, g = result.rdf(4.0, n_bins=20)
    assert len(r) == len(g) == 20
    assert g.max() > 1
    assert len(result.msd()) == 5
    assert result.plot_analysis(tmp_path / "bulk.png", rmax=4.0).stat().st_size > 1000
    free = md(molecule("H2O"), EMT(), steps=2)
    assert free.plot_analysis(tmp_path / "free.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"ensemble": "nph"}, "unknown ensemble 'nph'"),
        ({"ensemble": "npt", "temperature": None}, "temperature: expected kelvin for"),
        ({"pressure": 1.0}, "pressure: expected 0 for ensemble 'nve', got 1.0 GPa"),
        ({"ensemble": "npt", "timestep": 2.0, "thermostat_time": 10.0}, "at least 10 time steps"),
        ({"ensemble": "npt", "cell": "volme"}, "Did you mean 'volume'?"),
        ({"time_step": 1.0}, "Did you mean 'timestep'?"),
        ({"steps": 10, "interval": 3}, "interval: expected a divisor of steps=10, got 3"),
        ({"ensemble": "nvt", "temperature": None}, "temperature: expected kelvin"),
        ({"timestep": 0}, "timestep: expected a positive number, got 0"),
    ],
)
def test_bad_settings_are_named(keywords: dict, message: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        md(copper(), **keywords)
    assert message in str(caught.value)
