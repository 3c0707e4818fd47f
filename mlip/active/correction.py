"""What a potential is wrong by near a few DFT points: a Gaussian process on the difference.

Energies and forces of DFT minus potential are interpolated with a squared-exponential kernel in
the Cartesian coordinates, gradients included, as GPMin does with the energies themselves (Garijo
del Rio, Mortensen and Jacobsen, Phys. Rev. B 100, 104103, 2019). The potential is the prior mean:
what is learned from the points is small and smooth, so that few of them suffice, and far from them
the correction fades to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ase_neuralxc.errors import InvalidInputError

#: Length scales in Angstrom among which the likelihood chooses.
SCALES = (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6)
#: Length scale of a single point, which says nothing about it.
FIRST_SCALE = 2.0
#: Relative standard deviation of the noise: what two SCFs differ by, and what keeps the
#: covariance invertible.
NOISE = 1e-3


@dataclass
class DifferenceModel:
    """The correction; points may be added.

    Attributes:
        points: coordinates of each point, [d] in Angstrom.
        energies: difference of the energies in eV.
        gradients: difference of the gradients, [d] in eV/Angstrom.
        scale: length scale in Angstrom.
    """

    points: list[NDArray] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    gradients: list[NDArray] = field(default_factory=list)
    scale: float = FIRST_SCALE
    _constant: float = 0.0
    _weights: NDArray = field(default_factory=lambda: np.empty(0))

    def add(self, point: NDArray, energy: float, gradient: NDArray) -> None:
        """Learn one more point.

        Args:
            point: [n, 3] or [d] coordinates in Angstrom.
            energy: DFT minus potential in eV.
            gradient: of the same shape as the point, in eV/Angstrom.

        Raises:
            InvalidInputError: another number of coordinates than before, or a number that is not
                finite.
        """
        x, g = np.ravel(point).astype(float), np.ravel(gradient).astype(float)
        if g.shape != x.shape or (self.points and len(x) != len(self.points[0])):
            wanted = len(self.points[0]) if self.points else len(x)
            raise InvalidInputError(
                f"point: expected {wanted} coordinates and a gradient of as many, got {len(x)} "
                f"and {len(g)}"
            )
        if not (np.isfinite(energy) and np.isfinite(x).all() and np.isfinite(g).all()):
            raise InvalidInputError("point: expected finite numbers, got NaN or inf")
        self.points.append(x)
        self.energies.append(float(energy))
        self.gradients.append(g)
        scales = SCALES if len(self.points) > 1 else (FIRST_SCALE,)
        fits = [self._fit(scale) for scale in scales]
        self.scale, (_, self._constant, self._weights) = max(
            zip(scales, fits, strict=True), key=lambda pair: pair[1][0]
        )

    def predict(self, point: NDArray) -> tuple[float, NDArray]:
        """The correction at a point.

        Args:
            point: [n, 3] or [d] coordinates in Angstrom.

        Returns:
            Energy in eV, and its gradient in the shape of the point in eV/Angstrom; zeros before
            anything was learned.
        """
        shape = np.shape(point)
        if not self.points:
            return 0.0, np.zeros(shape)
        x = np.ravel(point)
        energy, gradient = self._constant, np.zeros(len(x))
        square = self.scale**2
        for known, weights in zip(self.points, self._blocks(self._weights), strict=True):
            a, b = weights[0], weights[1:]
            d = x - known
            k = np.exp(-0.5 * (d @ d) / square)
            inner = a + (b @ d) / square
            energy += k * inner
            gradient += k * (b - d * inner) / square
        return float(energy), gradient.reshape(shape)

    def _blocks(self, values: NDArray) -> NDArray:
        return values.reshape(len(self.points), -1)

    def _fit(self, scale: float) -> tuple[float, float, NDArray]:
        """Log-likelihood, constant and weights at one length scale; the amplitude is profiled."""
        covariance = _covariance(np.array(self.points), scale)
        factor = cho_factor(covariance, lower=True)
        rows = [
            np.concatenate([[e], g]) for e, g in zip(self.energies, self.gradients, strict=True)
        ]
        target = np.concatenate(rows)
        ones = np.zeros(len(target))
        ones[:: len(rows[0])] = 1.0
        # generalised least squares for the constant
        solved = cho_solve(factor, ones)
        constant = float(solved @ target / (solved @ ones))
        weights = cho_solve(factor, target - constant * ones)
        amplitude = max(float(weights @ (target - constant * ones)) / len(target), 1e-300)
        log_determinant = 2.0 * np.log(np.diag(factor[0])).sum()
        likelihood = -0.5 * (len(target) * np.log(amplitude) + log_determinant)
        return likelihood, constant, weights


def _covariance(points: NDArray, scale: float) -> NDArray:
    """Covariance of energy and gradient of all points, [m (1 + d), m (1 + d)], of amplitude 1."""
    m, d = points.shape
    square = scale**2
    blocks = np.empty((m, 1 + d, m, 1 + d))
    for i in range(m):
        for j in range(m):
            r = points[i] - points[j]
            k = np.exp(-0.5 * (r @ r) / square)
            blocks[i, 0, j, 0] = k
            blocks[i, 0, j, 1:] = k * r / square
            blocks[i, 1:, j, 0] = -k * r / square
            blocks[i, 1:, j, 1:] = k * (np.eye(d) - np.outer(r, r) / square) / square
    noise = np.full(1 + d, (NOISE / scale) ** 2)
    noise[0] = NOISE**2
    matrix = blocks.reshape(m * (1 + d), m * (1 + d))
    matrix[np.diag_indices_from(matrix)] += np.tile(noise, m)
    return matrix
