"""Numerical derivatives that tests share."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from ase import Atoms


def central_difference(function: Callable[[float], float], step: float) -> float:
    """Fourth-order central difference of a scalar function at zero."""
    f1, f2 = (function(k * step) - function(-k * step) for k in (1, 2))
    return (8 * f1 - f2) / (12 * step)


def force_by_differences(
    energy: Callable[[Atoms], float], atoms: Atoms, atom: int, axis: int, step: float
) -> float:
    """Force component as minus the fourth-order difference of the energy.

    Args:
        energy: energy of a structure.
        atoms: the structure.
        atom: index of the displaced atom.
        axis: 0, 1 or 2.
        step: displacement in Angstrom.

    Returns:
        Force in units of the energy per Angstrom.
    """

    def displaced(shift: float) -> float:
        copy = atoms.copy()
        copy.positions[atom, axis] += shift
        return energy(copy)

    force = -central_difference(displaced, step)
    assert np.isfinite(force)
    return force
