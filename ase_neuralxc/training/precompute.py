"""From a species to its stored density: the task that `scripts/prepare_xc.py` runs by thousands.

The SCF runs on a coarse grid, the energies and features of its density are then taken on a fine
one. The energy is stationary: what the coarse grid does to the density changes it by microhartree
(grid levels 1 and 3, def2-TZVP: at most 4 uHa for H2O, CH3OH, NO2, SO2, HCl, F2, O and Cl, where
the two grids themselves differ by up to 1000), and the SCF is three times faster.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf.dft.gen_grid import Grids

from ase_neuralxc.backend.atom_grid import AtomGrid
from ase_neuralxc.backend.compact_integrator import BLOCK
from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.orbital_sums import densities_of
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import NeuralXCError
from ase_neuralxc.fidelity import convergence_record, fidelity_tag, provenance
from ase_neuralxc.records import units
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.training.crystals import crystal_density
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import Species
from ase_neuralxc.training.solve import solve_species
from ase_neuralxc.training.stored import StoredDensity

#: Points with fewer electrons are left out: 1e5 of them hold 1e-6 electrons, below 1e-8 Hartree.
_NEGLIGIBLE = 1e-11
#: Densities are stored in float32 if that moves the energy by less than this, in Hartree.
ROUNDING = 1e-7
#: Energy of the SCF's grid minus that of the fine grid, relative to that of exchange and
#: correlation: lowest and highest value that is believed. For 197 species of W4-17 it was -4e-5 to
#: 5e-5; atoms whose SCF had found a state 1 to 2 kcal/mol too high, because the coarse grid makes
#: it look lower than it is, had -6e-5 to -2e-4.
_GRID_ERRORS = (-5e-5, 2e-4)
#: Largest relative error of the number of electrons on the fine grid; level 3 is 100 times better.
_ELECTRONS = 1e-3


class DensityTask:
    """The task function: SCF, features on the fine grid, energies. Travels as its settings.

    Args:
        settings: of the calculations.
    """

    def __init__(self, settings: PrepareSettings) -> None:
        self.settings = settings
        self._functional: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return DensityTask, (self.settings,)

    def __call__(self, species: Species, attempt: int = 0) -> StoredDensity:
        """Compute one species.

        Args:
            species: what to compute; a crystal is computed in GPAW (`training.crystals`).
            attempt: number of failed attempts before; later ones of molecules get three times the
                cycles, on the fine grid.

        Returns:
            Its density.

        Raises:
            NeuralXCError: the SCF did not converge, or a grid is too coarse.
        """
        if species.cell is not None:
            return crystal_density(species, self.settings)
        start = time.perf_counter()
        if self._functional is None:
            self._functional = self.settings.functional()
        solution = self._solve(species, attempt)
        seconds = time.perf_counter() - start
        stored = store_density(
            species, solution, self._functional, self.settings.grid_level, self.settings.dispersion
        )
        timing = {"scf_seconds": seconds, "seconds": time.perf_counter() - start}
        return replace(stored, provenance={**stored.provenance, **timing})

    def _solve(self, species: Species, attempt: int) -> KSSolution:
        settings = self.settings
        return solve_species(
            species,
            self._functional,
            KSSettings(
                basis=settings.basis,
                density_fit=settings.density_fit,
                grid_level=settings.grid_level if attempt else settings.scf_grid_level,
                conv_tol=settings.conv_tol,
                max_cycle=settings.max_cycle * (3 if attempt else 1),
            ),
        )


def store_density(
    species: Species,
    solution: KSSolution,
    functional: Any,
    grid_level: int,
    dispersion: Sequence[str] = (),
) -> StoredDensity:
    """Features and energies of a converged density on a grid of its own.

    Args:
        species: what was calculated.
        solution: the converged solution.
        functional: of the calculation, whose energy on the grid is stored too.
        grid_level: PySCF's level of the grid of the features.
        dispersion: dispersion energies to add, "method:damping".

    Returns:
        The density, its features in float32 where that does not hurt (see `ROUNDING`).

    Raises:
        NeuralXCError: the grid does not hold the electrons, or the grid of the SCF gives another
            energy.
    """
    mf = first_order(solution.host)
    mol = mf.mol
    grid = _fine_grid(mol, grid_level)
    orbitals, occupations = _occupied(solution)
    rows = _densities(mf._numint, mol, grid.coords, orbitals, occupations)
    electrons = float(rows[:, 0].sum(0) @ grid.weights)
    if abs(electrons - mol.nelectron) > _ELECTRONS * mol.nelectron:
        raise NeuralXCError(
            f"grid_level: expected {mol.nelectron} electrons on the grid of {species.name!r}, got "
            f"{electrons:.5f}"
        )
    # some weights of Lebedev grids are negative
    kept = rows[:, 0].sum(0) * np.abs(grid.weights) > _NEGLIGIBLE
    xc_energy = _xc_energy(mf, rows, grid.weights)
    weights = grid.weights[kept]
    rows = _narrowest(mf, rows[..., kept], weights, xc_energy)
    energies = _energies(mf, solution)
    exact = _exact_exchange(mf, solution)
    mixed = float(functional.exchange_fraction) * exact
    coarse = solution.energies["total"] - sum(energies.values()) - mixed
    check_grids(species, coarse, xc_energy)
    energies |= {"xc": xc_energy, "exact exchange": exact}
    for term in (Dispersion(*spec.split(":")) for spec in dispersion):
        energies[term.name] = term.energy(mol)
    tag = fidelity_tag(functional, solution, ())
    record = {
        **convergence_record(solution),
        **provenance(solution),
        "n_grid_points": len(grid.weights),
        "electrons_on_grid": electrons,
        "coarse_xc": coarse,
        "core_charges": mol.atom_charges().tolist(),
        "dipole": np.asarray(mf.dip_moment(mol, solution.density_matrix, "AU", verbose=0)).tolist(),
    }
    field = None
    if species.field is not None:
        field = tuple(f * units.HARTREE_BOHR_EV_ANGSTROM for f in species.field)
    return StoredDensity(
        species=species,
        fidelity=replace(
            tag,
            grid=f"pyscf level {grid_level}, SCF at level {solution.settings.grid_level}",
            external_field=field,
        ),
        energies=energies,
        provenance=record,
        atom_counts=tuple(int(np.count_nonzero(kept[part])) for part in grid.atom_slices),
        weights=weights,
        density=rows[:, 0],
        gradient=rows[:, 1:4],
        tau=rows[:, 4],
        coords=grid.coords[kept].astype(np.float32),
        atomic_weights=grid.atomic_weights[kept].astype(np.float32),
        orbitals=orbitals,
        occupations=occupations,
        orbital_energies=np.atleast_2d(solution.mo_energy),
    )


def check_grids(species: Species, coarse: float, fine: float) -> None:
    """Refuse a density whose energy on the coarse grid of its SCF is far from that on a fine one.

    Args:
        species: what was calculated.
        coarse: exchange-correlation energy on the grid of the SCF, in Hartree.
        fine: on the fine grid.

    Raises:
        NeuralXCError: the difference is larger than that of two grids for the same state.
    """
    if not _GRID_ERRORS[0] < (coarse - fine) / abs(fine) < _GRID_ERRORS[1]:
        raise NeuralXCError(
            f"scf_grid_level: expected the energy of {species.name!r} on the grid of the SCF to be "
            f"that on the fine grid, got {coarse - fine:.6f} Ha more"
        )


def _fine_grid(mol: Any, level: int) -> AtomGrid:
    grids = Grids(mol)
    grids.level = level
    grids.alignment = 1  # no padding
    return AtomGrid.of(grids.build(with_non0tab=False, sort_grids=False))


def _occupied(solution: KSSolution) -> tuple[NDArray, NDArray]:
    """Occupied orbitals [nao, m], spin up first, and their occupations [c, m] per channel."""
    coefficients = np.asarray(solution.mo_coeff)
    occupations = np.asarray(solution.mo_occ)
    if occupations.ndim == 1:
        kept = occupations > 0
        return coefficients[:, kept], occupations[None, kept]
    up, down = (n > 0 for n in occupations)
    orbitals = np.concatenate([coefficients[0][:, up], coefficients[1][:, down]], axis=1)
    numbers = np.zeros((2, orbitals.shape[1]))
    numbers[0, : up.sum()] = occupations[0][up]
    numbers[1, up.sum() :] = occupations[1][down]
    return orbitals, numbers


def _densities(
    ni: Any, mol: Any, coords: NDArray, orbitals: NDArray, occupations: NDArray
) -> NDArray:
    """[c, 5, n] density, gradient and tau of each channel."""
    out = np.empty((len(occupations), 5, len(coords)))
    for start in range(0, len(coords), BLOCK):
        part = slice(start, start + BLOCK)
        ao = ni.eval_ao(mol, coords[part], deriv=1)
        for channel, numbers in enumerate(occupations):
            own = numbers > 0
            out[channel, :, part] = densities_of(
                ao.transpose(0, 2, 1), orbitals[:, own], numbers[own]
            )
    return out


def _xc_energy(mf: Any, rows: NDArray, weights: NDArray) -> float:
    """Energy of the host's functional from [c, 5, n] densities; libxc or torch alike."""
    ni = mf._numint
    kind = ni._xc_type(mf.xc)
    given = rows if len(rows) == 2 else rows[0]
    given = given[..., 0, :] if kind == "LDA" else given[..., : 4 if kind == "GGA" else 5, :]
    exc = ni.eval_xc_eff(mf.xc, np.ascontiguousarray(given), deriv=0, xctype=kind)[0]
    return float((rows[:, 0].sum(0) * exc) @ weights)


def _narrowest(mf: Any, rows: NDArray, weights: NDArray, energy: float) -> NDArray:
    """Densities in float32 if they still give the energy, else as they are.

    Weights stay in float64: all points of a shell share theirs, and rounding does not average out.
    """
    narrow = rows.astype(np.float32)
    error = abs(_xc_energy(mf, narrow.astype(np.float64), weights) - energy)
    return narrow if error < ROUNDING else rows


def _energies(mf: Any, solution: KSSolution) -> dict[str, float]:
    """All parts but exchange and correlation, in Hartree, computed from the final density.

    The host's own summary would do, if nothing had touched it since: copies of a mean-field object
    share it, and a stability analysis leaves in it the parts of another density.
    """
    total = solution.density_matrix
    if total.ndim == 3:
        total = total.sum(0)
    known = {"nuclear", "core", "coulomb", "xc", "total"}
    return {
        "nuclear": float(mf.mol.energy_nuc()),
        "core": float(np.sum(mf.get_hcore() * total)),
        "coulomb": 0.5 * float(np.sum(mf.get_j(mf.mol, total) * total)),
        **{name: value for name, value in solution.energies.items() if name not in known},
    }


def _exact_exchange(mf: Any, solution: KSSolution) -> float:
    """Exact-exchange energy of the orbitals, in Hartree, fitted where the SCF is."""
    density = mf.make_rdm1(solution.mo_coeff, solution.mo_occ)
    exchange = np.asarray(mf.get_k(mf.mol, density))
    scale = 0.25 if exchange.ndim == 2 else 0.5
    return -scale * float(np.sum(exchange * solution.density_matrix))
