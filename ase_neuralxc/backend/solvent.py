"""Implicit solvents by name."""

from __future__ import annotations

from typing import Any

from pyscf.solvent import smd
from pyscf.solvent.smd import solvent_db

from ase_neuralxc.errors import InvalidInputError, unknown_name


def attach_solvent(mf: Any, solvent: str) -> Any:
    """Wrap a mean-field object in a continuum solvent.

    Args:
        mf: PySCF mean-field object.
        solvent: a solvent of the SMD database (Marenich, Cramer, Truhlar, JPCB 113, 6378 (2009)),
            or "pcm:EPS" for IEF-PCM with dielectric constant EPS, or "pcm:NAME" with the
            dielectric constant of a solvent of that database.

    Returns:
        The wrapped mean-field object.

    Raises:
        InvalidInputError: unknown solvent or a dielectric constant that is not above 1.
    """
    kind, _, value = solvent.lower().partition(":")
    if kind == "pcm":
        wrapped = mf.PCM()
        wrapped.with_solvent.method = "IEF-PCM"
        wrapped.with_solvent.eps = _dielectric(value)
        return wrapped
    if not kind or kind not in solvent_db:
        raise unknown_name("solvent", solvent, [*filter(None, solvent_db), "pcm:EPS"])
    wrapped = mf.SMD()
    wrapped.with_solvent.solvent = kind
    return wrapped


def _dielectric(value: str) -> float:
    if value in solvent_db:
        return float(smd.solvent_db[value][5])
    try:
        eps = float(value)
    except ValueError as error:
        raise unknown_name("solvent", f"pcm:{value}", solvent_db) from error
    if not eps > 1:
        raise InvalidInputError(f"solvent: expected a dielectric constant above 1, got {eps}")
    return eps
