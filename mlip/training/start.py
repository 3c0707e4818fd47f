"""Training that starts from a trained model: its settings, weights and reference energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.training.checkpoint import load_potential

#: What a start may leave to the new run: conditioning starts as if it were not there.
_NEW = "film"


@dataclass(frozen=True, eq=False)
class Start:
    """A trained model from which another training starts.

    Attributes:
        potential: the trained potential.
        source: its file.
    """

    potential: Potential
    source: str

    @classmethod
    def read(cls, path: str) -> Start:
        """The model of a file.

        Args:
            path: of the model.

        Returns:
            The start.

        Raises:
            CheckpointError: no model.
        """
        return cls(load_potential(path)[0], path)

    @property
    def settings(self) -> ModelSettings:
        """Of the trained model."""
        return self.potential.model.settings

    def fidelities(self, found: Sequence[str]) -> tuple[str, ...]:
        """Levels of theory of the new model.

        Args:
            found: in the new data.

        Returns:
            Those of the old model if it is conditioned on several, else those of the data.

        Raises:
            InvalidInputError: a conditioned model that does not know a level of the data.
        """
        known = self.settings.fidelities
        if len(known) < 2:
            return tuple(found)
        unknown = sorted(set(found) - set(known))
        if unknown:
            raise InvalidInputError(
                f"start: expected data at the levels of theory of {self.source!r} "
                f"({list(known)}), got {unknown}"
            )
        return known

    def merged(self, given: Mapping[str, Any], fidelities: Sequence[str]) -> dict[str, Any]:
        """Settings of the new model.

        Args:
            given: settings of the configuration; only repetitions are allowed, and whether the
                level of theory conditions the model.
            fidelities: levels of theory.

        Returns:
            Settings by name.

        Raises:
            InvalidInputError: a setting that differs from the start's.
        """
        mine = self.settings.as_dict()
        free = ("condition_fidelity", "fidelities")
        for name, value in given.items():
            same = mine.get(name) == (list(value) if isinstance(value, tuple) else value)
            if name not in free and not same:
                raise InvalidInputError(
                    f"model.{name}: expected {mine.get(name)!r} as in the start {self.source!r}, "
                    f"got {value!r}"
                )
        return {**mine, **given, "fidelities": list(fidelities)}

    def references(
        self, table: NDArray, elements: Sequence[int], fidelities: Sequence[str], found: set[int]
    ) -> NDArray:
        """Reference energies of the new model, old ones where the data say nothing.

        Args:
            table: [fidelities, elements of the data] in eV.
            elements: of the data.
            fidelities: of the new model.
            found: indices of the levels of theory that the data have.

        Returns:
            [fidelities, elements of the start] in eV.

        Raises:
            InvalidInputError: an element that the start does not know.
        """
        known = list(self.settings.elements)
        unknown = [chemical_symbols[z] for z in elements if z not in known]
        if unknown:
            raise InvalidInputError(
                f"start: expected elements of {self.source!r} "
                f"({[chemical_symbols[z] for z in known]}), the data also have {unknown}"
            )
        old = self.potential.reference_energies.numpy()
        places = [known.index(z) for z in elements]
        made = np.empty((max(len(fidelities), 1), len(known)))
        for level in range(len(made)):
            names = self.settings.fidelities
            name = fidelities[level] if fidelities else ""
            made[level] = old[names.index(name) if name in names else 0]
            if level in found:
                # elements that the new data do not have keep their distance from the others
                made[level] += float(np.mean(table[level] - made[level][places]))
                made[level][places] = table[level]
        return made

    def inherit(self, potential: Potential) -> None:
        """Copy the weights; the conditioning, which the start may not have, stays at zero.

        Args:
            potential: the new one, changed in place.
        """
        weights = {
            name: value
            for name, value in self.potential.state_dict().items()
            if name != "reference_energies"
        }
        missing, unexpected = potential.load_state_dict(weights, strict=False)
        left = [name for name in missing if name != "reference_energies" and _NEW not in name]
        if left or any(_NEW not in name for name in unexpected):
            raise InvalidInputError(
                f"start: {self.source!r} does not fit the new model: {left or unexpected}"
            )
