"""Structure and diffusion from frames of a trajectory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.neighborlist import neighbor_list

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.common import require_positive


def radial_distribution(
    frames: Sequence[Atoms], rmax: float, n_bins: int = 100, pair: tuple[str, str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Radial distribution function g(r), averaged over frames.

    Args:
        frames: structures, periodic in three directions (g(r) needs a mean density).
        rmax: largest distance in Angstrom; may exceed half the cell, images are counted.
        n_bins: number of bins.
        pair: chemical symbols of centre and neighbour; None counts all atoms.

    Returns:
        Bin centres [n_bins] in Angstrom and g(r) [n_bins], 1 in an ideal gas.

    Raises:
        InvalidInputError: for frames that are not periodic, or symbols that they do not contain.
    """
    require_positive("rmax", rmax)
    require_positive("n_bins", n_bins)
    edges = np.linspace(0.0, rmax, n_bins + 1)
    shells = 4.0 / 3.0 * np.pi * (edges[1:] ** 3 - edges[:-1] ** 3)
    total = np.zeros(n_bins)
    for frame in frames:
        if not frame.pbc.all():
            raise InvalidInputError(
                f"frames: expected periodicity in three directions, got pbc={frame.pbc.tolist()}"
            )
        symbols = np.array(frame.get_chemical_symbols())
        everything = np.ones(len(frame), dtype=bool)
        centre, neighbour = (everything,) * 2 if pair is None else (symbols == s for s in pair)
        if not centre.any() or not neighbour.any():
            raise InvalidInputError(
                f"pair: expected symbols among {sorted(set(symbols.tolist()))}, got {pair!r}"
            )
        i, j, distance = neighbor_list("ijd", frame, rmax)
        counts, _ = np.histogram(distance[centre[i] & neighbour[j]], bins=edges)
        density = neighbour.sum() / frame.get_volume()
        total += counts / (centre.sum() * density * shells)
    return 0.5 * (edges[1:] + edges[:-1]), total / len(frames)


def mean_square_displacement(frames: Sequence[Atoms]) -> np.ndarray:
    """Mean square displacement of the atoms relative to their centre of mass.

    Averaged over atoms and time origins, by the Fourier method of Calandrini et al.,
    Collection SFN 12, 201 (2011), equation 31: O(n log n) in the number of frames.

    Args:
        frames: structures at equal intervals with unwrapped positions (as ASE's dynamics leave
            them).

    Returns:
        [n_frames] in Angstrom^2, at lags 0, 1, ... frames.
    """
    r = np.array([frame.positions - frame.get_center_of_mass() for frame in frames])
    n = len(r)
    transform = np.fft.rfft(r, n=2 * n, axis=0)
    products = np.fft.irfft(np.abs(transform) ** 2, n=2 * n, axis=0)[:n].sum(axis=2)
    squares = (r**2).sum(axis=2)  # [n_frames, n_atoms]
    # sum over origins of r(t)^2 + r(t+lag)^2 = total minus the ends that drop out
    ends = np.zeros_like(squares)
    ends[1:] = np.cumsum(squares[:-1] + squares[::-1][:-1], axis=0)
    sums = 2.0 * squares.sum(axis=0) - ends
    per_atom = (sums - 2.0 * products) / np.arange(n, 0, -1)[:, None]
    msd = per_atom.mean(axis=1)
    # The transform leaves rounding noise of either sign at lag 0, where the value is zero.
    msd[0] = 0.0
    return msd
