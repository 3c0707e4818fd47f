"""The remembered orbital gradient against one from a Fock matrix built anew."""

from __future__ import annotations

import numpy as np
import pytest
from systems import aminyl, as_system, water

from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.orbital_gradient import gradient_norm
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.functional import load_functional

TOLERANCE = 1e-9  # Hartree


@pytest.mark.parametrize("solvent", [None, "pcm:78.4", "water"], ids=["gas", "pcm", "smd"])
@pytest.mark.parametrize("reference", ["rks", "uks", "roks"])
def test_the_gradient_is_that_of_the_final_fock_matrix(reference, solvent):
    atoms = water() if reference == "rks" else aminyl()
    settings = KSSettings(basis="sto-3g", reference=reference, solvent=solvent, conv_tol=1e-6)
    solution = MolecularBackend().solve(as_system(atoms), load_functional("pbe"), settings)
    (attempt,) = solution.history  # no strategy after the first was needed
    mf = solution.host
    fock = mf.get_hcore() + np.asarray(mf.get_veff(mf.mol, mf.make_rdm1()))
    if solvent is not None:
        fock = fock + mf.with_solvent.v
    expected = np.linalg.norm(mf.get_grad(mf.mo_coeff, mf.mo_occ, fock))
    assert expected > 100 * TOLERANCE
    assert attempt.gradient_norm == pytest.approx(expected, abs=TOLERANCE)
    mf.last_gradient = None
    assert gradient_norm(mf) == pytest.approx(expected, abs=TOLERANCE)
