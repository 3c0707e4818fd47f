"""Response with a nonlocal functional: second derivatives that no pointwise kernel could give."""

from __future__ import annotations

import numpy as np
import pytest
from functionals import AtomMoments
from numerical import central_difference
from systems import aminyl, as_system, water

from ase_neuralxc import NeuralXC
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.response.excitations import excitations
from ase_neuralxc.response.polarizability import polarizability
from ase_neuralxc.terms.field import ElectricField

SETTINGS = {
    "basis": "6-31g", "grid_level": 0, "conv_tol": 1e-11, "conv_tol_grad": 1e-7,
    "stability": "never",
}  # fmt: skip


@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
def test_polarizability_is_the_change_of_the_dipole_with_the_field(reference):
    backend, functional = MolecularBackend(), AtomMoments()
    system = as_system(water() if reference == "rks" else aminyl())
    settings = KSSettings(reference=reference, **SETTINGS)
    solution = backend.solve(system, functional, settings)
    found = polarizability(solution)
    assert found == pytest.approx(found.T, abs=1e-6)

    def dipole(strength):
        field = ElectricField((0.0, strength, 0.0))
        bent = backend.solve(system, functional, settings, (field,), solution.density_matrix)
        return bent.host.dip_moment(unit="AU", verbose=0)[1]

    expected = central_difference(dipole, 1e-3)
    assert expected > 1.0
    assert found[1, 1] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tda", [True, False], ids=["tda", "tddft"])
def test_singlets_and_triplets_are_the_excitations_of_both_spins(tda):
    """The same closed shell with two kernels: of total and spin density, and of both spins."""
    atoms = water()
    closed, both = (
        NeuralXC(xc=AtomMoments(), reference=reference, **SETTINGS) for reference in ("rks", "uks")
    )
    parts = [excitations(closed, atoms, 2, tda, triplets).energies for triplets in (False, True)]
    expected = np.sort(np.concatenate(parts))
    assert np.diff(expected).min() > 0.01
    found = excitations(both, atoms, 3, tda).energies
    np.testing.assert_allclose(found[:2], expected[:2], rtol=0, atol=1e-4)
