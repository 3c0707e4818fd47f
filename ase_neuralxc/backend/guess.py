"""Initial density matrices, among them broken-symmetry ones from signed atomic moments."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.system import System


def initial_density(mf: Any, system: System, reference: str) -> NDArray:
    """Starting density matrix for a host object.

    Without moments it is PySCF's minimal-basis guess. With moments m_A it is the superposition of
    spherical atoms whose blocks are split as (1 +- m_A / N_A) / 2, N_A being the electrons of the
    atom, so that the moments have the requested sizes and signs.

    Args:
        mf: PySCF mean-field object.
        system: atoms and resolved spin state.
        reference: "rks", "uks" or "roks".

    Returns:
        [nao, nao] for RKS, else [2, nao, nao].
    """
    moments = np.asarray(system.spin_state.magmoms or 0.0, dtype=float)
    if reference == "rks" or np.abs(moments).max() < 1e-8:
        return np.asarray(mf.get_init_guess(mf.mol, "minao"))
    mol = mf.mol
    total = np.asarray(mf.get_init_guess(mol, "atom"))
    if total.ndim == 3:
        total = total[0] + total[1]
    up, down = 0.5 * total, 0.5 * total
    for atom, (_, _, start, stop) in enumerate(mol.aoslice_by_atom()):
        share = np.clip(moments[atom] / max(mol.atom_charge(atom), 1), -1.0, 1.0)
        up[start:stop, start:stop] *= 1 + share
        down[start:stop, start:stop] *= 1 - share
    return np.stack([up, down])
