"""One labelled structure: geometry, spin state, level of theory and what was computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.canonical import build, digest, plain
from ase_neuralxc.records.fidelity import FidelityTag
from ase_neuralxc.records.spin import SpinState

#: Key of `atoms.info` (and of the data of a database row) that holds what ASE has no place for.
INFO_KEY = "neuralxc"

#: Results and their shapes; "n" is the number of atoms.
RESULTS: dict[str, tuple[tuple[str | int, ...], ...]] = {
    "energy": ((),),
    "free_energy": ((),),
    "forces": (("n", 3),),
    "stress": ((6,),),
    "magmoms": (("n",), ("n", 3)),
    "charges": (("n",),),
    "dipole": ((3,),),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class LabelRecord:
    """A converged calculation of one structure, in ASE units. What is missing is None, never zero.

    Arrays are read-only copies. Two records are compared by `to_dict`.

    Attributes:
        numbers: [n] atomic numbers.
        positions: [n, 3] in Angstrom.
        cell: [3, 3] rows are lattice vectors in Angstrom; zeros where there is none.
        pbc: [3] periodic directions.
        spin_state: charge, unpaired electrons and *initial* moments.
        fidelity: level of theory.
        energy: eV, extrapolated to zero smearing.
        free_energy: eV, Mermin free energy; forces and stress are its derivatives.
        forces: [n, 3] in eV/Angstrom.
        stress: [6] in eV/Angstrom^3, Voigt order xx yy zz yz xz xy.
        magmoms: [n] signed or [n, 3] vector moments in mu_B, as computed.
        charges: [n] atomic charges in e.
        dipole: [3] in e*Angstrom.
        convergence: JSON-like; "converged" must be True.
        provenance: JSON-like: versions, resolved meshes, timings.

    Raises:
        InvalidInputError: an unconverged calculation, a wrong shape, a number that is not finite.
    """

    numbers: NDArray
    positions: NDArray
    spin_state: SpinState
    fidelity: FidelityTag
    convergence: dict[str, Any]
    cell: NDArray = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: NDArray = field(default_factory=lambda: np.zeros(3, dtype=bool))
    energy: float | None = None
    free_energy: float | None = None
    forces: NDArray | None = None
    stress: NDArray | None = None
    magmoms: NDArray | None = None
    charges: NDArray | None = None
    dipole: NDArray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name, cls in (("spin_state", SpinState), ("fidelity", FidelityTag)):
            if not isinstance(getattr(self, name), cls):
                raise InvalidInputError(
                    f"{name}: expected a {cls.__name__}, got {type(getattr(self, name)).__name__}"
                )
        for name in ("convergence", "provenance"):
            value = plain(name, getattr(self, name))
            if not isinstance(value, dict):
                raise InvalidInputError(f"{name}: expected a mapping, got {value!r}")
            put(self, name, value)
        if self.convergence.get("converged") is not True:
            raise InvalidInputError(
                "convergence: expected 'converged': True (an unconverged calculation is not a "
                f"label), got {self.convergence}"
            )
        numbers = np.asarray(self.numbers)
        n = len(numbers) if numbers.ndim == 1 else 0
        if n == 0:
            raise InvalidInputError(
                f"numbers: expected [n] atomic numbers of at least one atom, got shape "
                f"{numbers.shape}"
            )
        put(self, "numbers", _array("numbers", numbers, (("n",),), n, int))
        put(self, "positions", _array("positions", self.positions, (("n", 3),), n))
        put(self, "cell", _array("cell", self.cell, ((3, 3),), n))
        put(self, "pbc", _array("pbc", self.pbc, ((3,),), n, bool))
        moments = self.spin_state.magmoms
        if moments is not None and len(moments) != n:
            raise InvalidInputError(
                f"spin_state.magmoms: expected {n} moments, one per atom, got {len(moments)}"
            )
        for name, shapes in RESULTS.items():
            value = getattr(self, name)
            if value is None:
                continue
            array = _array(name, value, shapes, n)
            put(self, name, float(array) if array.ndim == 0 else array)

    @cached_property
    def content_hash(self) -> str:
        """Hash of geometry and spin state: two labels of one structure share it."""
        return structure_hash(self.to_atoms(), self.spin_state)

    @cached_property
    def checksum(self) -> str:
        """Hash of everything, by which files are checked after reading."""
        return digest(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values that JSON holds without loss."""
        data = {
            f.name: value.tolist() if isinstance(value, np.ndarray) else value
            for f in fields(self)
            for value in (getattr(self, f.name),)
        }
        data["spin_state"] = plain("spin_state", self.spin_state.to_dict())
        data["fidelity"] = plain("fidelity", self.fidelity.to_dict())
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LabelRecord:
        """Inverse of `to_dict`; an unknown or a missing key raises."""
        data = dict(data)
        if isinstance(data.get("spin_state"), Mapping):
            data["spin_state"] = SpinState.from_dict(data["spin_state"])
        if isinstance(data.get("fidelity"), Mapping):
            data["fidelity"] = FidelityTag.from_dict(data["fidelity"])
        record: LabelRecord = build(cls, data, "LabelRecord field")
        return record

    def metadata(self) -> dict[str, Any]:
        """The part of `to_dict` that neither a structure nor ASE's results can carry."""
        data = self.to_dict()
        return {k: data[k] for k in ("spin_state", "fidelity", "convergence", "provenance")}

    def to_atoms(self) -> Atoms:
        """Atoms with the results attached, initial moments set and the rest in `info`.

        Returns:
            New atoms that `from_atoms` turns back into an equal record.
        """
        atoms = Atoms(self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        if self.spin_state.magmoms is not None:
            atoms.set_initial_magnetic_moments(np.array(self.spin_state.magmoms))
        atoms.info[INFO_KEY] = self.metadata()
        results = {k: getattr(self, k) for k in RESULTS if getattr(self, k) is not None}
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    @classmethod
    def from_atoms(
        cls,
        atoms: Atoms,
        *,
        spin_state: SpinState | None = None,
        fidelity: FidelityTag | None = None,
        convergence: Mapping[str, Any] | None = None,
        provenance: Mapping[str, Any] | None = None,
        **results: Any,
    ) -> LabelRecord:
        """Record of a structure and its results.

        Args:
            atoms: the structure. Results that are not given are taken from its calculator, and
                what else is not given from `atoms.info`, where `to_atoms` and the readers put it.
            spin_state: charge, unpaired electrons, initial moments.
            fidelity: level of theory.
            convergence: must say "converged": True.
            provenance: versions, resolved meshes, timings.
            **results: energy, free_energy, forces, stress, magmoms, charges, dipole; None where
                there is none.

        Returns:
            The record.

        Raises:
            InvalidInputError: something is given nowhere, a result has an unknown name, or the
                calculator's results belong to another structure.
        """
        for name in results:
            if name not in RESULTS:
                raise unknown_name("result", name, RESULTS)
        stored = atoms.info.get(INFO_KEY, {})
        given = {
            "spin_state": spin_state,
            "fidelity": fidelity,
            "convergence": convergence,
            "provenance": provenance,
        }
        data = {**stored, **{k: v for k, v in given.items() if v is not None}}
        if atoms.calc is not None and set(RESULTS) - set(results):
            changes = atoms.calc.check_state(atoms)
            if changes:
                raise InvalidInputError(
                    f"atoms.calc: expected results of these atoms, got those of others: {changes} "
                    "changed since"
                )
            for name in set(RESULTS) - set(results):
                results[name] = atoms.calc.results.get(name)
        return cls.from_dict(
            {
                **data,
                **results,
                "numbers": atoms.numbers,
                "positions": atoms.positions,
                "cell": atoms.cell.array,
                "pbc": atoms.pbc,
            }
        )


def structure_hash(atoms: Atoms, state: SpinState) -> str:
    """Hash of a geometry and a spin state, by which labels and tasks are told apart.

    Args:
        atoms: numbers, positions, cell and pbc count; everything else is ignored.
        state: every field counts.

    Returns:
        Sixteen hexadecimal digits, equal exactly when all numbers are equal.
    """
    # adding zero makes -0.0 and 0.0 one number
    return digest(
        {
            "numbers": atoms.numbers.tolist(),
            "positions": (atoms.positions + 0.0).tolist(),
            "cell": (atoms.cell.array + 0.0).tolist(),
            "pbc": atoms.pbc.tolist(),
            "spin_state": state.to_dict(),
        }
    )


def _array(
    name: str, value: Any, shapes: tuple[tuple[str | int, ...], ...], n: int, dtype: type = float
) -> NDArray:
    """Read-only copy of a value that has one of the shapes and is finite."""
    try:
        array: NDArray = np.array(value, dtype=dtype)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name}: expected numbers, got {value!r}") from None
    allowed = [tuple(n if size == "n" else size for size in shape) for shape in shapes]
    if array.shape not in allowed:
        raise InvalidInputError(
            f"{name}: expected shape {' or '.join(map(str, allowed))} for {n} atoms, got "
            f"{array.shape}"
        )
    if not np.isfinite(array).all():
        raise InvalidInputError(f"{name}: expected finite numbers, got {array.tolist()}")
    if dtype is float:
        array = array + 0.0  # -0.0 and 0.0 are one number and have one hash
    array.setflags(write=False)
    return array
