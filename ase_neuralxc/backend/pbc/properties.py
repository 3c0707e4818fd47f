"""What a converged k-point calculation says besides energies: populations, levels, dipole."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.errors import InvalidInputError


def populations(solution: KSSolution) -> tuple[NDArray, NDArray]:
    """Loewdin charges and moments, S^1/2 D S^1/2 averaged over the k-points.

    Args:
        solution: a converged solution.

    Returns:
        Charges [n_atoms] in e and moments [n_atoms] in mu_B; their sums are the charge of the cell
        and its moment.
    """
    mf = solution.host
    cell = mf.cell
    spins = _spins(np.asarray(solution.density_matrix))
    by_orbital = np.zeros((2, cell.nao))
    for k, overlap in enumerate(np.asarray(mf.get_ovlp())):
        root = scipy.linalg.sqrtm(overlap)
        by_orbital += np.einsum("pi,sij,jp->sp", root, spins[:, k], root).real / len(mf.kpts)
    slices = cell.aoslice_by_atom()[:, 2:]
    by_atom = np.array([by_orbital[:, start:stop].sum(axis=1) for start, stop in slices])
    return cell.atom_charges() - by_atom.sum(axis=1), by_atom[:, 0] - by_atom[:, 1]


def total_moment(solution: KSSolution) -> float:
    """Total moment of the cell in mu_B."""
    occupations = np.asarray(solution.mo_occ)
    if occupations.ndim == 2:
        return 0.0
    return float((occupations[0] - occupations[1]).sum() / occupations.shape[1])


def box_dipole(solution: KSSolution) -> NDArray:
    """Dipole of a neutral molecule in its box, [3] in e*Bohr.

    Every point of the density belongs to the image of the molecule whose centre is nearest.

    Args:
        solution: a converged solution of a system that is not periodic.

    Returns:
        The dipole, from negative to positive charge.
    """
    mf = solution.host
    cell, grids = mf.cell, mf.grids
    positions, charges = cell.atom_coords(), cell.atom_charges()
    centre = 0.5 * (positions.max(axis=0) + positions.min(axis=0))
    lattice = cell.lattice_vectors()
    fractions = (grids.coords - centre) @ np.linalg.inv(lattice)
    nearest = (fractions - np.round(fractions)) @ lattice
    electrons = (density_on_grid(solution) * grids.weights) @ nearest
    return charges @ (positions - centre) - electrons


def density_on_grid(solution: KSSolution) -> NDArray:
    """Valence density at the points of the grid, [n] in electrons/Bohr^3."""
    mf = solution.host
    total = _spins(np.asarray(solution.density_matrix)).sum(axis=0)
    rho = mf._numint.get_rho(mf.cell, total, mf.grids, mf.kpts, mf.max_memory)
    return np.asarray(rho).real


def spectrum(solution: KSSolution) -> dict[str, Any]:
    """Levels of a converged solution.

    Args:
        solution: a converged solution.

    Returns:
        In Hartree: "eigenvalues" [spins, nk, nmo], "fermi_level" (one number, or two where the
        total moment is fixed), "band_gap" (0 or a small number for a metal, the smaller one of two
        spins); "kpoints" [nk, 3] in units of the reciprocal vectors, "weights" [nk].
    """
    mf = solution.host
    energies = np.asarray(solution.mo_energy)
    points = len(mf.kpts)
    levels = mf.levels
    return {
        "eigenvalues": energies if energies.ndim == 3 else energies[None],
        "fermi_level": float(levels[0]) if len(levels) == 1 else np.asarray(levels),
        "band_gap": float(max(mf.gap, 0.0)),
        "kpoints": mf.cell.get_scaled_kpts(mf.kpts),
        "weights": np.full(points, 1.0 / points),
    }


def bands(solution: KSSolution, kpoints: NDArray) -> NDArray:
    """Band energies at any k-points, from the converged potential.

    Args:
        solution: a converged solution of a periodic system.
        kpoints: [n, 3] in units of the reciprocal vectors.

    Returns:
        [spins, n, nmo] in Hartree.

    Raises:
        InvalidInputError: not [n, 3], or the system is not periodic.
    """
    kpoints = np.asarray(kpoints, dtype=float)
    if kpoints.ndim != 2 or kpoints.shape[1] != 3 or not solution.system.periodic:
        raise InvalidInputError(
            f"kpoints: expected [n, 3] points of a periodic system, got {kpoints.shape} with pbc = "
            f"{list(solution.system.pbc)}"
        )
    mf = solution.host
    found = mf.get_bands(mf.cell.get_abs_kpts(kpoints), dm_kpts=solution.density_matrix)[0]
    energies = np.asarray(found)
    return energies if energies.ndim == 3 else energies[None]


def _spins(density_matrix: NDArray) -> NDArray:
    """[2, nk, nao, nao] from either form."""
    if density_matrix.ndim == 4:
        return density_matrix
    return 0.5 * np.stack([density_matrix, density_matrix])
