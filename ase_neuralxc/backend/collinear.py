"""Initial magnetic moments and what follows from them, the same for every host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState

#: Initial moments below this (mu_B) ask for no spin polarisation.
NO_MOMENT = 1e-8


def collinear_moments(state: SpinState, n_atoms: int) -> NDArray | None:
    """Initial moments of a spin state.

    Args:
        state: the spin state.
        n_atoms: number of atoms.

    Returns:
        [n_atoms] in mu_B, or None where there are none.

    Raises:
        InvalidInputError: another number of moments, or vectors.
    """
    if state.magmoms is None:
        return None
    moments = np.asarray(state.magmoms, dtype=float)
    if moments.shape != (n_atoms,):
        raise InvalidInputError(
            f"magmoms: expected one collinear moment per atom, shape ({n_atoms},), got "
            f"{moments.shape}"
        )
    return moments


def periodic_reference(asked: str, state: SpinState, moments: NDArray) -> str:
    """Reference of a crystal: what was asked for, or what the spin state asks for.

    Args:
        asked: "auto", "rks" or "uks".
        state: the spin state.
        moments: [n_atoms] initial moments in mu_B.

    Returns:
        "rks" or "uks".

    Raises:
        InvalidInputError: "rks" with unpaired electrons.
    """
    if asked == "auto":
        polarised = bool(state.n_unpaired) or np.abs(moments).max() > NO_MOMENT
        return "uks" if polarised else "rks"
    if asked == "rks" and state.n_unpaired:
        raise InvalidInputError(
            f"reference: 'rks' needs a closed shell, got {state.n_unpaired} unpaired electrons; "
            "use 'uks'"
        )
    return asked
