"""The molecular backend: energies against libxc, forces against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from numerical import force_by_differences
from systems import aminyl, as_system, hydrogen_iodide, water

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.terms.field import ElectricField

BACKEND = MolecularBackend()
TIGHT = {"conv_tol": 1e-10, "conv_tol_grad": 1e-7, "stability": "never"}
ENERGY_TOLERANCE = 1e-8  # Hartree
FORCE_TOLERANCE = 1e-7  # Hartree/Bohr
DIFFERENCE_TOLERANCE = 1e-6  # Hartree/Bohr
NET_FORCE_TOLERANCE = 1e-8  # Hartree/Bohr
SLOW_EXTRAS = ("ecp", "smd", "pcm")


@pytest.mark.parametrize(("name", "code"), [("pbe", "pbe"), ("r2scan", "r2scan"), ("pbe0", "pbe0")])
@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
def test_energy_and_forces_equal_libxc(name, code, reference):
    atoms = water() if reference == "rks" else aminyl()
    settings = KSSettings(basis="6-31g", reference=reference, **TIGHT)
    ours = BACKEND.solve(as_system(atoms), load_functional(name), settings)
    theirs = BACKEND.solve(as_system(atoms), LibxcFunctional(code), settings)
    assert ours.energy == pytest.approx(theirs.energy, abs=ENERGY_TOLERANCE)
    forces = BACKEND.forces(theirs)
    assert np.abs(forces).max() > 1e-3
    np.testing.assert_allclose(BACKEND.forces(ours), forces, rtol=0, atol=FORCE_TOLERANCE)


@pytest.mark.parametrize("density_fit", [False, True], ids=["exact", "df"])
@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
@pytest.mark.parametrize(
    "extra",
    ["none", "d3", "field", *(pytest.param(x, marks=pytest.mark.slow) for x in SLOW_EXTRAS)],
)
def test_forces_equal_finite_differences(reference, density_fit, extra):
    basis, solvent, terms = "6-31g", None, ()
    atoms = water() if reference == "rks" else aminyl()
    if extra == "ecp":
        basis, atoms = "def2-svp", hydrogen_iodide()
    elif extra in ("smd", "pcm"):
        solvent = {"smd": "water", "pcm": "pcm:78.4"}[extra]
    elif extra == "d3":
        terms = (Dispersion("d3bj", "r2scan"),)
    elif extra == "field":
        terms = (ElectricField((0.01, -0.005, 0.02)),)
    state = {"charge": 1} if extra == "ecp" and reference != "rks" else {}
    settings = KSSettings(
        basis=basis, reference=reference, density_fit=density_fit, solvent=solvent, **TIGHT
    )
    functional = load_functional("r2scan")
    solution = BACKEND.solve(as_system(atoms, **state), functional, settings, terms)
    forces = BACKEND.forces(solution)

    def energy(structure):
        return BACKEND.solve(
            as_system(structure, **state), functional, settings, terms, solution.density_matrix
        ).energy

    step = 2e-3 * units.BOHR_ANGSTROM
    expected = force_by_differences(energy, atoms, 1, 2, step) * units.BOHR_ANGSTROM
    assert abs(expected) > 1e-3
    assert forces[1, 2] == pytest.approx(expected, abs=DIFFERENCE_TOLERANCE)
    net = forces.sum(axis=0)
    if extra == "field":
        net = net - state.get("charge", 0) * np.array(terms[0].field)
    assert np.abs(net).max() < NET_FORCE_TOLERANCE


def test_itemised_energies_add_up():
    term = Dispersion("d4", "r2scan")
    solution = BACKEND.solve(
        as_system(water()), load_functional("r2scan"), KSSettings(basis="6-31g"), (term,)
    )
    items = dict(solution.energies)
    total = items.pop("total")
    assert set(items) == {"nuclear", "core", "coulomb", "xc", "d4(r2scan)"}
    assert sum(items.values()) == pytest.approx(total, abs=1e-10)
    assert items["d4(r2scan)"] == pytest.approx(term.energy(solution.host.mol), abs=1e-12)
    assert items["xc"] == pytest.approx(-9.3, abs=0.3)


@pytest.mark.parametrize("solvent", ["water", "pcm:78.4"])
def test_the_solvent_is_an_item_of_its_own(solvent):
    settings = KSSettings(basis="6-31g", solvent=solvent)
    solution = BACKEND.solve(as_system(water()), load_functional("r2scan"), settings)
    xc = solution.host.get_veff(solution.host.mol, solution.density_matrix).exc
    assert solution.energies["xc"] == pytest.approx(float(xc), abs=1e-8)
    assert -0.03 < solution.energies["solvent"] < -0.003  # Hartree: some kcal/mol


@pytest.mark.parametrize(
    ("atoms", "state"),
    [(aminyl(), {}), (Atoms("O"), {"n_unpaired": 2}), (Atoms("B"), {"n_unpaired": 1})],
    ids=["NH2", "O", "B"],
)
def test_itemised_energies_are_those_of_the_density(atoms, state):
    # atoms with a flat mode: energies of trial rotations must not be left in the items
    settings = KSSettings(basis="6-31g", stability="always", conv_tol=1e-10)
    solution = BACKEND.solve(as_system(atoms, **state), load_functional("pbe"), settings)
    mf, density = solution.host, solution.density_matrix
    total = density.sum(axis=0)
    coulomb = 0.5 * np.sum(total * mf.get_j(mf.mol, total))
    assert solution.energies["core"] == pytest.approx(np.sum(total * mf.get_hcore()), abs=1e-8)
    assert solution.energies["coulomb"] == pytest.approx(coulomb, abs=1e-8)


def test_history_names_the_strategy_that_won():
    solution = BACKEND.solve(as_system(water()), load_functional("pbe"), KSSettings(basis="6-31g"))
    (attempt,) = solution.history
    assert attempt.strategy == "diis"
    assert attempt.converged
    assert solution.cycles == attempt.cycles > 3


def test_cuda_without_gpu_is_a_clear_error():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InvalidInputError, match="device: expected a device that torch can use"):
        BACKEND.solve(
            as_system(water()), load_functional("pbe"), KSSettings(basis="6-31g", device="cuda")
        )
