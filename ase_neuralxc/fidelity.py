"""Fidelity tag, convergence record and provenance of a calculation."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.records import FidelityTag


def fidelity_tag(functional: Any, solution: KSSolution, terms: Sequence[Any]) -> FidelityTag:
    """Everything that decides which potential-energy surface a label lies on.

    Args:
        functional: the functional in use.
        solution: a converged solution.
        terms: the additive energy terms.

    Returns:
        The tag; resolved quantities that follow from it are left to the provenance.
    """
    named = {term.name: term for term in terms}
    named.pop("electric field", None)
    target = solution.system.spin_state.target
    return FidelityTag(
        functional=functional.name,
        functional_hash=_identity(functional),
        dispersion="+".join(named) or None,
        spin_treatment=solution.reference.upper(),
        constraint=None if target == "ground" else target,
        exchange_fraction=float(functional.exchange_fraction),
        **solution.settings.fidelity(functional),
    )


def convergence_record(solution: KSSolution) -> dict[str, Any]:
    """How the SCF converged, in plain types."""
    last = solution.history[-1]
    return {
        "converged": True,
        "strategy": last.strategy,
        "attempts": len(solution.history),
        "cycles": solution.cycles,
        "gradient_norm": last.gradient_norm,
        "conv_tol": solution.settings.conv_tol,
    }


def provenance(solution: KSSolution) -> dict[str, Any]:
    """Versions and resolved sizes; outside the fidelity digest."""
    own = getattr(solution.settings, "packages", ())  # those of a host beyond the dependencies
    packages = ("ase", "ase_neuralxc", "numpy", "pyscf", "torch", *own)
    return {
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        **solution.sizes,
        "device": solution.settings.device,
    }


def _identity(functional: Any) -> str:
    """SHA-256 of its file if it came from a foreign one, else of what it computes; "" for libxc."""
    if hasattr(functional, "file_hash"):
        return str(functional.file_hash)
    return functional_hash(functional) if hasattr(functional, "state_dict") else ""
