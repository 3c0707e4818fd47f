"""Stored densities with fewer points: a quadrature in the space that semi-local functionals see.

A semi-local energy is a sum over points of weight times n^(4/3) times an enhancement that depends
smoothly on log n and two bounded inputs per spin. Points that nearly agree in these are joined,
with the sum of weight times n^(4/3) kept; what is left of the error is of second order in the width
of the cells and acts on the *difference* to the starting functional alone, whose energy is kept
exactly. Training then costs a fraction; final errors are always taken on the full grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ase_neuralxc.functional import constraints as exact
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.training.batches import batches
from ase_neuralxc.training.stored import SUFFIX, DensityCodec, StoredDensity, open_density

#: Widths of a cell: natural logarithm of the density, gradient input, orbital input.
WIDTHS = (0.3, 0.03, 0.03)
#: Version of the joining; part of the name of the folder of joined densities.
_VERSION = 2
#: Spin densities below this are one cell: their energy is negligible.
_SMALLEST = 1e-9


def compress(
    density: StoredDensity,
    starting: SemilocalFunctional,
    widths: tuple[float, float, float] = WIDTHS,
) -> StoredDensity:
    """Join the points of a density that a semi-local functional can hardly tell apart.

    Args:
        density: as stored.
        starting: torch form of the functional that made it, whose energy stays exact.
        widths: of the cells.

    Returns:
        A density with fewer points and no coordinates, atoms or orbitals. Its energies have an
        entry "compression", the part of the starting functional's energy that the joining lost.
    """
    channels = len(density.density)
    n = np.asarray(density.density, dtype=float)
    gradient = np.asarray(density.gradient, dtype=float)
    tau = np.asarray(density.tau, dtype=float)
    weights = np.asarray(density.weights, dtype=float)
    keys = [_cells(n[c] * channels, gradient[c] * channels, tau[c] * channels, widths)
            for c in range(channels)]  # fmt: skip
    # some Lebedev weights are negative: points of both signs could cancel to an empty cell
    keys.append(np.signbit(weights)[None].astype(np.int64))
    _, cells = np.unique(np.concatenate(keys), axis=1, return_inverse=True)
    cells = cells.ravel()
    total = n.sum(0)
    share = weights * total ** (4 / 3)
    count = int(cells.max()) + 1

    def mean(values: NDArray) -> NDArray:
        return np.stack(
            [np.bincount(cells, share * row, count) / norm for row in np.atleast_2d(values)]
        )

    norm = np.bincount(cells, share, count)
    joined = np.exp(mean(np.log(np.maximum(total, 1e-300))))[0]
    # shapes relative to the total density keep s, alpha and zeta where they are
    fractions = mean(n / total)
    slopes = _plane(gradient) / total ** (4 / 3)
    kinetic = mean(tau / total ** (5 / 3))
    new_gradient = np.zeros((channels, 3, count))
    new_gradient[:, :2] = gradients_from(mean(_products(slopes)), channels) * joined ** (4 / 3)
    compressed = replace(
        density,
        weights=norm / joined ** (4 / 3),
        density=fractions * joined,
        gradient=new_gradient,
        tau=kinetic * joined ** (5 / 3),
        coords=np.zeros((0, 3)),
        atomic_weights=np.zeros(0),
        orbitals=np.zeros((0, 0)),
        atom_counts=(),
    )
    with torch.no_grad():
        kept = sum(float(b.energies(starting, 1)[0]) for b in batches([compressed]))
    lost = density.energies["xc"] - kept
    return replace(compressed, energies={**density.energies, "compression": lost})


def joined_densities(
    directory: str | Path, densities: Sequence[StoredDensity], starting: SemilocalFunctional
) -> list[StoredDensity]:
    """Joined forms of densities, kept in files so that the runs on a folder share them.

    Args:
        directory: folder of the prepared densities.
        densities: some of them.
        starting: torch form of the functional that made them.

    Returns:
        For each density what `compress` gives.
    """
    identity = digest({"version": _VERSION, "widths": WIDTHS, "hash": functional_hash(starting)})
    folder = Path(directory) / f"joined-{identity}"
    folder.mkdir(exist_ok=True)
    codec = DensityCodec()
    out = []
    for density in tqdm(densities, desc="joining points", leave=False):
        path = folder / f"{density.species.content_hash}{SUFFIX}"
        if not path.exists():
            atomic_write(path, codec.encode(compress(density, starting)))
        out.append(open_density(path))
    return out


def _cells(n: NDArray, gradient: NDArray, tau: NDArray, widths: tuple[float, ...]) -> NDArray:
    """Integer coordinates of each point, [3, n_points], of a spin density taken as unpolarised."""
    safe = torch.from_numpy(np.maximum(n, _SMALLEST))
    sigma = torch.from_numpy((gradient * gradient).sum(0))
    root = exact.cube_root(safe)
    s_input = exact.gradient_input(safe, root, sigma)
    alpha_input = exact.orbital_input(
        safe, sigma, torch.from_numpy(tau), exact.uniform_tau(safe, root)
    )
    values = (torch.log(safe), s_input, alpha_input)
    rows = [np.floor(v.numpy() / w).astype(np.int64) for v, w in zip(values, widths, strict=True)]
    return np.where(n > _SMALLEST, np.stack(rows), 0)


def _plane(gradient: NDArray) -> NDArray:
    """Gradients of one or two spins in the plane that they span: [c, 2, n], the first along x."""
    up = np.sqrt((gradient[0] ** 2).sum(0))
    rows = [np.stack([up, np.zeros_like(up)])]
    if len(gradient) == 2:
        along = (gradient[0] * gradient[1]).sum(0) / np.maximum(up, 1e-300)
        across = np.sqrt(np.maximum((gradient[1] ** 2).sum(0) - along**2, 0.0))
        rows.append(np.stack([along, across]))
    return np.stack(rows)


def _products(plane: NDArray) -> NDArray:
    """Gradient products, which are averaged: one row, or up.up, up.down and down.down."""
    pairs = [(0, 0)] if len(plane) == 1 else [(0, 0), (0, 1), (1, 1)]
    return np.stack([(plane[i] * plane[j]).sum(0) for i, j in pairs])


def gradients_from(products: NDArray, channels: int) -> NDArray:
    """Gradients of one or two spins that have given products.

    Args:
        products: [1, n] or [3, n]: up.up, up.down and down.down.
        channels: c, one or two.

    Returns:
        [c, 2, n] in the plane that they span, the first along x.
    """
    up = np.sqrt(np.maximum(products[0], 0.0))
    rows = [np.stack([up, np.zeros_like(up)])]
    if channels == 2:
        along = np.where(up > 1e-30, products[1] / np.maximum(up, 1e-30), 0.0)
        across = np.sqrt(np.maximum(products[2] - along**2, 0.0))
        rows.append(np.stack([along, across]))
    return np.stack(rows)
