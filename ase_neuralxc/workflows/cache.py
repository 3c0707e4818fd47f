"""Directories of intermediate results that know what they belong to.

ASE's caches and trajectories hold forces without saying of what. A `calculation.json` beside them
is compared before any of them is used again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_neuralxc.errors import InvalidInputError


def calculation_identity(atoms: Atoms, calc: Any, **settings: Any) -> dict[str, Any]:
    """What must be equal for what is kept in a directory to be used again.

    Args:
        atoms: the undisplaced structure.
        calc: the calculator; its class and its plain parameters count.
        **settings: settings of the workflow that change what is computed or kept.

    Returns:
        JSON-like values.
    """
    parameters = getattr(calc, "parameters", None) or {}
    plain = {
        key: value
        for key, value in sorted(parameters.items())
        if isinstance(value, str | int | float | bool | None) and key not in ("txt", "label")
    }
    return {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.tolist(),
        "magmoms": atoms.get_initial_magnetic_moments().tolist(),
        "calculator": type(calc).__name__,
        "parameters": plain,
        **settings,
    }


def claim_directory(directory: Path, identity: dict[str, Any]) -> None:
    """Mark a directory as belonging to a calculation, or refuse it.

    Args:
        directory: created if it is not there.
        identity: from `calculation_identity`.

    Raises:
        InvalidInputError: the directory holds another calculation; the differences are named.
    """
    directory.mkdir(parents=True, exist_ok=True)
    stamp = directory / "calculation.json"
    # Through JSON and back, so that both sides have the same types and roundings.
    wanted = json.loads(json.dumps(identity))
    if not stamp.exists():
        stamp.write_text(json.dumps(wanted, indent=1))
        return
    found = json.loads(stamp.read_text())
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        raise InvalidInputError(
            f"directory: expected data of the same calculation in {directory}, got "
            f"other {', '.join(differing)}; use another directory or delete this one"
        )
