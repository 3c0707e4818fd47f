"""Linear response of torch functionals against the same quantities from libxc."""

from __future__ import annotations

import numpy as np
import pytest
from numerical import central_difference
from systems import aminyl, as_system, water

from ase_neuralxc import NeuralXC
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.derivatives.hessian import hessian
from ase_neuralxc.errors import InvalidInputError, ResponseNotConverged
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units
from ase_neuralxc.response.excitations import excitations
from ase_neuralxc.response.orbital_hessian import OrbitalHessian
from ase_neuralxc.response.polarizability import polarizability

BACKEND = MolecularBackend()
TIGHT = {"conv_tol": 1e-10, "conv_tol_grad": 1e-7, "stability": "never"}
#: closed shell, open shell, and a closed shell treated unrestricted
SYSTEMS = [("rks", water()), ("uks", aminyl()), ("uks", water())]
IDS = ["rks", "uks-open", "uks-closed"]


@pytest.mark.parametrize(
    ("reference", "atoms"), [*SYSTEMS, ("roks", aminyl())], ids=[*IDS, "roks-open"]
)
def test_polarizability_equals_field_differences_of_the_dipole(reference, atoms):
    def dipole(field):
        settings = {"electric_field": (0.0, 0.0, field * units.HARTREE_BOHR_EV_ANGSTROM)}
        calc = NeuralXC(xc="pbe", basis="6-31g", reference=reference, **settings, **TIGHT)
        return calc.get_property("dipole", atoms)[2] / units.BOHR_ANGSTROM

    settings = KSSettings(basis="6-31g", reference=reference, **TIGHT)
    tensor = polarizability(BACKEND.solve(as_system(atoms), load_functional("pbe"), settings))
    assert tensor[2, 2] > 1.0
    np.testing.assert_allclose(tensor, tensor.T, atol=1e-6)
    assert tensor[2, 2] == pytest.approx(central_difference(dipole, 2e-3), abs=2e-5)


@pytest.mark.parametrize(("reference", "atoms"), SYSTEMS, ids=IDS)
@pytest.mark.parametrize("tda", [True, False], ids=["tda", "tddft"])
def test_excitations_equal_libxc(reference, atoms, tda):
    ours, theirs = (
        excitations(NeuralXC(xc=xc, basis="6-31g", reference=reference, **TIGHT), atoms, 3, tda)
        for xc in ("r2scan", "libxc:r2scan")
    )
    assert ours.energies[-1] > 5.0
    np.testing.assert_allclose(ours.energies, theirs.energies, atol=1e-6)
    assert "oscillator" not in ours.table()
    assert len(ours.table().splitlines()) == 5


def test_singlet_and_triplet_energies_are_ordered():
    calc = NeuralXC(xc="pbe0", basis="6-31g", **TIGHT)
    singlet = excitations(calc, water(), 2)
    triplet = excitations(calc, water(), 2, triplets=True)
    assert (triplet.energies < singlet.energies).all()
    with pytest.raises(InvalidInputError, match=r"expected a closed-shell .* got UKS"):
        excitations(NeuralXC(basis="6-31g"), aminyl(), 2, triplets=True)


@pytest.mark.parametrize(("reference", "atoms"), SYSTEMS[:2], ids=IDS[:2])
def test_hessian_equals_libxc_and_force_differences(reference, atoms):
    settings = KSSettings(basis="6-31g", reference=reference, grid_level=1, **TIGHT)
    ours = hessian(BACKEND.solve(as_system(atoms), load_functional("r2scan"), settings))
    theirs = hessian(BACKEND.solve(as_system(atoms), LibxcFunctional("r2scan"), settings))
    assert np.abs(ours).max() > 0.1
    np.testing.assert_allclose(ours, theirs, atol=1e-6)

    def force(shift):
        moved = atoms.copy()
        moved.positions[1, 2] += shift * units.BOHR_ANGSTROM
        solution = BACKEND.solve(as_system(moved), load_functional("r2scan"), settings)
        return -BACKEND.forces(solution)[1, 2]

    assert ours[5, 5] == pytest.approx(central_difference(force, 1e-2), abs=3e-6)


def test_what_roks_cannot_do_is_said():
    settings = KSSettings(basis="6-31g", reference="roks")
    solution = BACKEND.solve(as_system(aminyl()), load_functional("pbe"), settings)
    with pytest.raises(InvalidInputError, match="got 'roks'"):
        hessian(solution)


def test_unconverged_response_raises_with_its_residual():
    settings = KSSettings(basis="6-31g", **TIGHT)
    solver = OrbitalHessian(BACKEND.solve(as_system(water()), load_functional("pbe"), settings))
    right = np.linspace(-1, 1, solver.size)
    with pytest.raises(ResponseNotConverged, match=r"residual is .* after \d+ products"):
        solver.solve(right, tolerance=1e-9, max_products=3)
    np.testing.assert_allclose(solver(solver.solve(right, tolerance=1e-9)), right, atol=1e-8)
    assert not solver.solve(np.zeros(solver.size)).any()


@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
def test_orbital_hessian_is_symmetric(rng, reference):
    atoms = water() if reference == "rks" else aminyl()
    settings = KSSettings(basis="6-31g", reference=reference, **TIGHT)
    solver = OrbitalHessian(BACKEND.solve(as_system(atoms), load_functional("r2scan"), settings))
    x, y = rng.normal(size=(2, solver.size))
    assert abs(x @ solver(y)) > 1e-2
    assert x @ solver(y) == pytest.approx(y @ solver(x), rel=1e-7)
