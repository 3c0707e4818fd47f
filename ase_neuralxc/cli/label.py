"""`neuralxc label`: a resumable campaign of single points that become training labels."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms

from ase_neuralxc.campaign import collect, label_structures, state_from_atoms
from ase_neuralxc.cli.files import emit, read_structures
from ase_neuralxc.cli.options import calculator_keywords
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord, SpinState
from ase_neuralxc.records.io import write_records

if TYPE_CHECKING:
    from ase_neuralxc.calculator import NeuralXC


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
        from ase_neuralxc.functional import functional_hash

        calc = self.calculator(SpinState())
        weights = getattr(calc.functional, "state_dict", None)
        digest = functional_hash(calc.functional) if weights is not None else "host"
        settings = {k: v for k, v in self.keywords.items() if k not in ("xc", "device")}
        return f"NeuralXC {calc.functional.name} {digest} {sorted(settings.items())}"

    def calculator(self, state: SpinState) -> NeuralXC:
        """The calculator for one spin state.

        Args:
            state: charge and unpaired electrons.

        Returns:
            A new calculator.
        """
        from ase_neuralxc.calculator import NeuralXC

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


def _states(keywords: dict[str, Any]) -> Callable[[Atoms], SpinState]:
    """Take charge, multiplicity and moments out of the keywords; they belong to each structure."""
    given = {k: keywords.pop(k) for k in ("charge", "multiplicity", "magmoms") if k in keywords}

    def state_of(atoms: Atoms) -> SpinState:
        state = state_from_atoms(atoms)
        unpaired, moments = state.n_unpaired, given.get("magmoms", state.magmoms)
        if "multiplicity" in given:
            unpaired = SpinState.from_multiplicity(given["multiplicity"]).n_unpaired
        return SpinState(given.get("charge", state.charge), unpaired, moments)

    return state_of


def label(arguments: argparse.Namespace) -> int:
    """`neuralxc label`: label structures and gather the labels in one file."""
    keywords = calculator_keywords(arguments)
    for name in ("txt", "label"):
        if name in keywords:
            raise InvalidInputError(
                f"{name}: expected no such option for 'label', where structures run side by side, "
                f"got {keywords[name]!r}"
            )
    images = read_structures(arguments.structure, arguments.index)
    state_of = _states(keywords)
    labeller = NeuralXCLabeller(keywords)
    # The same level of theory with more patience, for what did not converge at first.
    patient = NeuralXCLabeller({**keywords, "max_cycle": 3 * keywords.get("max_cycle", 50)})
    summary = label_structures(
        images,
        (labeller, patient),
        arguments.out,
        state_of,
        workers=arguments.workers,
        retries=1,
        progress=not arguments.quiet,
    )
    records = collect(arguments.out)
    gathered = Path(arguments.out) / "labels.extxyz"
    if records:
        write_records(gathered, records)
    counts = {
        name: getattr(summary, name) for name in ("n_done", "n_failed", "n_skipped", "n_duplicates")
    }
    failures = {key: failure.reasons[-1] for key, failure in summary.failures.items()}
    lines = [
        f"labelled {summary.n_done}, there before {summary.n_skipped}, failed {summary.n_failed}, "
        f"given twice {summary.n_duplicates}",
        *(f"  {key[:16]}: {reason}" for key, reason in failures.items()),
        f"{len(records)} labels in {gathered}" if records else "no labels",
    ]
    emit(arguments, {**counts, "failures": failures, "file": str(gathered)}, "\n".join(lines))
    return 0 if summary.n_failed == 0 else 1
