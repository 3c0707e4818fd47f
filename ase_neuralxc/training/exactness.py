"""Exact constraints as numbers: how far a functional is from what is known of the exact one.

Every residual is zero for the exact functional and finite for any. Exchange is separated from
correlation by its scaling: E_x[n_s] = s E_x[n] under uniform scaling by s, while E_c of the
functionals in use grows at most logarithmically (Levy, PRA 43, 4637 (1991)), so that two large
scalings give both. References: Perdew, Ruzsinszky, Sun and Burke, JCP 140, 18A533 (2014); Kaplan,
Levy and Perdew, Annu. Rev. Phys. Chem. 74, 193 (2023).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf.dft import numint

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.training.model_densities import (
    HYDROGEN_COULOMB,
    ModelDensity,
    helium,
    hydrogen,
    modulated_gas,
    neon,
    spread_gas,
    steep_points,
)

#: Two scalings, both so large that correlation is a small and nearly constant part; libxc's r2SCAN
#: overflows beyond.
_HIGH = (1.0e8, 2.0e8)
#: Coefficient of the second-order gradient expansion of exchange.
GRADIENT_EXPANSION = 10 / 81
#: Lieb-Oxford: E_xc >= C int e_x^LDA in general (Lewin, Lieb and Seiringer, Lett. Math. Phys. 112,
#: 92 (2022)), and E_x of two electrons in one orbital.
LIEB_OXFORD, LIEB_OXFORD_TWO = 1.5765 / 0.7386, 1.174


@dataclass(frozen=True)
class Residual:
    """One constraint, measured.

    Attributes:
        name: of the constraint.
        value: the residual; zero if the constraint is obeyed.
        unit: "Ha", "" for a ratio.
        meaning: what was compared with what.
    """

    name: str
    value: float
    unit: str
    meaning: str


class _Measured:
    """Energies of model densities; exact exchange of hybrids is left out but where it is known."""

    def __init__(self, functional: Any) -> None:
        if not isinstance(functional, (SemilocalFunctional, LibxcFunctional)):
            raise InvalidInputError(
                f"functional: expected a semi-local functional, got {type(functional).__name__}"
            )
        self.functional = functional
        #: of semi-local exchange: a hybrid's is reduced by its exact part
        self.share = 1.0 - float(functional.exchange_fraction)

    def per_volume(self, model: ModelDensity) -> NDArray:
        """Semi-local energy per volume, [n]."""
        if isinstance(self.functional, LibxcFunctional):
            return self._libxc(model)
        density, sigma, tau = map(torch.from_numpy, (model.density, model.sigma, model.tau))
        invariants = DensityInvariants(density, sigma, tau)
        with torch.no_grad():
            return self.functional.local_energy_density(invariants).numpy()

    def _libxc(self, model: ModelDensity) -> NDArray:
        code = self.functional.xc_code
        ni = numint.NumInt()
        rows = {"LDA": 1, "GGA": 4, "MGGA": 5}[ni._xc_type(code)]
        zero = np.zeros_like(model.density)
        rho = np.stack([model.density, model.gradient, zero, zero, model.tau], axis=1)[:, :rows]
        exc = ni.eval_xc_eff(code, np.ascontiguousarray(rho), deriv=0, spin=1)[0]
        return exc * model.density.sum(0)

    def energy(self, model: ModelDensity) -> float:
        """Semi-local energy in Hartree."""
        return float(self.per_volume(model) @ model.weights)

    def exchange_per_volume(self, model: ModelDensity) -> NDArray:
        """Semi-local exchange per volume, [n], as if its fraction were one.

        The linear part of the energy in the scaling: correlation leaves a part of 1e-9 of it.
        """
        low, high = _HIGH
        e_low, e_high = (self.per_volume(model.scaled(s)) / s**3 for s in _HIGH)
        return (e_high - e_low) / (high - low) / self.share

    def exchange(self, model: ModelDensity) -> float:
        """Semi-local exchange in Hartree, as if its fraction were one."""
        return float(self.exchange_per_volume(model) @ model.weights)

    def correlation(self, model: ModelDensity) -> float:
        """Correlation in Hartree."""
        return self.energy(model) - self.share * self.exchange(model)

    def one_orbital(self, up: float, down: float) -> float:
        """Coulomb plus exchange plus correlation energy of a partly filled hydrogen orbital."""
        coulomb = HYDROGEN_COULOMB * (up + down) ** 2
        exact = -HYDROGEN_COULOMB * (up**2 + down**2)
        return coulomb + (1 - self.share) * exact + self.energy(hydrogen().occupied(up, down))


def residuals(functional: Any) -> list[Residual]:
    """Measure all constraints.

    Args:
        functional: a semi-local torch functional (a fraction of exact exchange is allowed), or one
            of libxc.

    Returns:
        One record per constraint.

    Raises:
        InvalidInputError: a nonlocal functional.
    """
    measured = _Measured(functional)
    return [Residual(name, float(f(measured)), unit, text) for name, unit, text, f in _CONSTRAINTS]


def report(functionals: Sequence[Any]) -> str:
    """Constraints of several functionals side by side.

    Args:
        functionals: as for `residuals`.

    Returns:
        A table, one line per constraint.
    """
    columns = [residuals(functional) for functional in functionals]
    names = [str(functional.name)[-14:] for functional in functionals]
    lines = [f"{'constraint':34}" + "".join(f"{name:>15}" for name in names)]
    for row in zip(*columns, strict=True):
        label = f"{row[0].name} / {row[0].unit}" if row[0].unit else row[0].name
        lines.append(f"{label:34}" + "".join(f"{cell.value:15.2e}" for cell in row))
    lines.append("")
    lines += [f"{cell.name}: {cell.meaning}" for cell in columns[0]]
    return "\n".join(lines)


def _exchange_sign(f: _Measured) -> float:
    slater = _slater(neon())
    return float(np.maximum(f.exchange_per_volume(neon()) / slater, 0.0).max())


def _correlation_sign(f: _Measured) -> float:
    return max(f.correlation(neon()), f.correlation(helium()), 0.0)


def _spin_scaling(f: _Measured) -> float:
    model = neon(polarised=True)
    half = 0.5 * (f.exchange(_doubled(model, 0)) + f.exchange(_doubled(model, 1)))
    return f.exchange(model) / half - 1.0


def _exchange_scaling(f: _Measured) -> float:
    model = neon()
    return f.exchange(model.scaled(0.01)) / (0.01 * f.exchange(model)) - 1.0


def _correlation_scaling(f: _Measured) -> float:
    worst = 0.0
    for model in (helium(), neon()):
        energy = f.correlation(model)
        for s in (0.25, 0.5, 2.0, 4.0):
            # E_c[n_s] > s E_c for s > 1 and < s E_c for s < 1
            excess = (s * energy - f.correlation(model.scaled(s))) * (1 if s > 1 else -1)
            worst = max(worst, excess)
    return worst


def _gradient_expansion(f: _Measured) -> float:
    model = modulated_gas(0.5, 0.1, 0.05)
    slater = _slater(model)
    n, slope = model.density.sum(0), model.gradient.sum(0)
    s2 = slope**2 / (4 * (3 * math.pi**2) ** (2 / 3) * n ** (8 / 3))
    excess = (f.exchange_per_volume(model) + slater) @ model.weights
    return float(-excess / ((slater * s2) @ model.weights)) - GRADIENT_EXPANSION


def _large_gradient(f: _Measured) -> float:
    model = steep_points(0.1, np.array([100.0, 400.0]))
    low, high = np.abs(f.exchange_per_volume(model) / _slater(model))
    if low == 0.0 or high == 0.0:
        return 0.0  # decays faster than any power
    return max(float(np.log(high / low) / np.log(4.0)) + 0.5, 0.0)


def _lieb_oxford(f: _Measured) -> float:
    worst = 0.0
    for model in (neon(), helium(), hydrogen()):
        for s in (0.01, 1.0):
            scaled = model.scaled(s)
            ratio = -f.energy(scaled) / f.share / float(_slater(scaled) @ scaled.weights)
            worst = max(worst, ratio - LIEB_OXFORD)
    return worst


def _lieb_oxford_two(f: _Measured) -> float:
    slater = float(_slater(helium()) @ helium().weights)
    return max(-f.exchange(helium()) / slater - LIEB_OXFORD_TWO, 0.0)


def _low_density(f: _Measured) -> float:
    polarised, unpolarised = hydrogen(), hydrogen().occupied(0.5, 0.5)
    s = 0.02  # lower, and functionals' own thresholds of density are what is seen
    return f.energy(polarised.scaled(s)) / f.energy(unpolarised.scaled(s)) - 1.0


def _kinetic_operator(f: _Measured) -> float:
    gas = spread_gas(2048)
    step = 0.05 * gas.density[0] ** (5 / 3)  # 0.01 in alpha: networks are of single precision
    up, down = (
        f.per_volume(replace(gas, tau=gas.tau + np.stack([sign * step, 0.0 * step])))
        for sign in (0.5, -0.5)
    )
    return float(np.maximum(-1.0 - 2.0 * (up - down) / step, 0.0).max())


def _slater(model: ModelDensity) -> NDArray:
    """Minus the exchange of the uniform gas per volume, of the total density unpolarised."""
    return 0.75 * (3 / math.pi) ** (1 / 3) * model.density.sum(0) ** (4 / 3)


def _doubled(model: ModelDensity, spin: int) -> ModelDensity:
    """A closed shell of two copies of one spin density."""
    density, gradient, tau = (
        np.stack([rows[spin], rows[spin]]) for rows in (model.density, model.gradient, model.tau)
    )
    return ModelDensity(density, gradient, tau, model.weights)


_CONSTRAINTS: list[tuple[str, str, str, Callable[[_Measured], float]]] = [
    ("exchange sign", "", "largest positive exchange, of Slater's, in neon's shells",
     _exchange_sign),
    ("correlation sign", "Ha", "positive correlation energy of model neon or helium",
     _correlation_sign),
    ("spin scaling of exchange", "", "E_x[up, down] over (E_x[2 up] + E_x[2 down]) / 2, minus one",
     _spin_scaling),
    ("uniform scaling of exchange", "", "E_x[n_s] over s E_x[n] for s = 0.01, minus one",
     _exchange_scaling),
    ("scaling of correlation", "Ha", "violation of E_c[n_s] > s E_c[n] for s > 1 and its reverse",
     _correlation_scaling),
    ("gradient expansion of exchange", "", "coefficient of s^2 in a weakly modulated gas - 10/81",
     _gradient_expansion),
    ("decay at large gradients", "", "exponent of F_x(s) from s = 100 to 400, above -1/2",
     _large_gradient),
    ("Lieb-Oxford", "", "E_xc over Slater exchange above 2.135, also at low density",
     _lieb_oxford),
    ("Lieb-Oxford, two electrons", "", "exchange over Slater exchange in helium above 1.174",
     _lieb_oxford_two),
    ("one-electron correlation", "Ha", "correlation energy of the hydrogen atom's density",
     lambda f: f.correlation(hydrogen())),
    ("one-electron self-interaction", "Ha", "Coulomb plus exchange plus correlation of hydrogen",
     lambda f: f.one_orbital(1.0, 0.0)),
    ("low-density limit", "", "E_xc of polarised over unpolarised hydrogen at s = 0.02, minus one",
     _low_density),
    ("kinetic operator", "", "largest 1 + 2 d e_xc / d tau below zero, at densities of all kinds",
     _kinetic_operator),
    ("fractional charge", "Ha", "Coulomb, exchange and correlation of half a hydrogen electron",
     lambda f: f.one_orbital(0.5, 0.0)),
    ("fractional spin", "Ha", "half an electron of each spin against one of one spin",
     lambda f: f.one_orbital(0.5, 0.5) - f.one_orbital(1.0, 0.0)),
]  # fmt: skip
