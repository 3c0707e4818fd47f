"""From a species of a reaction to a converged solution, fast for molecules of this size."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import atomic_numbers

from ase_neuralxc.backend.compact_integrator import CompactIntegration, use_compact_integration
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState
from ase_neuralxc.terms.field import ElectricField
from ase_neuralxc.training.reactions import Species

#: Bytes for the orbitals on the grid, kept between cycles.
CACHE = 1.5e9


class RoomyBackend(MolecularBackend):
    """The molecular backend with more memory for the orbitals on the grid and for fitting.

    Functionals of libxc get the integrator of the torch functionals too.
    """

    fitting_bytes = 1e9

    def mean_field(self, *args: Any) -> Any:
        """As the parent's, with more memory and the compact integrator."""
        mf = super().mean_field(*args)
        if isinstance(args[1], LibxcFunctional):
            mf = use_compact_integration(mf)
        if isinstance(mf._numint, CompactIntegration):
            mf._numint.cache_bytes = CACHE
        return mf


def system_of(species: Species) -> System:
    """Atoms and spin state of a species; its field is a term of the energy (see `terms_of`).

    Args:
        species: a molecule.

    Returns:
        The system.

    Raises:
        InvalidInputError: a crystal.
    """
    if species.cell is not None:
        raise InvalidInputError(
            f"species: expected a molecule, got {species.name!r} with the cell {species.cell}"
        )
    return System(
        np.array([atomic_numbers[s] for s in species.symbols]),
        np.array(species.positions),
        SpinState.from_multiplicity(species.multiplicity, species.charge),
    )


def terms_of(species: Species) -> tuple[Any, ...]:
    """Energy terms that belong to a species."""
    return () if species.field is None else (ElectricField(species.field),)


def solve_species(species: Species, functional: Any, settings: KSSettings) -> KSSolution:
    """Converge the SCF of a species from the standard guess.

    Args:
        species: what to calculate.
        functional: of torch or libxc.
        settings: basis, grid, tolerances.

    Returns:
        The converged solution.

    Raises:
        InvalidInputError: inconsistent input.
        SCFNotConverged: no strategy converged.
    """
    return RoomyBackend().solve(system_of(species), functional, settings, terms=terms_of(species))
