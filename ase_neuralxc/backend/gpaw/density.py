"""The density of a GPAW calculation as one array: for files, and for structures that moved."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack_density(density: Any) -> NDArray:
    """Pseudo-density and tau without their cores, and the atomic density matrices, one by one.

    The cores move with the atoms; what is left changes little where the atoms do.

    Args:
        density: GPAW's `Density`.

    Returns:
        [m] numbers.
    """
    return np.concatenate([part.ravel() for part in _parts(density)])


def unpack_density(density: Any, packed: NDArray, background: float) -> bool:
    """Put a packed density in the place of superposed atoms.

    Args:
        density: GPAW's `Density` of the new structure; changed in place.
        packed: from `pack_density`.
        background: GPAW's background charge.

    Returns:
        Whether the sizes agreed; if not, nothing is changed.
    """
    parts = _parts(density)
    sizes = [part.size for part in parts]
    if packed.ndim != 1 or packed.size != sum(sizes):
        return False
    new = np.split(packed, np.cumsum(sizes)[:-1])
    spins = density.ndensities
    density.nt_sR.data[:] = new[0].reshape(parts[0].shape)
    density.nt_sR.data[:spins] += density.nct_R.data
    density.D_asii.data[:] = new[1].reshape(parts[1].shape)
    if density.taut_sR is not None:
        density.taut_sR.data[:] = new[2].reshape(parts[2].shape)
        density.taut_sR.data[:spins] += density.tauct_R.data
    density.normalize(background)
    return True


def _parts(density: Any) -> list[NDArray]:
    spins = density.ndensities
    smooth = density.nt_sR.data.copy()
    smooth[:spins] -= density.nct_R.data
    parts = [smooth, density.D_asii.data]
    if density.taut_sR is not None:
        tau = density.taut_sR.data.copy()
        tau[:spins] -= density.tauct_R.data
        parts.append(tau)
    return parts
