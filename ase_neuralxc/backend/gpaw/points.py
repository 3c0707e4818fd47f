"""All points at which a GPAW calculation evaluates its functional, with their weights.

The exchange-correlation energy of PAW is that of the pseudo-density on the uniform grid, and for
each atom that of its density minus that of its pseudo-density within the sphere: one sum of weight
times energy density, in which the weights of atomic pseudo-densities are negative. Whatever
functional is put in, the points are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.clamps import Evaluator
from ase_neuralxc.backend.gpaw.paw import signed_weights
from ase_neuralxc.backend.gpaw.scf import GPAWRun


@dataclass(frozen=True)
class XCPoints:
    """Points of one density, closed-shell or of two spins (c = 1 or 2), in atomic units.

    Attributes:
        weights: [n] in Bohr^3, some of them negative.
        density: [c, n].
        sigma: [2 c - 1, n] products of gradients: up.up, up.down and down.down.
        tau: [c, n].
        constant: Hartree, minus the energies of GPAW's reference atoms: the energy of the
            calculation is this plus the sum of weight times energy density.
    """

    weights: NDArray
    density: NDArray
    sigma: NDArray
    tau: NDArray
    constant: float


def xc_points(run: GPAWRun) -> XCPoints:
    """Points and weights of a converged calculation with a functional that is evaluated by ours.

    Args:
        run: the `host` of a solution.

    Returns:
        The points, before any clamps.
    """
    dft = run.active()
    functional = dft.pot_calc.xc.xc
    kernel = functional.kernel
    recorder = _Recorder(kernel.evaluate)
    kernel.evaluate = recorder
    try:
        dft.pot_calc.calculate_without_orbitals(dft.density)
    finally:
        kernel.evaluate = recorder.evaluate
    n = recorder.calls[0][0].shape[1]  # of the uniform grid; the atoms come after it
    weights = [np.full(n, dft.density.nt_sR.desc.volume / n)]
    constant = 0.0
    for setup in dft.setups:
        atom = functional.expansions[setup.xc_correction]
        weights.append(signed_weights(atom))
        constant -= atom.reference
    density, sigma, tau = (
        np.concatenate(parts, axis=1) for parts in zip(*recorder.calls, strict=True)
    )
    return XCPoints(np.concatenate(weights), density, sigma, tau, constant)


class _Recorder:
    """An evaluator that keeps what it was asked for."""

    def __init__(self, evaluate: Evaluator) -> None:
        self.evaluate = evaluate
        self.calls: list[list[NDArray]] = []

    def __call__(self, arrays: Sequence[NDArray], polarised: bool) -> Any:
        self.calls.append([np.array(a) for a in arrays])
        return self.evaluate(arrays, polarised)
