"""What makes an error estimate of the spread of the readouts.

The variance of an error is floor^2 + (scale * spread)^2: what all readouts get wrong together does
not show in their spread, and a factor alone would have to be so large that intervals cover far too
much wherever the readouts differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from mlip.training.metrics import Predictions

#: Spreads below this, in eV/atom or eV/Angstrom, say nothing (single precision).
SMALLEST = 1e-6


def errors_and_spreads(made: Predictions, name: str) -> tuple[NDArray, NDArray]:
    """Errors beside the spreads that should estimate them.

    Args:
        made: predictions with uncertainties.
        name: "energy" (of a structure, per atom) or "forces" (length of the error of an atom's
            force).

    Returns:
        [m] errors >= 0 and [m] spreads, where both exist.
    """
    error = made.predicted[name] - made.target[name]
    size = np.abs(error) if error.ndim == 1 else np.linalg.norm(error, axis=1)
    spread = made.spread[name]
    if name == "energy":
        size, spread = size / made.n_atoms, spread / made.n_atoms
    known = made.known(name) & (spread > SMALLEST)
    return size[known], spread[known]


@dataclass(frozen=True)
class Calibration:
    """Standard deviations from spreads.

    Attributes:
        scale: factor of the spread.
        floor: what is added in quadrature, in eV/atom or eV/Angstrom.
    """

    scale: float = 1.0
    floor: float = 0.0

    def __call__(self, spread: NDArray) -> NDArray:
        """Standard deviations, of the shape of the spreads."""
        return np.hypot(self.scale * spread, self.floor)


def calibrate(made: Predictions) -> dict[str, Calibration]:
    """Maximise the likelihood of Gaussian errors.

    Args:
        made: predictions on data that were not trained on.

    Returns:
        Calibrations of "energy" and "forces", of those that have uncertainties.
    """
    found = {}
    for name in made.spread:
        error, spread = errors_and_spreads(made, name)
        if len(error):
            found[name] = fit(error, spread)
    return found


def fit(error: NDArray, spread: NDArray) -> Calibration:
    """The calibration under which errors are most likely.

    Args:
        error: [m] errors, or lengths of the errors of vectors.
        spread: [m] positive.

    Returns:
        Scale and floor, either of which may be negligible.
    """
    typical = np.log(np.sqrt(np.mean(error**2)) + SMALLEST)
    relative = np.log(np.sqrt(np.mean((error / spread) ** 2)) + SMALLEST)

    def surprise(logarithms: NDArray) -> float:
        scale, floor = np.exp(logarithms)
        variance = (scale * spread) ** 2 + floor**2
        return float(np.mean(np.log(variance) + error**2 / variance))

    # one start for each of the limits: the spread tells all, or nothing
    starts = ([relative, typical - 3.0], [relative - 3.0, typical])
    best = min((minimize(surprise, x, method="Nelder-Mead") for x in starts), key=lambda r: r.fun)
    return Calibration(*(float(v) for v in np.exp(best.x)))


def curve(error: NDArray, spread: NDArray, bins: int = 10) -> tuple[NDArray, NDArray]:
    """Root mean square spread and error in bins of equal numbers, ordered by spread.

    Args:
        error: [m].
        spread: [m].
        bins: at most this many, of at least five each.

    Returns:
        [bins] spreads and [bins] errors; on the diagonal for a calibrated estimate.
    """
    parts = np.array_split(np.argsort(spread), max(1, min(bins, len(spread) // 5)))
    return (
        np.array([np.sqrt(np.mean(spread[part] ** 2)) for part in parts]),
        np.array([np.sqrt(np.mean(error[part] ** 2)) for part in parts]),
    )
