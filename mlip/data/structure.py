"""One labelled structure in NumPy, whatever file it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord

#: Labels a potential can be trained on.
LABELS = ("energy", "forces", "stress", "magmoms", "magnetic_forces")


@dataclass(frozen=True)
class DataKeys:
    """Where a file keeps what: names, tried in this order in results, `info` and `arrays`.

    A single name may be given for a sequence. The free energy comes before the energy because
    forces and stress are its derivatives.

    Attributes:
        energy: total energy in eV.
        forces: [n, 3] in eV/Angstrom.
        stress: [6], [9] or [3, 3] in eV/Angstrom^3, ASE's sign.
        magmoms: [n] or [n, 3] moments in mu_B, as a label.
        magnetic_forces: [n] or [n, 3] -dE/dm in eV/mu_B.
        input_magmoms: moments as an input of the model.
        charge: total charge in e.
        multiplicity: 2S+1.
        spin_polarised: whether the calculation was.
        fidelity: digest or name of the level of theory.
        config_type: group of the structure, for error tables.
        weight: of the structure in the loss.
    """

    energy: tuple[str, ...] = ("free_energy", "energy")
    forces: tuple[str, ...] = ("forces",)
    stress: tuple[str, ...] = ("stress",)
    magmoms: tuple[str, ...] = ("magmoms",)
    magnetic_forces: tuple[str, ...] = ("magnetic_forces",)
    input_magmoms: tuple[str, ...] = ("magmoms", "initial_magmoms")
    charge: tuple[str, ...] = ("charge",)
    multiplicity: tuple[str, ...] = ("multiplicity",)
    spin_polarised: tuple[str, ...] = ("spin_polarised",)
    fidelity: tuple[str, ...] = ("fidelity",)
    config_type: tuple[str, ...] = ("config_type",)
    weight: tuple[str, ...] = ("config_weight",)

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            names = (value,) if isinstance(value, str) else tuple(value or ())
            object.__setattr__(self, item.name, names)


@dataclass(frozen=True, eq=False, kw_only=True)
class Structure:
    """Geometry, state and labels in ASE units. What is missing is None, never zero.

    Attributes:
        numbers: [n] atomic numbers.
        positions: [n, 3] in Angstrom.
        cell: [3, 3] in Angstrom, zeros where there is none.
        pbc: [3] periodic directions.
        energy: eV; the free energy wherever there is one.
        forces: [n, 3] in eV/Angstrom.
        stress: [3, 3] in eV/Angstrom^3.
        magmoms: [n] or [n, 3] in mu_B, a label.
        magnetic_forces: [n] or [n, 3] in eV/mu_B.
        input_magmoms: [n] or [n, 3] in mu_B, an input; NaN for atoms without.
        charge: total charge in e.
        n_unpaired: unpaired electrons.
        spin_polarised: whether the calculation was.
        fidelity: digest or name of the level of theory, "" where nobody said.
        config_type: group of the structure.
        weight: of the structure in the loss.
        energy_key: under which name the energy was found.
        source: file and frame, for messages.

    Raises:
        InvalidInputError: a wrong shape or a number that is not finite.
    """

    numbers: NDArray
    positions: NDArray
    cell: NDArray = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray = field(default_factory=lambda: np.zeros(3, dtype=bool))
    energy: float | None = None
    forces: NDArray | None = None
    stress: NDArray | None = None
    magmoms: NDArray | None = None
    magnetic_forces: NDArray | None = None
    input_magmoms: NDArray | None = None
    charge: float | None = None
    n_unpaired: float | None = None
    spin_polarised: bool | None = None
    fidelity: str = ""
    config_type: str = ""
    weight: float = 1.0
    energy_key: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        put = object.__setattr__
        n = len(self.numbers)
        put(self, "numbers", np.asarray(self.numbers, dtype=np.int64))
        put(self, "pbc", np.asarray(self.pbc, dtype=bool))
        moments = ((n,), (n, 3))
        shapes: dict[str, tuple[tuple[int, ...], ...]] = {
            "positions": ((n, 3),),
            "cell": ((3, 3),),
            "energy": ((),),
            "forces": ((n, 3),),
            "stress": ((3, 3),),
            "magmoms": moments,
            "magnetic_forces": moments,
            "input_magmoms": moments,
        }
        for name, allowed in shapes.items():
            value = getattr(self, name)
            if value is not None:
                array = self._checked(name, value, allowed)
                put(self, name, float(array) if array.ndim == 0 else array)

    def _checked(self, name: str, value: Any, allowed: tuple[tuple[int, ...], ...]) -> NDArray:
        try:
            array: NDArray = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise InvalidInputError(
                f"{self.source}: {name}: expected numbers, got {value!r}"
            ) from None
        if array.shape not in allowed:
            raise InvalidInputError(
                f"{self.source}: {name}: expected shape {' or '.join(map(str, allowed))} for "
                f"{len(self.numbers)} atoms, got {array.shape}"
            )
        if not np.isfinite(array).all() and name != "input_magmoms":
            raise InvalidInputError(
                f"{self.source}: {name}: expected finite numbers (leave out what is missing), got "
                f"NaN or inf at {np.argwhere(~np.isfinite(array)).tolist()[:5]}"
            )
        return array

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that are present."""
        return tuple(name for name in LABELS if getattr(self, name) is not None)


def from_record(record: LabelRecord, source: str = "label") -> Structure:
    """A label as a training structure.

    Args:
        record: the label.
        source: for messages.

    Returns:
        The structure, with the record's digest as its fidelity. The computed moments are both the
        label and the input; initial moments are the input where none were computed.
    """
    state, treatment = record.spin_state, record.fidelity.spin_treatment
    energy_key = "energy" if record.free_energy is None else "free_energy"
    moments = record.magmoms if record.magmoms is not None else state.magmoms
    return Structure(
        numbers=record.numbers,
        positions=record.positions,
        cell=record.cell,
        pbc=record.pbc,
        energy=getattr(record, energy_key),
        energy_key=energy_key,
        forces=record.forces,
        stress=None if record.stress is None else voigt_6_to_full_3x3_stress(record.stress),
        magmoms=record.magmoms,
        input_magmoms=None if moments is None else np.asarray(moments),
        charge=float(state.charge),
        n_unpaired=None if state.n_unpaired is None else float(state.n_unpaired),
        spin_polarised=treatment != "RKS" if treatment else None,
        fidelity=record.fidelity.digest,
        config_type=str(record.provenance.get("config_type", "")),
        source=source,
    )


def from_atoms(atoms: Atoms, keys: DataKeys | None = None, source: str = "atoms") -> Structure:
    """Atoms with results in their calculator, `info` or `arrays` as a training structure.

    Args:
        atoms: the structure.
        keys: where to look.
        source: for messages.

    Returns:
        The structure; what was not found is None.

    Raises:
        InvalidInputError: a wrong shape or a number that is not finite.
    """
    keys = keys or DataKeys()
    found: dict[str, Any] = {}
    for item in fields(keys):
        name, value = _first(atoms, getattr(keys, item.name))
        found[item.name] = value
        if item.name == "energy":
            found["energy_key"] = name
    multiplicity = found.pop("multiplicity")
    found["n_unpaired"] = None if multiplicity is None else float(multiplicity) - 1.0
    if found["stress"] is not None:
        found["stress"] = _full_stress(found["stress"], source)
    for name, kind in (("charge", float), ("weight", float), ("spin_polarised", bool)):
        if found[name] is not None:
            found[name] = kind(found[name])
    for name, absent in (("weight", 1.0), ("fidelity", ""), ("config_type", "")):
        found[name] = type(absent)(found[name]) if found[name] is not None else absent
    return Structure(
        numbers=atoms.numbers,
        positions=atoms.positions,
        cell=atoms.cell.array,
        pbc=atoms.pbc,
        source=source,
        **found,
    )


def available_keys(atoms: Atoms) -> dict[str, tuple[str, ...]]:
    """Names that a structure has, by where they are; for messages about missing ones."""
    results = {} if atoms.calc is None else atoms.calc.results
    arrays = set(atoms.arrays) - {"numbers", "positions"}
    return {
        "results": tuple(sorted(results)),
        "info": tuple(sorted(map(str, atoms.info))),
        "arrays": tuple(sorted(arrays)),
    }


def _first(atoms: Atoms, names: tuple[str, ...]) -> tuple[str, Any]:
    """The first name that is present anywhere, with its value."""
    results: Mapping[str, Any] = {} if atoms.calc is None else atoms.calc.results
    for name in names:
        for place in (results, atoms.info, atoms.arrays):
            if place.get(name) is not None:
                return name, place[name]
    return "", None


def _full_stress(value: Any, source: str) -> NDArray:
    array: NDArray = np.asarray(value, dtype=np.float64)
    if array.shape == (6,):
        return np.asarray(voigt_6_to_full_3x3_stress(array))
    if array.size != 9:
        raise InvalidInputError(
            f"{source}: stress: expected shape (6,), (9,) or (3, 3), got {array.shape}"
        )
    array = array.reshape(3, 3)
    return (array + array.T) / 2.0
