"""Internal stability: is a stationary point a minimum with respect to its own kind of orbitals?

The lowest eigenvector of the orbital Hessian (Seeger and Pople, JCP 66, 3045 (1977)) is found with
a coarse quadrature grid, which is enough to see a direction that leads downhill; whether it does is
then decided by energies on the grid of the calculation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib

#: Elements whose open d or f shells make several self-consistent solutions likely.
OPEN_SHELLS = frozenset({*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 113)})
#: Gaps (Hartree) below which another solution may be near, of closed and of open shells.
#: Semi-local functionals give ordinary molecules more than the first and ordinary radicals more
#: than the second; a hole in degenerate orbitals, as in OH, gives less.
CLOSED_GAP, OPEN_GAP = 0.05, 0.1
#: Grid level of the Hessian.
COARSE_LEVEL = 0
#: An eigenvalue (Hartree) this close to zero is decided by the full grid: rotations of degenerate
#: orbitals have zero, which the orientation of a coarse grid shifts.
SOFT = 0.005
#: Solutions with a higher eigenvalue are minima.
FLAT = 1e-4
#: Largest element (radian) of the first rotation along an unstable mode; it is doubled as long as
#: the energy falls. The rise by the fourth order can begin early.
FIRST_ROTATION = 0.05
#: An energy (Hartree) must fall by this much to count as lower.
LOWER = 1e-6


@dataclass(frozen=True)
class Mode:
    """Lowest mode of the orbital Hessian.

    Attributes:
        eigenvalue: Hartree; negative if the solution is unstable.
        vector: packed rotations, normalised.
    """

    eigenvalue: float
    vector: NDArray


def has_second_derivatives(mf: Any) -> bool:
    """Whether the functional of a host object can be differentiated twice."""
    integrator = getattr(mf, "_numint", None)
    return integrator is None or bool(integrator.libxc.test_deriv_order(mf.xc, 2))


def coarse_newton(mf: Any, grid_level: int | None = COARSE_LEVEL) -> Any:
    """PySCF's second-order solver with its own, coarser grid for the response of the orbitals.

    Args:
        mf: first-order host object; energies and Fock matrices stay on its grid.
        grid_level: grid level of the response; None, or one that is not coarser, keeps the grid.

    Returns:
        The solver. After `undo_newton` the coarse grid must be replaced by that of `mf`.
    """
    newton = mf.copy().newton()
    level = newton.grids.level if hasattr(newton, "grids") else 0
    if grid_level is not None and grid_level < level:
        newton.grids = newton.grids.copy()
        newton.grids.level = grid_level
        newton.grids.coords = newton.grids.weights = None
        newton.grids.build(with_non0tab=True)
    return newton


def lowest_mode(
    mf: Any, grid_level: int | None = COARSE_LEVEL, guess: NDArray | None = None
) -> Mode:
    """Lowest mode of the orbital Hessian of a converged first-order host object.

    Args:
        mf: converged PySCF mean-field object.
        grid_level: PySCF grid level of the Hessian; None keeps the grid of the object.
        guess: packed rotations to start from.

    Returns:
        The mode.
    """
    newton = coarse_newton(mf, grid_level)
    # the Fock matrix belongs to the full grid, the response to the coarse one
    fock = mf.get_fock(dm=mf.make_rdm1())
    _, product, diagonal = newton.gen_g_hop(mf.mo_coeff, mf.mo_occ, fock)
    if diagonal.size == 0:
        return Mode(0.0, np.zeros(0))

    def precondition(residual: NDArray, value: float, *_: Any) -> NDArray:
        denominator = diagonal - value
        denominator[np.abs(denominator) < 1e-2] = 1e-2
        return residual / denominator

    guesses = _guesses(diagonal) if guess is None else [guess]
    values, vectors = lib.davidson(
        lambda x: product(x).real,
        guesses,
        precondition,
        tol=1e-6,
        max_cycle=30,
        nroots=min(len(guesses), diagonal.size),
        verbose=0,
    )
    values = np.atleast_1d(values)
    first = int(np.argmin(values))
    vector = np.asarray(vectors if np.ndim(vectors) == 1 else vectors[first])
    return Mode(float(values[first]), vector)


def doubtful(mf: Any, numbers: NDArray) -> bool:
    """Whether a solution that came easily may still be a saddle point.

    Ordinary closed shells and radicals are spared the analysis. Unrestricted solutions with d or f
    shells or without a total moment are not, nor is anything with a small gap.

    Args:
        mf: converged host object.
        numbers: atomic numbers.

    Returns:
        Whether to analyse the stability.
    """
    if mf.istype("UHF") and (mf.mol.spin == 0 or any(int(z) in OPEN_SHELLS for z in numbers)):
        return True
    open_shell = mf.istype("UHF") or mf.istype("ROHF")
    return smallest_gap(mf) < (OPEN_GAP if open_shell else CLOSED_GAP)


def downhill(mf: Any) -> NDArray | None:
    """Density matrix of lower energy along the softest mode.

    Args:
        mf: converged first-order host object.

    Returns:
        The density of the lowest rotation along it, or None at a minimum.
    """
    mode = lowest_mode(mf)
    if abs(mode.eigenvalue) < SOFT:
        mode = lowest_mode(mf, None, mode.vector)
    if mode.eigenvalue > FLAT or mode.vector.size == 0:
        return None
    newton = mf.copy().newton()
    newton._scf.scf_summary = {}  # copies share it, and energies of trials would end up in it
    core = mf.get_hcore()
    unit = mode.vector / np.abs(mode.vector).max()

    def rotated(angle: float) -> tuple[float, NDArray]:
        rotation = newton.update_rotate_matrix(angle * unit, mf.mo_occ)
        orbitals = newton.rotate_mo(np.asarray(mf.mo_coeff), rotation)
        density = np.asarray(mf.make_rdm1(orbitals, mf.mo_occ))
        energy = newton._scf.energy_tot(density, core, mf.get_veff(mf.mol, density))
        return float(energy), density

    angle = FIRST_ROTATION
    forward, backward = rotated(angle), rotated(-angle)
    best = forward
    if backward[0] < forward[0]:
        best, angle = backward, -angle
    if best[0] > float(mf.e_tot) - LOWER:
        return None
    while abs(angle) < 1.0:
        angle *= 2.0
        further = rotated(angle)
        if further[0] >= best[0]:
            break
        best = further
    return best[1]


def aufbau_violated(mf: Any) -> bool:
    """Whether an empty orbital lies below a filled one of the same spin."""
    energies, occupations = np.asarray(mf.mo_energy), np.asarray(mf.mo_occ)
    if mf.istype("ROHF"):
        return False  # the levels of the effective Fock matrix have no such meaning
    pairs = zip(np.atleast_2d(energies), np.atleast_2d(occupations), strict=True)
    return any(
        bool((n > 0).any() and (n == 0).any() and e[n > 0].max() > e[n == 0].min() + 1e-6)
        for e, n in pairs
    )


def smallest_gap(mf: Any) -> float:
    """Smallest distance in Hartree between filled and empty levels of one spin."""
    energies, occupations = np.asarray(mf.mo_energy), np.asarray(mf.mo_occ)
    if mf.istype("ROHF"):
        up, down = (
            getattr(mf.mo_energy, "mo_ea", energies),
            getattr(mf.mo_energy, "mo_eb", energies),
        )
        pairs = [(np.asarray(up), occupations > 0), (np.asarray(down), occupations == 2)]
    else:
        pairs = list(zip(np.atleast_2d(energies), np.atleast_2d(occupations) > 0, strict=True))
    gaps = [e[~n].min() - e[n].max() for e, n in pairs if n.any() and (~n).any()]
    return float(min(gaps, default=np.inf))


def _guesses(diagonal: NDArray) -> list[NDArray]:
    """The softest single rotations, blurred: symmetry must not hide a mode from the start."""
    noise = np.random.default_rng(0).standard_normal(diagonal.size) / (np.abs(diagonal) + 0.1)
    noise *= 0.1 / np.linalg.norm(noise)
    guesses = []
    for index in np.argsort(diagonal)[:2]:
        guess = noise.copy()
        guess[index] += 1.0
        guesses.append(guess)
    return guesses
