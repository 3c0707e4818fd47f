"""What a potential is wrong by near a few DFT points: a Gaussian process on the difference.

Energies and forces of DFT minus potential are interpolated with a squared-exponential kernel,
gradients included, as GPMin does with the energies themselves (Garijo del Rio, Mortensen and
Jacobsen, Phys. Rev. B 100, 104103, 2019). The potential is the prior mean: what is learned from the
points is small and smooth, so that few of them suffice, and far from them the correction fades to
a constant.

Likeness is measured in distances between atoms, not in Cartesian coordinates: a correction of a
bond then turns with the bond.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ase_neuralxc.errors import InvalidInputError

#: Length scales in Angstrom among which the likelihood chooses.
SCALES = (0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0)
#: Length scale of a single point, which says nothing about it.
FIRST_SCALE = 2.8
#: Relative standard deviation of the noise: what two SCFs differ by, and what keeps the
#: covariance invertible.
NOISE = 1e-3
#: So many points next to the structure at hand make the correction. The noise is relative to what
#: is to be explained: points of a wrong turn, electronvolts away, would blur those that count.
NEAREST = 8
#: Distances beyond this, in Angstrom, are left out for periodic structures.
CUTOFF = 6.0


class PairDistances:
    """Distances as coordinates: c^2/r with c the sum of the covalent radii.

    Near a bond length they change as the distance does, and less and less beyond. The list of
    pairs is that of the structure at hand and stays: coordinates do not jump.

    Args:
        atoms: the structure; all pairs of a molecule, those within `CUTOFF` of a periodic one.
    """

    def __init__(self, atoms: Atoms) -> None:
        if atoms.pbc.any():
            i, j, shifts = neighbor_list("ijS", atoms, CUTOFF)
            # each pair once; an atom and its own image keep their distance
            first = i < j
            i, j, self._shift = i[first], j[first], shifts[first] @ atoms.cell.array
        else:
            i, j = np.triu_indices(len(atoms), 1)
            self._shift = np.zeros((len(i), 3))
        self._i, self._j = i, j
        self._square = (covalent_radii[atoms.numbers[i]] + covalent_radii[atoms.numbers[j]]) ** 2

    def __call__(self, positions: NDArray) -> tuple[NDArray, NDArray]:
        """Coordinates and their derivatives.

        Args:
            positions: [n, 3] in Angstrom.

        Returns:
            [pairs] in Angstrom, and [pairs, 3 n].
        """
        vectors = positions[self._j] + self._shift - positions[self._i]
        distance = np.linalg.norm(vectors, axis=1)
        slope = (-self._square / distance**3)[:, None] * vectors
        rows = np.arange(len(distance))
        jacobian = np.zeros((len(distance), len(positions), 3))
        jacobian[rows, self._j] = slope
        jacobian[rows, self._i] = -slope
        return self._square / distance, jacobian.reshape(len(distance), -1)


@dataclass
class DifferenceModel:
    """The correction; points may be added.

    Attributes:
        describe: from positions to coordinates and their derivatives.
        scale: length scale in Angstrom.
    """

    describe: PairDistances
    scale: float = FIRST_SCALE
    _points: list[tuple[NDArray, NDArray]] = field(default_factory=list)
    _targets: list[NDArray] = field(default_factory=list)
    _constant: float = 0.0
    _used: list[tuple[NDArray, float, NDArray]] = field(default_factory=list)

    def add(self, positions: NDArray, energy: float, gradient: NDArray) -> None:
        """Learn one more point.

        Args:
            positions: [n, 3] in Angstrom.
            energy: DFT minus potential in eV.
            gradient: [n, 3] of the same in eV/Angstrom.

        Raises:
            InvalidInputError: a number that is not finite.
        """
        target = np.concatenate([[energy], np.ravel(gradient)])
        if not (np.isfinite(target).all() and np.isfinite(positions).all()):
            raise InvalidInputError("label: expected finite numbers, got NaN or inf")
        self._points.append(self.describe(positions))
        self._targets.append(target)
        self.focus(positions)

    def focus(self, positions: NDArray) -> None:
        """Describe the surroundings of a structure: the nearest points decide.

        Args:
            positions: [n, 3] in Angstrom.
        """
        here, _ = self.describe(positions)
        distances = [np.linalg.norm(here - known) for known, _ in self._points]
        near = np.argsort(distances, kind="stable")[:NEAREST]
        points = [self._points[k] for k in near]
        targets = [self._targets[k] for k in near]
        scales = SCALES if len(points) > 1 else (FIRST_SCALE,)
        fits = [(*_fit(points, targets, scale), scale) for scale in scales]
        _, self._constant, weights, self.scale = max(fits, key=lambda fit: fit[0])
        self._used = [
            (known, float(block[0]), jacobian @ block[1:])
            for block, (known, jacobian) in zip(
                weights.reshape(len(points), -1), points, strict=True
            )
        ]

    def predict(self, positions: NDArray) -> tuple[float, NDArray]:
        """The correction of a structure.

        Args:
            positions: [n, 3] in Angstrom.

        Returns:
            Energy in eV and its gradient, [n, 3] in eV/Angstrom; zeros before anything was
            learned.
        """
        if not self._points:
            return 0.0, np.zeros(positions.shape)
        here, jacobian = self.describe(positions)
        energy, slope = self._constant, np.zeros(len(here))
        square = self.scale**2
        for known, a, b in self._used:
            d = here - known
            k = np.exp(-0.5 * (d @ d) / square)
            inner = a + (b @ d) / square
            energy += k * inner
            slope += k * (b - d * inner) / square
        return float(energy), (slope @ jacobian).reshape(positions.shape)


def _fit(
    points: list[tuple[NDArray, NDArray]], targets: list[NDArray], scale: float
) -> tuple[float, float, NDArray]:
    """Log-likelihood, constant and weights at one length scale; the amplitude is profiled."""
    factor = cho_factor(_covariance(points, scale), lower=True)
    target = np.concatenate(targets)
    ones = np.zeros(len(target))
    ones[:: len(targets[0])] = 1.0
    # generalised least squares for the constant
    solved = cho_solve(factor, ones)
    constant = float(solved @ target / (solved @ ones))
    weights = cho_solve(factor, target - constant * ones)
    amplitude = max(float(weights @ (target - constant * ones)) / len(target), 1e-300)
    log_determinant = 2.0 * np.log(np.diag(factor[0])).sum()
    likelihood = -0.5 * (len(target) * np.log(amplitude) + log_determinant)
    return likelihood, constant, weights


def _covariance(points: list[tuple[NDArray, NDArray]], scale: float) -> NDArray:
    """Covariance of energy and gradient of all points, [m (1 + 3n), m (1 + 3n)], amplitude 1."""
    m, d = len(points), points[0][1].shape[1]
    square = scale**2
    blocks = np.empty((m, 1 + d, m, 1 + d))
    for i, (first, left) in enumerate(points):
        for j, (second, right) in enumerate(points):
            r = first - second
            k = np.exp(-0.5 * (r @ r) / square)
            a, b = r @ left, r @ right
            blocks[i, 0, j, 0] = k
            blocks[i, 0, j, 1:] = k * b / square
            blocks[i, 1:, j, 0] = -k * a / square
            blocks[i, 1:, j, 1:] = k * (left.T @ right - np.outer(a, b) / square) / square
    noise = np.full(1 + d, (NOISE / scale) ** 2)
    noise[0] = NOISE**2
    matrix = blocks.reshape(m * (1 + d), m * (1 + d))
    matrix[np.diag_indices_from(matrix)] += np.tile(noise, m)
    return matrix
