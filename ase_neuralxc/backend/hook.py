"""A torch functional inside PySCF's numerical integrator.

PySCF asks its integrator for the energy per electron and for derivative tensors with respect to
`(rho, grad rho, tau)`. Here they come from automatic differentiation of a `SemilocalFunctional`
with respect to its invariants, block by block, so that no graph outlives a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf.dft import numint

from ase_neuralxc.backend import chain_rule
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional.protocol import SemilocalFunctional

#: Points per block by derivative order. Blocks this long hide the cost of calling torch, and a
#: block's graph still takes some 20 MB only; second derivatives keep ten times as much.
BLOCK = {0: 16384, 1: 16384, 2: 4096}
#: Total density below which a point is skipped, as libxc does (its r2SCAN threshold is 1e-11).
DENSITY_THRESHOLD = 1e-11


class _FunctionalLibrary:
    """Stands in for `pyscf.dft.libxc` where PySCF asks questions about a functional by name."""

    __name__ = "ase_neuralxc"
    __version__ = "1"
    __reference__ = "torch functional"

    def __init__(self, exchange_fraction: float) -> None:
        self._exchange_fraction = exchange_fraction

    def is_nlc(self, xc_code: str) -> bool:
        return False

    def is_hybrid_xc(self, xc_code: str) -> bool:
        return self._exchange_fraction != 0.0

    def test_deriv_order(self, xc_code: str, deriv: int, raise_error: bool = False) -> bool:
        if deriv > 2 and raise_error:
            raise InvalidInputError(
                f"deriv: torch functionals give derivatives up to order 2, got {deriv}"
            )
        return deriv <= 2

    def xc_reference(self, xc_code: str) -> list[str]:
        return [self.__reference__]


class TorchNumInt(numint.NumInt):
    """PySCF's integrator with the functional evaluated by torch.

    Args:
        functional: a semi-local functional; it is moved to `device`.
        device: torch device on which the functional is evaluated.
    """

    def __init__(self, functional: SemilocalFunctional, device: str = "cpu") -> None:
        super().__init__()
        self.functional = functional.to(device)
        #: What gives energies and potentials: the functional, perhaps in another precision.
        self.precise = self.functional
        self.device = device
        self.libxc = _FunctionalLibrary(functional.exchange_fraction)
        self.xctype = _xc_type(functional.features)

    def _xc_type(self, xc_code: str) -> str:
        return self.xctype

    def hybrid_coeff(self, xc_code: str, spin: int = 0) -> float:
        """Fraction of exact exchange."""
        return self.functional.exchange_fraction

    def rsh_coeff(self, xc_code: str) -> tuple[float, float, float]:
        """No range separation: omega, long-range and extra short-range fractions."""
        return 0.0, self.functional.exchange_fraction, 0.0

    def nlc_coeff(self, xc_code: str) -> tuple:
        """No nonlocal correlation."""
        return ()

    def eval_xc_eff(
        self,
        xc_code: str,
        rho: Any,
        deriv: int = 1,
        omega: float | None = None,
        xctype: str | None = None,
        verbose: Any = None,
        spin: int | None = None,
    ) -> list[NDArray | None]:
        """Energy per electron and derivative tensors, in PySCF's layout.

        Args:
            xc_code: ignored; the functional is an object.
            rho: [nvar, n] total or [2, nvar, n] spin densities with their gradients and tau;
                an optional Laplacian row before tau is dropped. For an LDA the nvar axis may be
                missing.
            deriv: highest derivative, at most 2.
            omega: range separation, not supported.
            xctype: "LDA", "GGA" or "MGGA": the rows that `rho` carries.
            verbose: ignored.
            spin: 0 for a total density, 1 for spin densities; read from the shape by default.

        Returns:
            [exc [n], vxc, fxc, None], with None for orders beyond `deriv`.

        Raises:
            InvalidInputError: for `deriv` above 2.
            FunctionalError: the functional returned a value that is not finite.
        """
        self.libxc.test_deriv_order(xc_code, deriv, raise_error=True)
        if isinstance(rho, (tuple, list)) and spin is None:
            spin = 1
        values = np.asarray(rho, dtype=np.float64)
        xctype = xctype or self.xctype
        if spin is None:
            spin = int(
                values.ndim == 3 or (xctype == "LDA" and values.ndim == 2 and values.shape[0] == 2)
            )
        nvar = {"LDA": 1, "GGA": 4, "MGGA": 5}[xctype]
        if values.shape[-2:-1] == (6,):
            values = values[..., [0, 1, 2, 3, 5], :]
        n = values.shape[-1]
        values = np.ascontiguousarray(values.reshape((2, nvar, n) if spin else (nvar, n)))
        exc = np.zeros(n)
        shape = (2, nvar) if spin else (nvar,)
        vxc = np.zeros((*shape, n)) if deriv > 0 else None
        fxc = np.zeros((*shape, *shape, n)) if deriv > 1 else None
        total = values[:, 0].sum(0) if spin else values[0]
        (kept,) = np.nonzero(total > DENSITY_THRESHOLD)
        for start in range(0, kept.size, BLOCK[deriv]):
            points = kept[start : start + BLOCK[deriv]]
            block = values[..., points]
            energy, first, second = evaluate_invariants(
                self.precise if deriv < 2 else self.functional,
                chain_rule.invariants(block, bool(spin)),
                bool(spin),
                deriv,
                self.device,
            )
            exc[points] = energy / total[points]
            if vxc is not None:
                vxc[..., points] = chain_rule.first(block, first, bool(spin))
            if fxc is not None and second is not None:
                fxc[..., points] = chain_rule.second(block, first, second, bool(spin))
        return [exc, vxc, fxc, None]


def check_device(device: str) -> str:
    """Check that torch can use a device.

    Args:
        device: torch's name of it, "cpu" or "cuda".

    Returns:
        The device.

    Raises:
        InvalidInputError: no such device on this machine.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidInputError(
            f"device: expected a device that torch can use here, got {device!r} ({error})"
        ) from error
    return device


def _xc_type(features: frozenset[Feature]) -> str:
    if Feature.TAU in features:
        return "MGGA"
    return "GGA" if Feature.GRADIENT in features else "LDA"
