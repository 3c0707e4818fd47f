"""Direct minimisation of the energy over orbital rotations: slower than DIIS, but always downhill.

Limited-memory BFGS in the tangent space of the occupied orbitals, preconditioned by orbital-energy
differences, after the geometric direct minimisation of Van Voorhis and Head-Gordon, Mol. Phys. 100,
1713 (2002). The orbitals C move to C exp(X); the components of earlier steps and gradients in the
moving orbital frame are then their parallel transport, so that the history needs no correction.
It costs one Fock matrix per step, and no second derivative of the functional.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyscf import lib
from pyscf.scf import hf
from scipy.linalg import eigh, expm

#: Steps remembered.
MEMORY = 20
#: Largest element of one rotation (radian): beyond it the quadratic model means nothing.
LARGEST_ROTATION = 0.4
#: Added to the orbital-energy differences (Hartree) that precondition the gradient.
SHIFT = 0.1
#: A density whose natural occupations are this close to integers comes from orbitals.
IDEMPOTENT = 1e-5


@dataclass(frozen=True)
class DirectMinimisation:
    """L-BFGS over orbital rotations (see the module)."""

    name: str = "direct"

    def applies(self, mf: Any) -> bool:
        """Always."""
        return True

    def run(self, mf: Any, guess: NDArray) -> tuple[Any, int]:
        """Minimise from the orbitals of the guess, or of its Fock matrix."""
        return mf, minimise(mf, *orbitals_of(mf, guess))


def orbitals_of(mf: Any, density: NDArray) -> tuple[NDArray, NDArray]:
    """Orbitals of a density matrix.

    Args:
        mf: PySCF mean-field object.
        density: [nao, nao] or [2, nao, nao].

    Returns:
        Orbital coefficients and occupations: natural orbitals if the density is that of a single
        determinant with the right number of electrons, else those of its Fock matrix.
    """
    overlap = np.asarray(mf.get_ovlp())
    restricted = not mf.istype("UHF")
    if restricted and np.ndim(density) == 3:
        density = density[0] + density[1]
    matrices = np.asarray(density).reshape(-1, *overlap.shape)
    pairs = [_natural(matrix, overlap) for matrix in matrices]
    orbitals = np.stack([c for c, _ in pairs])
    occupations = np.stack([n.round() for _, n in pairs])
    exact = all(np.abs(n - n.round()).max() < IDEMPOTENT for _, n in pairs)
    if exact and orbitals.shape[-1] == overlap.shape[0] and _counts(mf, occupations):
        return (orbitals[0], occupations[0]) if restricted else (orbitals, occupations)
    mo_energy, mo_coeff = mf.eig(mf.get_fock(dm=_shaped(mf, density)), overlap)
    return np.asarray(mo_coeff), np.asarray(mf.get_occ(mo_energy, mo_coeff))


def minimise(mf: Any, mo_coeff: NDArray, mo_occ: NDArray) -> int:
    """Minimise the energy of a host object in place.

    Args:
        mf: PySCF mean-field object; its tolerances and `max_cycle` (Fock matrices) are kept. It
            receives the orbitals, the energy and `converged`.
        mo_coeff: starting orbitals.
        mo_occ: integer occupations, which stay.

    Returns:
        The number of Fock matrices built.
    """
    surface = _Surface(mf, mo_occ)
    point, frame = surface.canonical(surface.at(mo_coeff))
    history = _History()
    cycles, converged = 1, False
    while cycles < mf.max_cycle and not converged:
        direction = history.direction(point.gradient, point.curvature)
        slope = 2.0 * np.vdot(direction, point.gradient)
        if slope >= 0.0:  # a history without memory of the present curvature
            history = _History()
            continue
        direction *= min(1.0, LARGEST_ROTATION / np.abs(direction).max())
        slope = 2.0 * np.vdot(direction, point.gradient)
        lower = None
        for length in _backtracking(surface, point, direction, slope):
            cycles += 1
            trial, lower = length
            if lower is not None or cycles >= mf.max_cycle:
                break
        if lower is None:
            if history.empty:
                break  # not even downhill along the gradient: the limit of rounding
            history = _History()
            continue
        history.add(trial * direction, lower.gradient - point.gradient)
        change = point.energy - lower.energy
        point, frame = surface.canonical(lower)
        history.turn(frame)
        norm = np.linalg.norm(point.gradient)
        converged = bool(abs(change) < mf.conv_tol and norm < mf.conv_tol_grad)
    surface.store(point, converged)
    mf.cycles = cycles
    return cycles


@dataclass(frozen=True)
class _Point:
    """Orbitals with everything that one Fock matrix tells about them."""

    orbitals: NDArray
    fock: Any
    energy: float
    gradient: NDArray
    curvature: NDArray


class _Surface:
    """The energy as a function of the orbitals, for one or two sets of them."""

    def __init__(self, mf: Any, mo_occ: NDArray) -> None:
        self.mf = mf
        self.mo_occ = np.asarray(mo_occ)
        self._core = mf.get_hcore()
        self._overlap = np.asarray(mf.get_ovlp())
        sets = self.mo_occ.reshape(-1, self.mo_occ.shape[-1])
        if self.mo_occ.ndim == 2:
            self._mask = np.stack([(n[:, None] == 0) & (n > 0) for n in sets])
        else:
            self._mask = np.stack([hf.uniq_var_indices(n) for n in sets])

    def at(self, orbitals: NDArray) -> _Point:
        density = self.mf.make_rdm1(orbitals, self.mo_occ)
        potential = self.mf.get_veff(self.mf.mol, density)
        energy = float(self.mf.energy_tot(density, self._core, potential))
        fock = self.mf.get_fock(
            self._core, self._overlap, potential, density, level_shift_factor=0.0
        )
        gradient = np.zeros(self._mask.shape)
        gradient[self._mask] = np.asarray(self.mf.get_grad(orbitals, self.mo_occ, fock)).real
        return _Point(orbitals, fock, energy, gradient, np.zeros(0))

    def canonical(self, point: _Point) -> tuple[_Point, NDArray]:
        """Turn the orbitals within each space, where the preconditioner is nearly exact."""
        energies, orbitals = self.mf.canonicalize(point.orbitals, self.mo_occ, point.fock)
        orbitals = np.asarray(orbitals)
        frame = np.swapaxes(self._sets(point.orbitals), -1, -2) @ self._overlap
        frame = frame @ self._sets(orbitals)
        gradient = np.swapaxes(frame, -1, -2) @ point.gradient @ frame
        gradient = np.where(self._mask, gradient, 0.0)
        curvature = self._curvature(energies)
        return _Point(orbitals, point.fock, point.energy, gradient, curvature), frame

    def rotated(self, orbitals: NDArray, step: NDArray) -> NDArray:
        sets = self._sets(orbitals)
        turned = [c @ expm(x - x.T) for c, x in zip(sets, step, strict=True)]
        return np.stack(turned).reshape(orbitals.shape)

    def store(self, point: _Point, converged: bool) -> None:
        """Leave the result in the host object, as its own kernels do."""
        mf = self.mf
        mf.mo_energy, mf.mo_coeff = mf.canonicalize(point.orbitals, self.mo_occ, point.fock)
        mf.mo_occ = self.mo_occ
        density = mf.make_rdm1(mf.mo_coeff, mf.mo_occ)
        # the energy of another trial may have been the last one that entered the host's summary
        mf.e_tot = float(mf.energy_tot(density, self._core, mf.get_veff(mf.mol, density)))
        mf.converged = converged

    def _sets(self, orbitals: NDArray) -> NDArray:
        return np.asarray(orbitals).reshape(-1, *orbitals.shape[-2:])

    def _curvature(self, energies: Any) -> NDArray:
        """Diagonal of the orbital Hessian without two-electron terms, shifted to be positive."""
        if self.mo_occ.ndim == 2:
            spins = [[(e, n)] for e, n in zip(energies, self.mo_occ, strict=True)]
        else:
            up, down = getattr(energies, "mo_ea", energies), getattr(energies, "mo_eb", energies)
            spins = [[(up, self.mo_occ > 0), (down, self.mo_occ == 2)]]
        diagonals = []
        for channels in spins:
            total = np.zeros(self._mask.shape[1:])
            for e, occupied in channels:
                n = np.asarray(occupied, dtype=float)
                total += (n - n[:, None]) * (np.asarray(e)[:, None] - np.asarray(e))
            diagonals.append(np.maximum(total, 0.0) + SHIFT)
        return np.where(self._mask, np.stack(diagonals), 1.0)


class _History:
    """Two-loop L-BFGS (Nocedal, Math. Comp. 35, 773 (1980))."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[NDArray, NDArray]] = deque(maxlen=MEMORY)

    @property
    def empty(self) -> bool:
        return not self._pairs

    def add(self, step: NDArray, change: NDArray) -> None:
        """Remember a step along which the curvature was positive."""
        if np.vdot(step, change) > 1e-10 * np.vdot(step, step):
            self._pairs.append((step, change))

    def turn(self, frame: NDArray) -> None:
        """Express the history in turned orbitals."""
        back = np.swapaxes(frame, -1, -2)
        turned = [(back @ s @ frame, back @ y @ frame) for s, y in self._pairs]
        self._pairs = deque(turned, maxlen=MEMORY)

    def direction(self, gradient: NDArray, curvature: NDArray) -> NDArray:
        work = gradient.copy()
        weights = []
        for s, y in reversed(self._pairs):
            weight = np.vdot(s, work) / np.vdot(s, y)
            work -= weight * y
            weights.append(weight)
        work = work / curvature
        for (s, y), weight in zip(self._pairs, reversed(weights), strict=True):
            work += (weight - np.vdot(y, work) / np.vdot(s, y)) * s
        return -work


def _backtracking(
    surface: _Surface, point: _Point, direction: NDArray, slope: float
) -> Iterator[tuple[float, _Point | None]]:
    """Shorter and shorter steps; the point comes with the first one that is low enough."""
    length = 1.0
    noise = 1e-12 * abs(point.energy)
    for _ in range(8):
        trial = surface.at(surface.rotated(point.orbitals, length * direction))
        enough = trial.energy <= point.energy + 1e-4 * length * slope + noise
        yield length, trial if enough else None
        curvature = trial.energy - point.energy - length * slope
        best = -0.5 * slope * length**2 / curvature if curvature > 0 else 0.5 * length
        length = float(np.clip(best, 0.1 * length, 0.5 * length))


def _natural(density: NDArray, overlap: NDArray) -> tuple[NDArray, NDArray]:
    """Natural orbitals and occupations, largest first."""
    occupations, orbitals = eigh(overlap @ density @ overlap, overlap)
    return orbitals[:, ::-1], occupations[::-1]


def _counts(mf: Any, occupations: NDArray) -> bool:
    """Whether the occupations are those of the spin state."""
    up, down = mf.nelec if hasattr(mf, "nelec") else mf.mol.nelec
    if len(occupations) == 2:
        return bool(occupations[0].sum() == up and occupations[1].sum() == down)
    n = occupations[0]
    return bool((n > 0).sum() == up and (n == 2).sum() == down and n.min() >= 0)


def _shaped(mf: Any, density: NDArray) -> NDArray:
    """The density in the shape that the host's Fock matrix needs."""
    if mf.istype("ROHF") and np.ndim(density) == 2:
        return lib.tag_array(np.stack([0.5 * density, 0.5 * density]))
    return density
