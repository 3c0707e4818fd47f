"""How much the spread of the readouts has to be scaled to be an error estimate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mlip.training.metrics import Predictions

#: Spreads below this, in eV or eV/Angstrom, say nothing (single precision).
SMALLEST = 1e-6


def errors_and_spreads(made: Predictions, name: str) -> tuple[NDArray, NDArray]:
    """Errors beside the spreads that should estimate them.

    Args:
        made: predictions with uncertainties.
        name: "energy" (of a structure) or "forces" (length of the error of an atom's force).

    Returns:
        [m] errors >= 0 and [m] spreads, where both exist.
    """
    error = made.predicted[name] - made.target[name]
    size = np.abs(error) if error.ndim == 1 else np.linalg.norm(error, axis=1)
    spread = made.spread[name]
    known = made.known(name) & (spread > SMALLEST)
    return size[known], spread[known]


def scales(made: Predictions) -> dict[str, float]:
    """Factors that make spreads standard deviations of the errors seen.

    The factor maximises the likelihood of Gaussian errors: the root mean square of error/spread.

    Args:
        made: predictions on data that were not trained on.

    Returns:
        Factors of "energy" and "forces", of those that have uncertainties.
    """
    found = {}
    for name in made.spread:
        error, spread = errors_and_spreads(made, name)
        if len(error):
            found[name] = float(np.sqrt(np.mean(np.square(error / spread))))
    return found


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
