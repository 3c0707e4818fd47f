"""Labels from the calculator, as campaigns and loops take them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from ase import Atoms

from ase_neuralxc.calculator import NeuralXC
from ase_neuralxc.campaign import state_from_atoms
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.records import LabelRecord, SpinState


@dataclass
class NeuralXCLabeller:
    """Labels from `NeuralXC`; settings only, so that it travels to worker processes.

    Attributes:
        keywords: of `NeuralXC`, without what a `SpinState` says.
    """

    keywords: dict[str, Any] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Settings and the hash of the functional: a checkpoint's path says nothing of its weights.

        The device changes no label, so that a campaign can go on elsewhere.
        """
        calc = self.calculator(SpinState())
        weights = getattr(calc.functional, "state_dict", None)
        digest = functional_hash(calc.functional) if weights is not None else "host"
        settings = {k: v for k, v in self.keywords.items() if k not in ("xc", "device")}
        return f"NeuralXC {calc.functional.name} {digest} {sorted(settings.items())}"

    def patient(self) -> NeuralXCLabeller:
        """The same level of theory with three times the cycles, for what did not converge."""
        return NeuralXCLabeller(
            {**self.keywords, "max_cycle": 3 * self.keywords.get("max_cycle", 50)}
        )

    def calculator(self, state: SpinState) -> NeuralXC:
        """The calculator for one spin state.

        Args:
            state: charge and unpaired electrons.

        Returns:
            A new calculator.
        """
        multiplicity = None if state.n_unpaired is None else state.multiplicity
        return NeuralXC(
            charge=state.charge,
            multiplicity=multiplicity,
            magmoms=None if state.magmoms is None else np.asarray(state.magmoms).tolist(),
            **self.keywords,
        )

    def label(self, atoms: Atoms, state: SpinState) -> LabelRecord:
        """Energy and forces of one structure.

        Args:
            atoms: the structure; left as it is.
            state: its charge and spin.

        Returns:
            The label.
        """
        work = atoms.copy()
        work.calc = self.calculator(state)
        work.get_forces()
        return work.calc.export_label()


def split_state(
    keywords: Mapping[str, Any],
) -> tuple[dict[str, Any], Callable[[Atoms], SpinState]]:
    """Take charge, multiplicity and moments out of keywords: they belong to each structure.

    Args:
        keywords: of `NeuralXC`.

    Returns:
        The other keywords, and the spin state of a structure: what was given, and for the rest
        what the structure carries (`state_from_atoms`).
    """
    names = ("charge", "multiplicity", "magmoms")
    given = {name: keywords[name] for name in names if name in keywords}

    def state_of(atoms: Atoms) -> SpinState:
        state = state_from_atoms(atoms)
        unpaired, moments = state.n_unpaired, given.get("magmoms", state.magmoms)
        if "multiplicity" in given:
            unpaired = SpinState.from_multiplicity(given["multiplicity"]).n_unpaired
        return SpinState(given.get("charge", state.charge), unpaired, moments)

    return {k: v for k, v in keywords.items() if k not in names}, state_of
