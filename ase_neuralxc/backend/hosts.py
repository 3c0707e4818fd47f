"""Which host solves a system, with which settings, and why.

A host is a class behind `KSBackend` with a frozen dataclass of its own settings. The table is all
that has to be extended for another host; nothing of a host is imported before it is used.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any

from ase_neuralxc.errors import InvalidInputError, unknown_name

AUTO = "auto"
_HOSTS = {
    "pyscf": ("ase_neuralxc.backend.molecular", "MolecularBackend"),
    "pyscf-pbc": ("ase_neuralxc.backend.periodic", "PeriodicBackend"),
    "gpaw": ("ase_neuralxc.backend.gpaw_pw", "GPAWBackend"),
}


def host_names() -> tuple[str, ...]:
    """Names that the calculator takes as `backend`, besides "auto"."""
    return tuple(_HOSTS)


def load_host(name: str) -> Any:
    """Build the backend of a host.

    Args:
        name: one of `host_names()`.

    Returns:
        A new backend.

    Raises:
        InvalidInputError: another name.
    """
    if name not in _HOSTS:
        raise unknown_name("backend", name, (AUTO, *_HOSTS))
    module, attribute = _HOSTS[name]
    return getattr(importlib.import_module(module), attribute)()


def choose_host(requested: str, pbc: Iterable[bool]) -> tuple[str, str]:
    """Choose the host of a structure.

    Args:
        requested: "auto" or the name of a host.
        pbc: the periodic directions of the structure.

    Returns:
        The name of the host, and the reason in words.

    Raises:
        InvalidInputError: a molecular host was asked for a periodic structure.
    """
    periodic = any(pbc)
    if requested == "pyscf" and periodic:
        raise InvalidInputError(
            f"backend: 'pyscf' takes molecules, got pbc = {list(pbc)}; expected 'pyscf-pbc', "
            "'gpaw' or 'auto' for a periodic structure"
        )
    if requested != AUTO:
        return requested, "asked for"
    if not periodic:
        return "pyscf", "no periodic direction"
    if find_spec("gpaw") is not None:
        return "gpaw", "periodic"
    return "pyscf-pbc", "periodic, and GPAW is not installed"


def candidates(requested: str) -> tuple[str, ...]:
    """Hosts that a calculator may come to use.

    Args:
        requested: "auto" or the name of a host.

    Returns:
        Names of hosts, the cheapest to import first.

    Raises:
        InvalidInputError: another name.
    """
    if requested != AUTO and requested not in _HOSTS:
        raise unknown_name("backend", str(requested), (AUTO, *_HOSTS))
    return host_names() if requested == AUTO else (requested,)


def host_settings(name: str, keywords: Mapping[str, Any], reason: str) -> Any:
    """Settings of a host from keywords.

    Args:
        name: the host.
        keywords: settings by name.
        reason: why it is this host, for the error.

    Returns:
        The host's frozen settings.

    Raises:
        InvalidInputError: a keyword that this host does not have, or a value that it refuses.
    """
    kind = load_host(name).Settings
    fields = _fields(kind)
    for keyword in keywords:
        if keyword not in fields:
            raise InvalidInputError(
                f"{keyword}: the backend {name!r} ({reason}) has no such setting; it has "
                f"{', '.join(sorted(fields))}"
            )
    return kind(**keywords)


def check_keywords(requested: str, keywords: Mapping[str, Any], own: Iterable[str]) -> None:
    """Refuse, before any structure is known, settings that no host would take.

    Args:
        requested: "auto" or the name of a host.
        keywords: settings by name.
        own: the calculator's own parameters, for the nearest valid name.

    Raises:
        InvalidInputError: an unknown name (with the nearest valid one), settings that no single
            host has together, or a value that every host refuses.
    """
    valid: set[str] = set(own)
    refused: list[InvalidInputError] = []
    for name in candidates(requested):
        fields = _fields(load_host(name).Settings)
        valid |= fields
        if not fields.issuperset(keywords):
            continue
        try:
            host_settings(name, keywords, "asked for")
        except InvalidInputError as error:
            refused.append(error)
        else:
            return
    for keyword in keywords:
        if keyword not in valid:
            raise unknown_name("parameter", keyword, valid)
    if refused:
        raise refused[0]
    raise InvalidInputError(
        f"parameters: no backend has all of {', '.join(sorted(keywords))} as settings; molecules, "
        "PySCF's crystals and plane waves have different ones"
    )


def _fields(kind: type) -> set[str]:
    return {field.name for field in dataclasses.fields(kind)}
