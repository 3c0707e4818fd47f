"""The orbital gradient at which an SCF stopped, without another Fock matrix.

PySCF's kernels measure the gradient with the Fock matrix of the final density, but do not keep it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib


class _RemembersGradient:
    """Mean-field mixin that remembers the norm of the last gradient, and of which orbitals."""

    __name_mixin__ = "RemembersGradient"
    _keys = {"last_gradient"}
    last_gradient: tuple[NDArray, float] | None = None

    def get_grad(self, mo_coeff: Any, mo_occ: Any, fock: Any = None) -> NDArray:
        """Orbital gradient, as the host computes it."""
        gradient = super().get_grad(mo_coeff, mo_occ, fock)  # type: ignore[misc]
        self.last_gradient = (mo_coeff, float(np.linalg.norm(gradient)))
        return np.asarray(gradient)


def remember_gradient(mf: Any) -> Any:
    """Make a host object remember its orbital gradients for `gradient_norm`.

    Args:
        mf: PySCF mean-field object.

    Returns:
        The same object, extended.
    """
    return lib.set_class(mf, (_RemembersGradient, mf.__class__))


def gradient_norm(mf: Any) -> float:
    """Norm of the orbital gradient (Hartree) of the orbitals that a host object holds.

    Args:
        mf: PySCF mean-field object after its kernel.

    Returns:
        The value that the kernel found for these very orbitals, else one computed anew (with the
        Fock matrix of `get_fock`: PySCF's `get_grad` alone forgets the solvent).
    """
    known = getattr(mf, "last_gradient", None)
    if known is not None and known[0] is mf.mo_coeff:
        return float(known[1])
    fock = mf.get_fock(dm=mf.make_rdm1())
    return float(np.linalg.norm(mf.get_grad(mf.mo_coeff, mf.mo_occ, fock)))
