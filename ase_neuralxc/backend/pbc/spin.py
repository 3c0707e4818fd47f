"""The spin state of a periodic system: reference, initial moments, total moment free or fixed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ase_neuralxc.backend.collinear import collinear_moments, periodic_reference
from ase_neuralxc.backend.pbc.settings import PeriodicSettings
from ase_neuralxc.backend.system import System, resolve_spin
from ase_neuralxc.errors import InvalidInputError


@dataclass(frozen=True)
class PeriodicSpin:
    """How the electrons are dealt out.

    Attributes:
        system: the system with its initial moments, one per atom or None.
        reference: "rks" or "uks".
        moment: total moment per cell in mu_B that is held, or None for a free one.
    """

    system: System
    reference: str
    moment: float | None


def resolve_periodic_spin(
    system: System, settings: PeriodicSettings, electrons: int, points: int
) -> PeriodicSpin:
    """Choose the reference, and check that the electrons can be dealt out.

    A multiplicity fixes the total moment of the cell. Without one the moment is free in a
    calculation with smearing; without smearing, and in a molecule, it is the rounded sum of the
    initial moments, because whole occupations need whole numbers.

    Args:
        system: atoms and spin state as given.
        settings: reference and smearing.
        electrons: valence electrons of the cell.
        points: number of k-points.

    Returns:
        The resolved spin.

    Raises:
        InvalidInputError: moments or a multiplicity that the electrons cannot have, or whole
            occupations of a number of electrons (over all k-points) that cannot be dealt out.
    """
    if not system.periodic:
        system = resolve_spin(system)
    state = system.spin_state
    given = collinear_moments(state, len(system.numbers))
    moments = np.zeros(len(system.numbers)) if given is None else given
    reference = periodic_reference(settings.reference, state, moments)
    if reference == "rks":
        if settings.smearing is None and electrons * points % 2:
            raise InvalidInputError(
                f"smearing: expected a width, initial magnetic moments or a multiplicity for an "
                f"odd number of electrons over all k-points, got {electrons} per cell at {points} "
                "k-point(s)"
            )
        return PeriodicSpin(replace(system, spin_state=replace(state, magmoms=None)), "rks", None)
    fixed = state.n_unpaired is not None
    if moments.sum() < 0 and fixed:
        moments = -moments
    if not fixed and settings.smearing is None:
        system = resolve_spin(system)
        state = system.spin_state
        fixed = True
    moment = float(state.pyscf_spin) if fixed else None
    if moment is not None and moment > electrons:
        raise InvalidInputError(
            f"multiplicity: {moment + 1:g} is impossible with {electrons} valence electrons"
        )
    if moment is not None and settings.smearing is None and (electrons - moment) * points % 2:
        raise InvalidInputError(
            f"multiplicity: {moment + 1:g} is impossible with {electrons} electrons per cell at "
            f"{points} k-point(s) without smearing"
        )
    magmoms = None if given is None else tuple(float(m) for m in moments)
    system = replace(system, spin_state=replace(system.spin_state, magmoms=magmoms))
    return PeriodicSpin(system, "uks", moment)
