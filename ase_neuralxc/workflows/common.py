"""What every workflow shares: settings from keywords, the calculator, frozen copies, pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from ase_neuralxc.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Progress = Callable[[int, int, str], None]
"""Called as (done, total, message) after every unit of work."""

Settings = TypeVar("Settings")


def resolve_settings(kind: type[Settings], keywords: Mapping[str, Any]) -> Settings:
    """Build a frozen settings record from keywords.

    Args:
        kind: the settings dataclass.
        keywords: what the user gave.

    Returns:
        The settings.

    Raises:
        InvalidInputError: for a keyword that the record does not have, with the nearest one.
    """
    valid = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in keywords:
        if name not in valid:
            raise unknown_name("setting", name, valid)
    return kind(**keywords)


def require_positive(name: str, value: float) -> None:
    """Refuse a number that is not positive and finite.

    Args:
        name: the argument, as the user knows it.
        value: what arrived.

    Raises:
        InvalidInputError: naming the argument, the expectation and the value.
    """
    if isinstance(value, bool) or not np.isfinite(value) or value <= 0:
        raise InvalidInputError(f"{name}: expected a positive number, got {value!r}")


def attach_calculator(atoms: Atoms, calc: Any | None) -> Any:
    """Make sure that atoms can be computed.

    Args:
        atoms: the structure; receives `calc` when one is given.
        calc: an ASE calculator, or None to use the one that is attached.

    Returns:
        The calculator.

    Raises:
        InvalidInputError: for a structure without atoms, with positions that are not finite, or
            without a calculator.
    """
    if len(atoms) == 0:
        raise InvalidInputError("atoms: expected at least one atom, got an empty structure")
    if not np.isfinite(atoms.positions).all():
        bad = np.flatnonzero(~np.isfinite(atoms.positions).all(axis=1)).tolist()
        raise InvalidInputError(f"atoms: expected finite positions, atoms {bad} have NaN or inf")
    if calc is not None:
        atoms.calc = calc
    if atoms.calc is None:
        raise InvalidInputError("calc: expected an ASE calculator, got none (atoms.calc is None)")
    return atoms.calc


def calculator_maker(calc: Any | None, atoms: Atoms) -> tuple[Callable[[], Any], bool]:
    """How structures that exist side by side get their calculators.

    Args:
        calc: a calculator, which all structures then share, one after the other; or a callable
            that makes one (a class, a function), so that each structure has its own with its own
            warm start; None uses the calculator attached to `atoms`.
        atoms: a structure.

    Returns:
        A function that gives a calculator, and whether it always gives the same one.

    Raises:
        InvalidInputError: neither a calculator nor a callable.
    """
    calc = atoms.calc if calc is None else calc
    if callable(calc) and (isinstance(calc, type) or not hasattr(calc, "get_potential_energy")):
        return calc, False
    if not hasattr(calc, "get_potential_energy"):
        raise InvalidInputError(
            f"calc: expected an ASE calculator or a function that makes one, got {calc!r}"
        )
    return lambda: calc, True


def snapshot(atoms: Atoms) -> Atoms:
    """Copy of atoms that keeps the computed properties and no link to the calculator.

    Args:
        atoms: the structure with the calculator that computed it.

    Returns:
        A copy with a `SinglePointCalculator`.
    """
    copy = atoms.copy()
    keep = ("energy", "free_energy", "forces", "stress", "dipole", "charges", "magmom", "magmoms")
    results = {key: atoms.calc.results[key] for key in keep if key in atoms.calc.results}
    copy.calc = SinglePointCalculator(copy, **results)
    return copy


def max_force(forces: np.ndarray) -> float:
    """Largest norm of the force on an atom.

    Args:
        forces: [n_atoms, 3] in eV/Angstrom.

    Returns:
        The norm in eV/Angstrom.
    """
    return float(np.sqrt((np.asarray(forces) ** 2).sum(axis=1).max()))


def new_figure(rows: int = 1) -> tuple[Figure, list[Any]]:
    """Figure outside pyplot, so that no global state and no window is involved.

    Args:
        rows: panels, one above the other.

    Returns:
        The figure and its axes, from top to bottom.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 2.4 + 2.0 * rows), layout="constrained")
    axes = figure.subplots(rows, 1, squeeze=False)
    return figure, list(axes[:, 0])


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure, making its directory.

    Args:
        figure: the figure.
        path: target; the ending chooses the format (png, pdf, svg).

    Returns:
        The path.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=150)
    return target


def require_crystal(atoms: Atoms) -> None:
    """Refuse what is not periodic in three directions.

    Args:
        atoms: the structure.

    Raises:
        InvalidInputError: a direction that is not periodic.
    """
    if not atoms.pbc.all():
        raise InvalidInputError(
            f"atoms: expected three periodic directions, got pbc = {atoms.pbc.tolist()}"
        )
