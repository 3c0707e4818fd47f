"""The level of theory of a label: what must be equal for two energies to be comparable."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.records.canonical import build, digest, freeze

if TYPE_CHECKING:
    from ase_neuralxc.records.label import LabelRecord

_SPIN_TREATMENTS = ("RKS", "UKS", "ROKS")
_FLOATS = ("exchange_fraction", "smearing_ev", "kpoint_density")

#: A name, or names per element: a mapping is kept as its sorted (key, value) pairs.
Rule = str | tuple[Any, ...]


@dataclass(frozen=True)
class FidelityTag:
    """Everything that moves an energy by choice; nothing that follows from the structure.

    Rules belong here (grid level, k-point density), what they resolve to (mesh, k-points) and code
    versions are provenance. Mappings may be given wherever a choice differs between elements.

    Attributes:
        functional: name of the exchange-correlation functional (or of the potential).
        functional_hash: hash of its weights, "" where it has none.
        host: program that did the rest ("pyscf"), without its version.
        basis: basis set, or plane-wave cutoff.
        ecp: core potential, pseudopotential or PAW set.
        auxbasis: density-fitting basis, None without density fitting.
        dispersion: dispersion correction with its damping.
        solvent: solvent model and its parameters.
        grid: rule of the quadrature grid.
        kpoint_density: k-points per inverse Angstrom, None for a molecule.
        density_clamps: thresholds below which the functional's input is clamped or skipped.
        smearing_ev: electronic temperature or width in eV.
        spin_treatment: "RKS", "UKS" or "ROKS"; "" for a potential without electrons.
        exchange_fraction: fraction of exact exchange.
        external_field: [3] homogeneous electric field in V/Angstrom.
        constraint: constraint on the density or on the state.

    Raises:
        InvalidInputError: a value that cannot be hashed, or an unknown spin treatment.
    """

    functional: str = ""
    functional_hash: str = ""
    host: str = ""
    basis: Rule = ""
    ecp: Rule | None = None
    auxbasis: Rule | None = None
    dispersion: Rule | None = None
    solvent: Rule | None = None
    grid: Rule | int | None = None
    kpoint_density: float | None = None
    density_clamps: Rule | float | None = None
    smearing_ev: float | None = None
    spin_treatment: str = ""
    exchange_fraction: float | None = None
    external_field: tuple[float, ...] | None = None
    constraint: Rule | None = None

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if name in _FLOATS and value is not None:
                value = _number(name, value)
            if name == "external_field" and value is not None:
                # 1 and 1.0 are the same field and must not give two digests
                value = tuple(_number(name, component) for component in value)
            object.__setattr__(self, name, freeze(name, value))
        treatment = str(self.spin_treatment).upper()
        if treatment and treatment not in _SPIN_TREATMENTS:
            raise unknown_name("spin_treatment", self.spin_treatment, _SPIN_TREATMENTS)
        object.__setattr__(self, "spin_treatment", treatment)
        if self.external_field is not None and len(self.external_field) != 3:
            raise InvalidInputError(
                f"external_field: expected 3 components, got {self.external_field}"
            )

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that differ whenever any field differs.

        Fields at their default are left out of what is hashed (not of what is compared: absence
        stands for the default), so that a field added later leaves existing digests as they are.
        """
        defaults = {field.name: field.default for field in fields(self)}
        return digest({k: v for k, v in self.to_dict().items() if v != defaults[k]})

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> FidelityTag:
        """Inverse of `to_dict`; an unknown key raises, with the nearest valid name."""
        tag: FidelityTag = build(cls, data, "FidelityTag field")
        return tag

    def differences(self, other: FidelityTag) -> dict[str, tuple[Any, Any]]:
        """The fields in which two tags differ, with both values."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {k: (v, theirs[k]) for k, v in mine.items() if v != theirs[k]}


def require_single_fidelity(records: Iterable[LabelRecord]) -> FidelityTag:
    """Check that labels may be put into one training set as they are.

    Energies at different levels of theory differ by electronvolts per atom; a fit to a mixture is
    silently wrong.

    Args:
        records: labels, at least one.

    Returns:
        The tag that all of them have.

    Raises:
        InvalidInputError: no record, or records with different digests; the differing fields and
            the number of records per digest are named.
    """
    counts: dict[str, int] = {}
    tags: dict[str, FidelityTag] = {}
    for record in records:
        key = record.fidelity.digest
        counts[key] = counts.get(key, 0) + 1
        tags.setdefault(key, record.fidelity)
    if not tags:
        raise InvalidInputError("records: expected at least one label, got none")
    first, *others = tags.values()
    if others:
        differing = {name: pair for tag in others for name, pair in first.differences(tag).items()}
        raise InvalidInputError(
            f"records: expected one level of theory, got {len(tags)} (labels per digest: {counts});"
            f" they differ in {differing}"
        )
    return first


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{name}: expected a number, got {value!r}") from None
