"""Settings of the model: everything but the weights that a checkpoint needs to rebuild it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ase_neuralxc.errors import InvalidInputError, unknown_name

#: What the model does with atomic moments as an input.
MOMENTS = ("none", "collinear", "vector")


@dataclass(frozen=True)
class ModelSettings:
    """The one architecture (`mlip.model.sphere_model`); the defaults serve speed and accuracy.

    Attributes:
        elements: atomic numbers, ascending.
        r_max: cutoff in Angstrom.
        channels: features per component.
        l_max: largest degree of the neighbour densities.
        l_hidden: largest degree of the features that neighbours send, at most `l_max`, which -1
            stands for.
        n_radial: radial basis functions.
        radial_decay: the k-th of them is scaled by k^-radial_decay, so that smooth ones are learnt
            first; 0 treats all alike.
        hidden: width of the networks of scalars.
        species_rank: neighbours' elements are told apart by this many numbers; with no more
            elements than this, each has its own density.
        ensemble: readouts, whose spread is the uncertainty; 1 for none.
        average_neighbours: mean number of neighbours in the training data.
        energy_scale: in eV, the size of atomic energies; usually the rms force in eV/Angstrom.
        fidelities: digests of the levels of theory; with more than one, they condition the model.
        condition_fidelity: several levels of theory condition the model; else they differ in
            their reference energies alone.
        system_state: condition on total charge, unpaired electrons and the spin-polarised flag.
        moments: moments as an input: "none", "collinear" (signed) or "vector".
        soc: spin-orbit coupling: moments turn with the structure. Without it, energies do not
            change if all moments are turned alone.
        predict_moments: give moments as an output.
        moment_scale: in mu_B, the size of moments.
        zbl: add the screened nuclear repulsion of Ziegler, Biersack and Littmark.
    """

    elements: tuple[int, ...]
    r_max: float = 5.0
    channels: int = 32
    l_max: int = 3
    l_hidden: int = -1
    n_radial: int = 8
    radial_decay: float = 1.0
    hidden: int = 64
    species_rank: int = 4
    ensemble: int = 4
    average_neighbours: float = 20.0
    energy_scale: float = 1.0
    fidelities: tuple[str, ...] = ()
    condition_fidelity: bool = True
    system_state: bool = False
    moments: Literal["none", "collinear", "vector"] = "none"
    soc: bool = False
    predict_moments: bool = False
    moment_scale: float = 2.0
    zbl: bool = False

    def __post_init__(self) -> None:
        if self.l_hidden == -1:
            object.__setattr__(self, "l_hidden", self.l_max)
        if not self.elements or list(self.elements) != sorted(set(self.elements)):
            raise InvalidInputError(
                f"elements: expected distinct atomic numbers in ascending order, got "
                f"{self.elements}"
            )
        if not 1 <= self.elements[0] <= self.elements[-1] <= 118:
            raise InvalidInputError(f"elements: expected numbers 1..118, got {self.elements}")
        if self.moments not in MOMENTS:
            raise unknown_name("kind of moments", self.moments, MOMENTS)
        if self.soc and self.moments != "vector":
            raise InvalidInputError(
                f"soc: spin-orbit coupling needs moments='vector', got {self.moments!r}"
            )
        for name in ("r_max", "average_neighbours", "energy_scale", "moment_scale"):
            if not getattr(self, name) > 0:
                raise InvalidInputError(f"{name}: expected > 0, got {getattr(self, name)}")
        if not self.radial_decay >= 0:
            raise InvalidInputError(f"radial_decay: expected >= 0, got {self.radial_decay}")
        for name in ("channels", "l_max", "n_radial", "hidden", "species_rank", "ensemble"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not 0 <= self.l_hidden <= self.l_max:
            raise InvalidInputError(
                f"l_hidden: expected 0..l_max = {self.l_max}, got {self.l_hidden}"
            )

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelSettings:
        """The settings that `as_dict` wrote.

        Args:
            values: settings by name; lists become tuples.

        Returns:
            The settings.

        Raises:
            InvalidInputError: for a name that is not a setting, or a value it does not accept.
        """
        known = {field.name for field in fields(cls)}
        for key in values:
            if key not in known:
                raise unknown_name("model setting", key, known)
        plain: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**plain)
