"""Static dipole polarisability from the coupled-perturbed Kohn-Sham equations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.scf import cphf, ucphf

from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import InvalidInputError


def polarizability(solution: KSSolution, tolerance: float = 1e-8) -> NDArray:
    """Static polarisability, the second derivative -d2E/dF dF.

    Args:
        solution: an RKS or UKS solution.
        tolerance: residual of the coupled-perturbed equations.

    Returns:
        [3, 3] in Bohr^3.

    Raises:
        InvalidInputError: ROKS.
    """
    mf = first_order(solution.host)
    mol = mf.mol
    with mol.with_common_origin((0, 0, 0)):
        dipole = mol.intor_symmetric("int1e_r", comp=3)
    if solution.reference == "rks":
        return _restricted(mf, dipole, tolerance)
    if solution.reference == "uks":
        return _unrestricted(mf, dipole, tolerance)
    raise InvalidInputError("polarizability: available for 'rks' and 'uks', got 'roks'")


def _restricted(mf: Any, dipole: NDArray, tolerance: float) -> NDArray:
    occupied, virtual = _split(mf.mo_coeff, mf.mo_occ)
    right = np.einsum("pa,xpq,qi->xai", virtual, dipole, occupied)
    response = mf.gen_response(hermi=1)

    def induced(flat: NDArray) -> NDArray:
        u = flat.reshape(-1, virtual.shape[1], occupied.shape[1])
        change = 2 * np.einsum("pa,xai,qi->xpq", virtual, u, occupied)
        v = response(change + change.transpose(0, 2, 1))
        return np.einsum("pa,xpq,qi->xai", virtual, v, occupied).reshape(len(u), -1)

    u = cphf.solve(induced, mf.mo_energy, mf.mo_occ, right, tol=tolerance, max_cycle=60)[0]
    return -4 * np.einsum("xai,yai->xy", right, u.reshape(right.shape))


def _unrestricted(mf: Any, dipole: NDArray, tolerance: float) -> NDArray:
    spaces = [_split(c, o) for c, o in zip(mf.mo_coeff, mf.mo_occ, strict=True)]
    right = [np.einsum("pa,xpq,qi->xai", v, dipole, o) for o, v in spaces]
    sizes = [r[0].size for r in right]
    response = mf.gen_response(hermi=1)

    def induced(flat: NDArray) -> NDArray:
        vectors = flat.reshape(-1, sum(sizes))
        parts = (vectors[:, : sizes[0]], vectors[:, sizes[0] :])
        changes = []
        for part, r, (o, v) in zip(parts, right, spaces, strict=True):
            change = np.einsum("pa,xai,qi->xpq", v, part.reshape(-1, *r.shape[1:]), o)
            changes.append(change + change.transpose(0, 2, 1))
        potential = response(np.stack(changes))
        columns = [
            np.einsum("pa,xpq,qi->xai", v, potential[s], o).reshape(len(vectors), -1)
            for s, (o, v) in enumerate(spaces)
        ]
        return np.concatenate(columns, axis=1)

    solved = ucphf.solve(induced, mf.mo_energy, mf.mo_occ, right, tol=tolerance, max_cycle=60)[0]
    return -2 * sum(
        np.einsum("xai,yai->xy", r, u.reshape(r.shape)) for r, u in zip(right, solved, strict=True)
    )


def _split(coefficients: NDArray, occupations: NDArray) -> tuple[NDArray, NDArray]:
    return coefficients[:, occupations > 0], coefficients[:, occupations == 0]
