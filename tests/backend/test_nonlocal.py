"""Nonlocal functionals: potentials, kernels and forces against differences and the local route."""

from __future__ import annotations

import numpy as np
import pytest
from functionals import AtomMoments, Disguised
from numerical import central_difference, force_by_differences
from systems import aminyl, as_system, hydrogen_iodide, water
from torch import nn

from ase_neuralxc.backend.atom_grid import AtomGrid
from ase_neuralxc.backend.grid_density import grid_densities
from ase_neuralxc.backend.hook import TorchNumInt
from ase_neuralxc.backend.ladder import SecondOrder
from ase_neuralxc.backend.molecular import MolecularBackend, MolecularNumInt
from ase_neuralxc.backend.nonlocal_energy import NonlocalEnergy
from ase_neuralxc.backend.nonlocal_hook import NonlocalNumInt
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.derivatives.hessian import hessian
from ase_neuralxc.errors import FunctionalError, InvalidInputError
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import MomentFunctional, load_functional
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion

BACKEND = MolecularBackend()
TIGHT = {"conv_tol": 1e-10, "conv_tol_grad": 1e-7, "stability": "never"}
ENERGY_TOLERANCE = 1e-8  # Hartree
LOCAL_FORCE_TOLERANCE = 1e-8  # Hartree/Bohr
DIFFERENCE_TOLERANCE = 1e-6  # Hartree/Bohr
NET_FORCE_TOLERANCE = 1e-8  # Hartree/Bohr
REFERENCES = ["rks", "uks", "roks"]
KINDS = {"molecule": False, "atomwise": True}


def solve(functional, reference="rks", atoms=None, terms=(), guess=None, state=None, **settings):
    atoms = atoms or (water() if reference == "rks" else aminyl())
    settings = KSSettings(**{"basis": "6-31g", "reference": reference, **TIGHT, **settings})
    return BACKEND.solve(as_system(atoms, **(state or {})), functional, settings, terms, guess)


@pytest.fixture(scope="module")
def ground():
    """An integrator's molecule, coarse grid and density matrices."""
    solution = solve(load_functional("pbe"), "uks", grid_level=0)
    return solution.host.mol, solution.host.grids, solution.density_matrix


@pytest.mark.parametrize("density_fit", [False, True], ids=["exact", "df"])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("name", ["r2scan", "pbe0"])
def test_semilocal_functional_gives_the_same_on_both_routes(name, reference, density_fit):
    local = solve(load_functional(name), reference, density_fit=density_fit)
    other = solve(Disguised(load_functional(name)), reference, density_fit=density_fit)
    assert type(local.host._numint) is MolecularNumInt
    assert type(other.host._numint) is NonlocalNumInt
    assert other.energy == pytest.approx(local.energy, abs=ENERGY_TOLERANCE)
    forces = BACKEND.forces(local)
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(BACKEND.forces(other), forces, rtol=0, atol=LOCAL_FORCE_TOLERANCE)


@pytest.mark.parametrize("density_fit", [False, True], ids=["exact", "df"])
@pytest.mark.parametrize("reference", REFERENCES)
@pytest.mark.parametrize("kind", KINDS)
def test_forces_equal_finite_differences(kind, reference, density_fit):
    check_forces(AtomMoments(KINDS[kind]), reference, density_fit=density_fit)


@pytest.mark.parametrize("reference", ["rks", "uks"])
def test_forces_of_learned_moments_equal_finite_differences(reference):
    functional = MomentFunctional(width=8, channels=2, head_scale=0.5, dtype="float64")
    check_forces(functional, reference, density_fit=True)


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["ecp", "smd", "d3", "hybrid"])
@pytest.mark.parametrize("reference", ["rks", "uks"])
def test_forces_equal_finite_differences_with(extra, reference):
    functional = AtomMoments()
    options = {
        "ecp": {"basis": "def2-svp", "atoms": hydrogen_iodide()},
        "smd": {"solvent": "water"},
        "d3": {"terms": (Dispersion("d3bj", "r2scan"),)},
        "hybrid": {"density_fit": True},
    }[extra]
    if extra == "ecp" and reference == "uks":
        options["state"] = {"charge": 1}
    if extra == "hybrid":
        functional.exchange_fraction = 0.2
    check_forces(functional, reference, **options)


def check_forces(functional, reference, **options):
    options = {"grid_level": 1, **options}  # exact on any grid
    solution = solve(functional, reference, **options)
    forces = BACKEND.forces(solution)
    atoms = options.pop("atoms", water() if reference == "rks" else aminyl())

    def energy(structure):
        return solve(
            functional, reference, structure, guess=solution.density_matrix, **options
        ).energy

    step = 2e-3 * units.BOHR_ANGSTROM
    expected = force_by_differences(energy, atoms, 1, 2, step) * units.BOHR_ANGSTROM
    assert abs(expected) > 1e-3
    assert forces[1, 2] == pytest.approx(expected, abs=DIFFERENCE_TOLERANCE)
    assert np.abs(forces.sum(axis=0)).max() < NET_FORCE_TOLERANCE


@pytest.mark.parametrize("kind", KINDS)
def test_every_part_of_the_grid_response_is_there(kind, ground):
    mol, grids, dm = ground
    integrator, grid = NonlocalNumInt(AtomMoments(KINDS[kind])), AtomGrid.of(grids)
    density = grid.gather(grid_densities(integrator, mol, grids, list(dm)))
    found = integrator.energy.explicit_derivatives(density, grid)
    for part in (found.density, found.coords, found.weights, found.atom_coords):
        assert np.abs(part).max() > 1e-3
    _, rows = integrator.energy.potential(density, grid)
    np.testing.assert_array_equal(found.density, rows)
    moved = found.atom_coords.sum(0) + found.coords.sum(0)  # points and nuclei together
    assert np.abs(moved).max() < 1e-10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("polarised", [False, True], ids=["total", "spins"])
def test_potential_matrix_is_the_derivative_of_the_energy(kind, polarised, ground, rng):
    mol, grids, dm = ground
    integrator = NonlocalNumInt(AtomMoments(KINDS[kind]))
    run = integrator.nr_uks if polarised else integrator.nr_rks
    start = dm if polarised else dm.sum(0)
    change = symmetric(rng, start.shape)
    electrons, _, potential = run(mol, grids, "", start)
    counted = grids.weights @ integrator.get_rho(mol, dm.sum(0), grids)
    assert np.sum(electrons) == pytest.approx(counted, abs=1e-10)
    expected = central_difference(lambda t: run(mol, grids, "", start + t * change)[1], 1e-3)
    assert abs(expected) > 1e-2
    assert np.vdot(potential, change) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_derivatives_of_the_potentials(kind, ground, rng):
    mol, grids, dm = ground
    integrator = NonlocalNumInt(AtomMoments(KINDS[kind]))
    trials = symmetric(rng, (2, 2, mol.nao, mol.nao))  # spin, batch

    def change_of(run, start, change):
        return central_difference_array(lambda t: run(mol, grids, "", start + t * change)[2])

    kernel = integrator.cache_xc_kernel1(mol, grids, "", dm, spin=1)[2]
    found = integrator.nr_uks_fxc(mol, grids, "", None, trials, hermi=1, fxc=kernel)
    assert found.shape == trials.shape
    for i in range(2):
        assert_close(found[:, i], change_of(integrator.nr_uks, dm, trials[:, i]))

    total = dm.sum(0)
    kernel = integrator.cache_xc_kernel1(mol, grids, "", total, spin=0)[2]
    found = integrator.nr_rks_fxc(mol, grids, "", None, trials[0], hermi=1, fxc=kernel)
    for i in range(2):
        assert_close(found[i], change_of(integrator.nr_rks, total, trials[0, i]))

    closed = np.stack([0.5 * total] * 2)
    kernel = integrator.cache_xc_kernel1(mol, grids, "", total, spin=1)[2]
    for singlet in (True, False):
        spins = np.stack([trials[0, 0], trials[0, 0] if singlet else -trials[0, 0]])
        found = integrator.nr_rks_fxc_st(
            mol, grids, "", None, trials[0, 0], 1, singlet, fxc=kernel * 0.5
        )
        assert_close(found, 0.5 * change_of(integrator.nr_uks, closed, spins)[0])


def test_kernels_equal_those_of_the_pointwise_route(ground, rng):
    mol, grids, dm = ground
    local = TorchNumInt(load_functional("r2scan"))
    other = NonlocalNumInt(Disguised(load_functional("r2scan")))
    trials = symmetric(rng, (2, mol.nao, mol.nao))
    one = trials[0]

    def kernel(integrator, matrix, spin):
        return integrator.cache_xc_kernel1(mol, grids, "", matrix, spin)[2]

    def singlet_and_triplet(integrator):
        fxc = kernel(integrator, dm.sum(0), 1)
        return [
            integrator.nr_rks_fxc_st(mol, grids, "", None, one, 1, singlet, fxc=fxc)
            for singlet in (True, False)
        ]

    for run in (
        lambda ni: ni.nr_uks_fxc(mol, grids, "", None, trials, 0, 1, fxc=kernel(ni, dm, 1)),
        lambda ni: ni.nr_rks_fxc(mol, grids, "", None, one, 0, 1, fxc=kernel(ni, dm.sum(0), 0)),
        singlet_and_triplet,
    ):
        expected = np.asarray(run(local))
        assert np.abs(expected).max() > 1e-2
        np.testing.assert_allclose(run(other), expected, rtol=0, atol=1e-8)


def test_atom_by_atom_equals_all_at_once(ground):
    mol, grids, dm = ground
    functional = AtomMoments(atomwise=True)
    results = []
    for atomwise in (True, False):
        integrator = NonlocalNumInt(functional)
        integrator.energy.atomwise = atomwise
        results.append(integrator.nr_uks(mol, grids, "", dm)[1:])
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-12)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-12)


@pytest.mark.parametrize("reference", REFERENCES)
def test_second_order_scf_and_stability(reference):
    newton = MolecularBackend(ladder=(SecondOrder(),))
    atoms = water() if reference == "rks" else aminyl()
    settings = KSSettings(
        basis="6-31g", reference=reference, conv_tol=1e-10, grid_level=1, stability="always"
    )
    found = newton.solve(as_system(atoms), AtomMoments(), settings)
    assert found.history[-1].cycles < 10
    diis = solve(AtomMoments(), reference, grid_level=1)
    assert found.energy == pytest.approx(diis.energy, abs=ENERGY_TOLERANCE)


def test_weights_of_the_functional_stay_trainable(ground):
    mol, grids, dm = ground
    functional = AtomMoments()
    NonlocalNumInt(functional).nr_uks(mol, grids, "", dm)
    assert functional.mix.requires_grad


def test_grid_that_stays_behind_is_refused():
    with pytest.raises(InvalidInputError, match="grid_response: expected True for a nonlocal"):
        solve(AtomMoments(), grid_response=False)


def test_analytic_hessian_is_refused():
    solution = solve(AtomMoments(), grid_level=0)
    with pytest.raises(InvalidInputError, match="hessian: not available for nonlocal functionals"):
        hessian(solution)
    with pytest.raises(InvalidInputError, match="the nonlocal 'moments'; use finite differences"):
        solution.host._numint.eval_xc_eff("", np.ones((5, 3)))


@pytest.mark.parametrize(
    ("what", "energy"),
    [("energy", lambda d: -d / (d - 0.2).clamp(max=0)), ("derivative", lambda d: (d - d).sqrt())],
)
def test_values_that_are_not_finite_are_named(what, energy, ground):
    class Broken(nn.Module):
        name = "broken"
        features = frozenset({Feature.GRID})
        exchange_fraction = 0.0

        def energy_density(self, features):
            return energy(features.density[0])

    mol, grids, dm = ground
    with pytest.raises(FunctionalError, match=rf"'broken' returned a {what} that is not finite at"):
        NonlocalNumInt(Broken()).nr_uks(mol, grids, "", dm)


def test_empty_spin_channel_has_a_finite_kernel(ground):
    _, grids, _ = ground
    grid = AtomGrid.of(grids)
    rows = np.zeros((2, 5, grid.order.size))
    rows[0, 0] = 0.1
    energy = NonlocalEnergy(load_functional("lda_x"))
    trial = np.zeros((1, *rows.shape))
    trial[:, :, 0] = 1.0
    found = energy.hessian_products(rows, trial, grid)
    assert not found[0, 1].any()
    assert np.isfinite(found).all()
    assert np.abs(found[0, 0, 0]).max() > 1e-3


def symmetric(rng, shape):
    matrix = rng.normal(size=shape)
    return 0.1 * (matrix + np.swapaxes(matrix, -1, -2))


def central_difference_array(function, step=1e-3):
    f1, f2 = (function(k * step) - function(-k * step) for k in (1, 2))
    return (8 * f1 - f2) / (12 * step)


def assert_close(found, expected):
    assert np.abs(expected).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
