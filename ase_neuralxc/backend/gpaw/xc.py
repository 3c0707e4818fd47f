"""Our functionals as GPAW's, and GPAW itself, loaded when it is first needed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, cast

from pyscf.dft import libxc

from ase_neuralxc.backend.clamps import ClampedEvaluator, DensityClamps, Evaluator
from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.backend.pointwise import evaluate_invariants
from ase_neuralxc.errors import InvalidInputError, MissingDependencyError
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import load_functional
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional


def load_gpaw() -> ModuleType:
    """The module with GPAW's names.

    Returns:
        `ase_neuralxc.backend.gpaw.kernel`.

    Raises:
        MissingDependencyError: GPAW is not installed, or cannot be loaded.
    """
    try:
        return importlib.import_module("ase_neuralxc.backend.gpaw.kernel")
    except ImportError as error:
        raise MissingDependencyError(
            f"backend='gpaw': GPAW cannot be loaded ({error}); install it with "
            "scripts/install_gpaw, or use backend='pyscf-pbc'"
        ) from error


def make_xc(
    functional: XCFunctional | LibxcFunctional, clamps: DensityClamps | None, device: str
) -> Any:
    """A functional as GPAW's parameter `xc`.

    Args:
        functional: a semi-local torch functional, moved to `device`, or one of libxc, which GPAW
            runs itself (without clamps) or point by point behind them.
        clamps: bounds of the density.
        device: torch device.

    Returns:
        An `XC` of GPAW.

    Raises:
        InvalidInputError: a functional with exact exchange, a nonlocal one, or one of libxc that
            GPAW cannot express.
    """
    gpaw = load_gpaw()
    if functional.exchange_fraction:
        raise InvalidInputError(
            f"xc: expected a functional without exact exchange for backend='gpaw', got "
            f"{functional.name!r} with {functional.exchange_fraction:g}"
        )
    if isinstance(functional, LibxcFunctional):
        functional.refuse_vv10("backend='gpaw'")
        name = _gpaw_name(functional)
        if clamps is None:
            return gpaw.native_functional(name)
        evaluate, with_tau = gpaw.native_evaluator(name)
        return gpaw.point_functional(name, ClampedEvaluator(evaluate, clamps), with_tau)
    if not isinstance(functional, SemilocalFunctional):
        raise InvalidInputError(
            f"xc: expected a semi-local functional for backend='gpaw', got {functional.name!r}, "
            "which depends on more than the density at a point"
        )
    with_tau = Feature.TAU in functional.features
    own = _torch_evaluator(functional, device, clamps)
    base = getattr(getattr(functional, "settings", None), "base", None)
    if base is not None:
        cheaper = cast("SemilocalFunctional", load_functional(base))
        own = Stages(own, _torch_evaluator(cheaper, device, clamps))
    return gpaw.point_functional(functional.name, own, with_tau)


class Stages:
    """An evaluator that another one can stand in for, as long as an SCF is far from its end.

    Args:
        full: the functional that was asked for.
        cheaper: the one that stands in.

    Attributes:
        far: whether it does.
    """

    def __init__(self, full: Evaluator, cheaper: Evaluator) -> None:
        self.full, self.cheaper, self.far = full, cheaper, False

    def __call__(self, arrays: Any, polarised: bool) -> Any:
        """As `Evaluator`."""
        return (self.cheaper if self.far else self.full)(arrays, polarised)


def _torch_evaluator(
    functional: SemilocalFunctional, device: str, clamps: DensityClamps | None
) -> Evaluator:
    functional.to(device)

    def evaluate(arrays: Any, polarised: bool) -> Any:
        energy, first, _ = evaluate_invariants(functional, arrays, polarised, 1, device)
        return energy, first

    return evaluate if clamps is None else ClampedEvaluator(evaluate, clamps)


def _gpaw_name(functional: LibxcFunctional) -> str:
    """Names of the parts in libxc, as GPAW wants them: GGA_X_PBE+GGA_C_PBE."""
    _, parts = libxc.parse_xc(functional.xc_code)
    names = [_libxc_name(int(code)) for code, _ in parts]
    kinds = sorted("x" if "_X_" in n else "c" if "_C_" in n else "xc" for n in names)
    if any(weight != 1 for _, weight in parts) or kinds not in (["x"], ["c"], ["xc"], ["c", "x"]):
        raise InvalidInputError(
            f"xc: expected at most one exchange and one correlation functional, each once, for "
            f"backend='gpaw', got {functional.name!r} = {list(zip(names, parts, strict=True))}"
        )
    return "+".join(sorted(names, key=lambda n: "_C_" in n))


def _libxc_name(code: int) -> str:
    names = [n for n, c in libxc.XC_CODES.items() if c == code and "_" in n]
    return str(names[0]).upper()
