"""Densities of crystals for the training of semi-local functionals, from GPAW.

Training on molecules leaves a functional free where metals and salts are: lattice constants of
candidates with the same errors for molecules differed by several per cent. A crystal is a species
with a cell; its points are those of the plane-wave calculation, behind the clamps, so that what a
functional gives there is its energy in that host at this density. Energies of molecules are
absolute, those of crystals GPAW's: reactions are between crystals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from numpy.typing import NDArray

from ase_neuralxc.backend.clamps import ClampedEvaluator, DensityClamps
from ase_neuralxc.backend.gpaw.points import xc_points
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw_pw import GPAWBackend
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.fidelity import convergence_record, fidelity_tag, provenance
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import SpinState
from ase_neuralxc.training.compression import gradients_from
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import Species
from ase_neuralxc.training.stored import StoredDensity

#: One protocol for metals, semiconductors and salts; with k-points as below.
GPAW = GPAWSettings(ecut=400.0, smearing=0.1)
#: Bounds behind which the points are kept: those of calculations.
CLAMPS = DensityClamps()
#: k-points times atoms, roughly: their number does not jump from one volume to another.
KPOINTS_PER_ATOM = 512


def crystal_density(species: Species, settings: PrepareSettings) -> StoredDensity:
    """Converge a crystal in GPAW and store its points.

    Args:
        species: with a cell and a charge of zero. Unpaired electrons, if any, are a start, evenly
            spread over the atoms: the moment is free.
        settings: the starting functional, which has to be one that torch evaluates as well, and
            the names of dispersion energies, which are zero here: neither crystals nor their
            labels have any.

    Returns:
        The density; without coordinates, atoms and orbitals.

    Raises:
        InvalidInputError: a charge, no cell, or a starting functional with exact exchange.
        NeuralXCError: the SCF did not converge, or the points do not give its energy.
    """
    if species.charge or species.cell is None:
        raise InvalidInputError(
            f"species: expected a neutral crystal, got {species.name!r} with charge "
            f"{species.charge} and the cell {species.cell}"
        )
    functional: Any = load_functional(settings.xc.removeprefix("libxc:"))
    n_atoms, unpaired = len(species.symbols), species.multiplicity - 1
    system = System(
        np.array([atomic_numbers[s] for s in species.symbols]),
        np.array(species.positions),
        SpinState(magmoms=(unpaired / n_atoms,) * n_atoms if unpaired else None),
        np.array(species.cell),
        (True, True, True),
    )
    count = round((KPOINTS_PER_ATOM / n_atoms) ** (1 / 3))
    protocol = replace(GPAW, kpts={"size": (count,) * 3, "gamma": True}, clamps=CLAMPS)
    solution = GPAWBackend().solve(system, functional, protocol)
    points = xc_points(solution.host)
    share, arrays = _as_seen([points.density, points.sigma, points.tau])
    weights = points.weights[share > 0] * share[share > 0]
    density, sigma, tau = arrays
    channels = len(density)
    energy = evaluate_invariants(functional, arrays, channels == 2, 0)[0]
    xc = float(weights @ energy)
    expected = solution.energies["xc"] - points.constant
    if abs(xc - expected) > 1e-6:
        raise NeuralXCError(
            f"species: expected the energy {expected:.6f} Ha of GPAW from the points of "
            f"{species.name!r}, got {xc:.6f}"
        )
    gradient = np.zeros((channels, 3, weights.size))
    gradient[:, :2] = gradients_from(sigma, channels)
    return StoredDensity(
        species=species,
        fidelity=fidelity_tag(functional, solution, ()),
        energies={
            "host": solution.energies["total"] - xc,
            "xc": xc,
            **{name.replace(":", "(") + ")": 0.0 for name in settings.dispersion},
        },
        provenance={**convergence_record(solution), **provenance(solution)},
        atom_counts=(),
        weights=weights,
        density=density,
        gradient=gradient,
        tau=tau,
        coords=np.zeros((0, 3)),
        atomic_weights=np.zeros(0),
        orbitals=np.zeros((0, 0)),
        occupations=np.zeros((channels, 0)),
        orbital_energies=np.asarray(solution.mo_energy).reshape(channels, -1),
    )


def _as_seen(arrays: list[NDArray]) -> tuple[NDArray, list[NDArray]]:
    """Which share of each point counts, and those that do as a functional sees them."""
    seen: list[NDArray] = []

    def keep(given: Sequence[NDArray], polarised: bool) -> tuple[NDArray, NDArray]:
        seen.extend(np.array(a) for a in given)
        # an energy density of one comes back as the share
        return np.ones(given[0].shape[1]), np.zeros((sum(map(len, given)), given[0].shape[1]))

    evaluate = ClampedEvaluator(keep, CLAMPS, block=arrays[0].shape[1])
    share, _ = evaluate(arrays, len(arrays[0]) == 2)
    return share, seen
