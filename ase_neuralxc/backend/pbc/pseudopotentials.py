"""GTH pseudopotentials and their bases by element, with the number of valence electrons.

PySCF's aliases choose a valence silently ("gth-pbe" is 18 electrons for Pd and 11 for Ag). Here one
table says how many electrons each element has, and both the pseudopotential and the basis are taken
by their full CP2K names with that number: Goedecker, Teter and Hutter, PRB 54, 1703 (1996);
Hartwigsen et al., PRB 58, 3641 (1998); Krack, TCA 114, 145 (2005); MOLOPT bases: VandeVondele and
Hutter, JCP 127, 114105 (2007).
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from pyscf import gto
from pyscf.gto.basis import load_pseudo
from pyscf.lib.exceptions import BasisNotFoundError

from ase_neuralxc.backend.system import for_element
from ase_neuralxc.errors import InvalidInputError

#: Valence electrons by element: those of the MOLOPT bases for solids. Pd, Pt and Ni have 18, with
#: their semicore shells, because there is no MOLOPT basis for the potentials with 10; Cu, Ag and Au
#: have 11, Zn, Cd and Hg 12, without semicore shells.
VALENCE = {
    "H": 1, "He": 2,
    "Li": 3, "Be": 4, "B": 3, "C": 4, "N": 5, "O": 6, "F": 7, "Ne": 8,
    "Na": 9, "Mg": 10, "Al": 3, "Si": 4, "P": 5, "S": 6, "Cl": 7, "Ar": 8,
    "K": 9, "Ca": 10, "Sc": 11, "Ti": 12, "V": 13, "Cr": 14, "Mn": 15, "Fe": 16, "Co": 17,
    "Ni": 18, "Cu": 11, "Zn": 12, "Ga": 13, "Ge": 4, "As": 5, "Se": 6, "Br": 7, "Kr": 8,
    "Rb": 9, "Sr": 10, "Y": 11, "Zr": 12, "Nb": 13, "Mo": 14, "Tc": 15, "Ru": 16, "Rh": 17,
    "Pd": 18, "Ag": 11, "Cd": 12, "In": 13, "Sn": 4, "Sb": 5, "Te": 6, "I": 7, "Xe": 8,
    "Cs": 9, "Ba": 10, "La": 11, "Ce": 12, "Pr": 13, "Nd": 14, "Pm": 15, "Sm": 16, "Eu": 17,
    "Gd": 18, "Tb": 19, "Dy": 20, "Ho": 21, "Er": 22, "Tm": 23, "Yb": 24, "Lu": 25,
    "Hf": 12, "Ta": 13, "W": 14, "Re": 15, "Os": 16, "Ir": 17, "Pt": 18, "Au": 11, "Hg": 12,
    "Tl": 13, "Pb": 4, "Bi": 5, "Po": 6, "At": 7, "Rn": 8,
}  # fmt: skip

#: Bases that an error recommends.
RECOMMENDED = ("gth-dzvp-molopt-sr", "gth-szv-molopt-sr", "gth-tzvp-molopt")

_SUFFIX = re.compile(r"-q(\d+)$", re.IGNORECASE)


def load_pseudopotential(element: str, requested: str | Mapping[str, str]) -> tuple[str, list]:
    """Pseudopotential of an element.

    Args:
        element: chemical symbol.
        requested: a family such as "gth-pbe" (the table says how many electrons), a full name such
            as "GTH-PBE-q10", or a mapping element -> either, with an optional "default".

    Returns:
        Full name, and PySCF's internal form.

    Raises:
        InvalidInputError: no such pseudopotential for this element.
    """
    asked = for_element("pseudo", requested, element)
    suffix = _SUFFIX.search(asked)
    if suffix is None and element not in VALENCE:
        raise InvalidInputError(
            f"pseudo: expected an element from H to Rn with a GTH pseudopotential, got {element} "
            f"with {asked!r}"
        )
    count = int(suffix.group(1)) if suffix else VALENCE[element]
    name = f"{_SUFFIX.sub('', asked).upper()}-q{count}"
    try:
        loaded = _quietly(load_pseudo, name, element)
    except (BasisNotFoundError, RuntimeError, KeyError, OSError) as error:
        raise InvalidInputError(
            f"pseudo: expected a GTH pseudopotential that has {element}, got {asked!r} ({name}), "
            "which has none"
        ) from error
    return name, loaded


def load_basis(
    element: str, requested: str | Mapping[str, str], valence: int
) -> tuple[str, list[Any]]:
    """Basis of an element that belongs to a pseudopotential.

    Args:
        element: chemical symbol.
        requested: a family such as "gth-dzvp-molopt-sr", a full CP2K name such as
            "DZVP-MOLOPT-SR-GTH-q10", or a mapping element -> either, with an optional "default".
        valence: electrons that the pseudopotential leaves.

    Returns:
        Full name, and PySCF's internal form.

    Raises:
        InvalidInputError: not a basis for GTH pseudopotentials, none for this element, or one made
            for another number of electrons.
    """
    asked = for_element("basis", requested, element)
    words = [w for w in _SUFFIX.sub("", asked).upper().split("-") if w != "GTH"]
    if "GTH" not in asked.upper().split("-"):
        raise InvalidInputError(
            f"basis: expected a basis for GTH pseudopotentials in a periodic calculation, such as "
            f"{', '.join(RECOMMENDED)}, got {asked!r} for {element}"
        )
    suffix = _SUFFIX.search(asked)
    if suffix and int(suffix.group(1)) != valence:
        raise InvalidInputError(
            f"basis: expected one for the {valence} valence electrons of the pseudopotential of "
            f"{element}, got {asked!r}"
        )
    name = f"{'-'.join(words)}-GTH-q{valence}"
    try:
        return name, _quietly(gto.basis.load, name, element)
    except (BasisNotFoundError, RuntimeError, KeyError, OSError) as error:
        raise InvalidInputError(
            f"basis: expected a basis that has {element} with {valence} valence electrons, got "
            f"{asked!r} ({name}), which has none"
        ) from error


def n_valence(pseudopotential: list) -> int:
    """Electrons that a loaded pseudopotential leaves."""
    return int(sum(pseudopotential[0]))


def _quietly(load: Any, name: str, element: str) -> list:
    with warnings.catch_warnings():  # PySCF advertises a package when it finds nothing
        warnings.simplefilter("ignore")
        found: list = load(name, element)
    return found
