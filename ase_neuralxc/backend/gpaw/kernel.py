"""The only module that imports GPAW: its names, and our functional in its clothes.

GPAW asks an XC object for energies and derivatives on uniform grids (through a kernel), and for
the one-centre corrections of PAW atoms. Both are served from one evaluator at points.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from gpaw import KohnShamConvergenceError
from gpaw.convergence_criteria import Energy
from gpaw.dft import XC, Parameters
from gpaw.mpi import world
from gpaw.new.calculation import DFT, ReuseWaveFunctionsError
from gpaw.new.logger import Logger
from gpaw.new.symmetry import SymmetryBrokenError
from gpaw.sphere.lebedev import weight_n
from gpaw.utilities import AtomsTooClose
from gpaw.xc import XC as make_functional
from gpaw.xc.gga import GGA
from gpaw.xc.mgga import MGGA
from numpy.typing import NDArray

from ase_neuralxc.backend.clamps import Evaluator
from ase_neuralxc.backend.gpaw.paw import OneCentre

__all__ = [
    "DFT",
    "XC",
    "AtomsTooClose",
    "Energy",
    "KohnShamConvergenceError",
    "Logger",
    "Parameters",
    "ReuseWaveFunctionsError",
    "SymmetryBrokenError",
    "native_evaluator",
    "native_functional",
    "point_functional",
    "world",
]

#: PAW data for this functional serve all functionals: there are none made for neural ones.
SETUPS = "PBE"


class _Kernel:
    """GPAW's protocol of a functional on points."""

    def __init__(self, name: str, evaluate: Evaluator, kind: str) -> None:
        self.name = name
        self.evaluate = evaluate
        self.type = kind

    def calculate(
        self,
        e_g: NDArray,
        n_sg: NDArray,
        dedn_sg: NDArray,
        sigma_xg: NDArray,
        dedsigma_xg: NDArray,
        tau_sg: NDArray | None = None,
        dedtau_sg: NDArray | None = None,
    ) -> None:
        """Overwrite `e_g`, `dedsigma_xg` and `dedtau_sg`; add to `dedn_sg` (GPAW's convention)."""
        spins = len(n_sg)
        arrays = [n_sg, sigma_xg, np.zeros_like(n_sg) if tau_sg is None else tau_sg]
        energy, first = self.evaluate([a.reshape(len(a), -1) for a in arrays], spins == 2)
        e_g[:] = energy.reshape(e_g.shape)
        dedn_sg += first[:spins].reshape(dedn_sg.shape)
        dedsigma_xg[:] = first[spins:-spins].reshape(dedsigma_xg.shape)
        if dedtau_sg is not None:
            dedtau_sg[:] = first[-spins:].reshape(dedtau_sg.shape)


class _OneCentreCorrections:
    """Mixin of GPAW's functionals: corrections of an atom in one call of the evaluator."""

    kernel: _Kernel
    type: str

    def get_setup_name(self) -> str:
        return SETUPS

    def calculate_paw_correction(
        self,
        setup: Any,
        D_sp: NDArray,
        dEdD_sp: NDArray | None = None,
        addcoredensity: bool = True,
        a: int | None = None,
    ) -> float:
        correction = setup.xc_correction
        if correction is None:
            return 0.0
        if not addcoredensity or correction.nc_corehole_g is not None:  # GPAW's own, slow but right
            return super().calculate_paw_correction(  # type: ignore[misc]
                setup, D_sp, dEdD_sp, addcoredensity, a
            )
        expansions = self.__dict__.setdefault("expansions", {})
        if correction not in expansions:
            expansions[correction] = OneCentre(correction, weight_n, self.type == "MGGA")
        energy, derivative = expansions[correction].energy(self.kernel.evaluate, D_sp)
        if dEdD_sp is not None:
            dEdD_sp += derivative
        return energy


class _PointGGA(_OneCentreCorrections, GGA):
    pass


class _PointMGGA(_OneCentreCorrections, MGGA):
    pass


class _PointXC(XC):
    """GPAW's description of a functional, which builds a new one for every calculation."""

    def __init__(self, name: str, evaluate: Evaluator, with_tau: bool) -> None:
        super().__init__(name)
        self.evaluate = evaluate
        self.with_tau = with_tau

    def functional(self, *, collinear: bool, atoms: Any = None) -> Any:
        kind = _PointMGGA if self.with_tau else _PointGGA
        return kind(_Kernel(self.name, self.evaluate, "MGGA" if self.with_tau else "GGA"))


def point_functional(name: str, evaluate: Evaluator, with_tau: bool) -> XC:
    """A functional for GPAW from an evaluator at points.

    Args:
        name: for GPAW's log.
        evaluate: the functional, behind its clamps.
        with_tau: whether it is a meta-GGA.

    Returns:
        What GPAW's parameter `xc` takes.
    """
    return _PointXC(name, evaluate, with_tau)


class _NativeXC(XC):
    """One of GPAW's own functionals, with the PAW data that serve all."""

    def functional(self, *, collinear: bool, atoms: Any = None) -> Any:
        xc = _make(self.name)
        xc.get_setup_name = lambda: SETUPS
        return xc


def native_functional(name: str) -> XC:
    """One of GPAW's functionals by name, run by GPAW alone: the peer of comparisons."""
    return _NativeXC(name)


def native_evaluator(name: str) -> tuple[Evaluator, bool]:
    """One of GPAW's functionals as an evaluator, to be run behind the clamps of ours.

    Args:
        name: GPAW's name.

    Returns:
        The evaluator, and whether it is a meta-GGA.
    """
    kernel = _make(name).kernel
    with_tau = kernel.type == "MGGA"

    def evaluate(arrays: Any, polarised: bool) -> tuple[NDArray, NDArray]:
        density, sigma, tau = arrays
        energy = np.empty(density.shape[-1])
        first = [np.zeros_like(density), np.zeros_like(sigma), np.zeros_like(tau)]
        if with_tau:
            kernel.calculate(energy, density, first[0], sigma, first[1], tau, first[2])
        else:
            kernel.calculate(energy, density, first[0], sigma, first[1])
        return energy, np.concatenate(first)

    return evaluate, with_tau


def _make(name: str) -> Any:
    with warnings.catch_warnings():
        # libxc's Fermi-hole bound on sigma cannot be switched off in distributions' builds
        warnings.filterwarnings("ignore", message="libxc should be compiled with --disable-fhc")
        return make_functional(name)
