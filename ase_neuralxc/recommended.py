"""How a functional is meant to be used, from the card of its checkpoint."""

from __future__ import annotations

from typing import Any

from ase_neuralxc.backend.libxc import LibxcFunctional
from ase_neuralxc.terms.dispersion import Dispersion, parse_dispersion

#: Value of `dispersion` that leaves the choice to the functional.
RECOMMENDED = "recommended"


def recommended_settings(functional: Any, host: str) -> dict[str, Any]:
    """Settings that belong to a functional.

    Args:
        functional: any functional; only one from a checkpoint has a card.
        host: name of the backend; only molecules have a recommended basis and grid.

    Returns:
        "basis", "grid_level" and "density_fit" as far as the card names them.
    """
    card = getattr(functional, "card", None)
    if card is None or host != "pyscf":
        return {}
    values = {name: getattr(card, name) for name in ("basis", "grid_level", "density_fit")}
    return {name: value for name, value in values.items() if value is not None}


def with_dispersion(functional: Any, asked: str | None) -> tuple[Any, Dispersion | None]:
    """The dispersion correction of a calculation, and what it is added to.

    Args:
        functional: any functional.
        asked: what the user wrote: a method, a method and a damping, None, or `RECOMMENDED`.

    Returns:
        The functional, without the nonlocal correlation (VV10) whose place the correction takes
        (Najibi and Goerigk, JCTC 14, 5725, 2018), and the correction or None.

    Raises:
        InvalidInputError: an unknown method or damping.
    """
    if asked == RECOMMENDED:
        card = getattr(functional, "card", None)
        asked = None if card is None else card.dispersion
    term = parse_dispersion(asked, getattr(functional, "dispersion", None) or functional.name)
    if term is not None and isinstance(functional, LibxcFunctional):
        functional = functional.without_vv10()
    return functional, term
