"""From a species of a reaction to a converged solution, fast for molecules of this size."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.data import atomic_numbers

from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.nonlocal_hook import NonlocalNumInt
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.backend.system import System
from ase_neuralxc.records import SpinState
from ase_neuralxc.terms.field import ElectricField
from ase_neuralxc.training.dense import use_dense_products
from ase_neuralxc.training.reactions import Species


class DenseBackend(MolecularBackend):
    """The molecular backend with fitting integrals made once and dense matrix products.

    Nonlocal functionals keep their own integrator.
    """

    def _mean_field(self, *args: Any) -> Any:
        mf = super()._mean_field(*args)
        if not isinstance(mf._numint, NonlocalNumInt):
            mf = use_dense_products(mf)
        if hasattr(mf, "with_df"):
            mf.with_df.build()
        return mf


def system_of(species: Species) -> System:
    """Atoms and spin state of a species; its field is a term of the energy (see `terms_of`)."""
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
    return DenseBackend().solve(system_of(species), functional, settings, terms=terms_of(species))
