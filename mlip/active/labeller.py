"""Who answers the questions of a loop: the DFT core, another calculator, or a fake one.

A labeller is that of labelling campaigns (`ase_neuralxc.campaign.Labeller`). Here are those made
from what a user has in hand: a calculator object, or a few lines of a configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import BaseCalculator

from ase_neuralxc.calculator import NeuralXC
from ase_neuralxc.campaign import (
    Campaign,
    EMTLabeller,
    Failure,
    Labeller,
    label_structures,
    state_from_atoms,
    task_key,
)
from ase_neuralxc.campaign.labelling import LabelTask, RecordCodec
from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.labeller import NeuralXCLabeller, split_state
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState
from ase_neuralxc.records.label import RESULTS

#: Parameters of a calculator that change no result.
_OUTPUT = frozenset({"txt", "label"})
#: Labellers that a configuration can name.
KINDS = ("neuralxc", "emt")


class CalculatorLabeller:
    """Labels from any calculator of ASE; charge and spin are what the calculator was given.

    Args:
        calc: the calculator. Its class and plain parameters make the level of theory.
    """

    def __init__(self, calc: Any) -> None:
        self._calc = calc
        parameters = getattr(calc, "parameters", None) or {}
        plain = {
            key: value
            for key, value in sorted(parameters.items())
            if _is_plain(value) and value is not None and key not in _OUTPUT
        }
        self.identity = f"{type(calc).__name__} {plain}"
        self.fidelity = FidelityTag(functional=self.identity, host="ase")

    def label(self, atoms: Atoms, state: SpinState) -> LabelRecord:
        """Energy, forces and, where there is one, stress.

        Args:
            atoms: the structure; it is not changed.
            state: goes into the record.

        Returns:
            The label.
        """
        work = atoms.copy()
        work.calc = self._calc
        work.get_potential_energy()
        forces = work.get_forces(apply_constraint=False)
        if work.pbc.all() and "stress" in work.calc.implemented_properties:
            work.get_stress(apply_constraint=False)
        results = {name: work.calc.results.get(name) for name in RESULTS}
        return LabelRecord.from_atoms(
            work,
            spin_state=state,
            fidelity=self.fidelity,
            convergence={"converged": True},
            **{**results, "forces": forces},
        )


@dataclass(frozen=True)
class Source:
    """A labeller with what a campaign needs beside it.

    Attributes:
        labellers: of rising strength, for retries.
        state_of: the spin state of a structure.
    """

    labellers: tuple[Labeller, ...]
    state_of: Callable[[Atoms], SpinState] = state_from_atoms

    def label(self, atoms: Atoms) -> LabelRecord:
        """Label of one structure by the first labeller, outside any campaign.

        Args:
            atoms: the structure; constraints do not hide forces.

        Returns:
            The label.
        """
        bare = atoms.copy()
        bare.set_constraint()
        return self.labellers[0].label(bare, self.state_of(atoms))


def label_all(
    images: Sequence[Atoms],
    source: Source,
    folder: str | Path,
    workers: int = 1,
    show_progress: bool = False,
) -> list[LabelRecord | Failure]:
    """Label structures as a campaign, which continues where it was interrupted.

    Args:
        images: structures; equal ones are labelled once.
        source: what labels.
        folder: of the campaign.
        workers: processes that label.
        show_progress: show a bar on standard error.

    Returns:
        For each structure its label, or what is known of its failure.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    summary = label_structures(
        images,
        source.labellers,
        folder,
        source.state_of,
        workers=workers,
        retries=len(source.labellers) - 1,
        progress=show_progress,
    )
    store = Campaign(folder, codec=RecordCodec())
    keys = [task_key(LabelTask.from_atoms(atoms, source.state_of(atoms))) for atoms in images]
    return [summary.failures[key] if key in summary.failures else store.load(key) for key in keys]


def as_source(dft: Any) -> Source:
    """What labels, from what a user has.

    Args:
        dft: a labeller, `NeuralXC(...)`, any other calculator of ASE, or a `Source`.

    Returns:
        The source. Of `NeuralXC` the settings are taken, not the object: each label is a new
        calculation, whose result does not depend on those before it.

    Raises:
        InvalidInputError: none of these.
    """
    if isinstance(dft, Source):
        return dft
    if isinstance(dft, NeuralXC):
        # what was left at its default is left out: written out or not, it is one level of theory
        known = signature(NeuralXC).parameters
        at_default = {
            name
            for name, value in dft.parameters.items()
            if name in known and _is_plain(value) and value == known[name].default
        }
        return neuralxc_source(
            {
                name: value
                for name, value in dft.parameters.items()
                if name == "xc" or name not in _OUTPUT | at_default
            }
        )
    # first: calculators of ASE have a `label` too, which is a path
    if isinstance(dft, BaseCalculator):
        return Source((CalculatorLabeller(dft),))
    if isinstance(dft, Labeller):
        return Source((dft,))
    raise InvalidInputError(
        f"dft: expected a labeller or a calculator of ASE, got {type(dft).__name__}"
    )


def _is_plain(value: Any) -> bool:
    """Whether a value can be compared and written: arrays and functionals are not."""
    return isinstance(value, str | int | float | bool | None)


def neuralxc_source(keywords: Mapping[str, Any]) -> Source:
    """The DFT core.

    Args:
        keywords: of `NeuralXC`; charge, multiplicity and moments count for all structures.

    Returns:
        The source; its second labeller has more patience with the SCF.
    """
    settings, state_of = split_state(keywords)
    labeller = NeuralXCLabeller(settings)
    return Source((labeller, labeller.patient()), state_of)


def named_source(kind: str, keywords: Mapping[str, Any]) -> Source:
    """What labels, from a configuration.

    Args:
        kind: one of `KINDS`.
        keywords: of `NeuralXC`; none for "emt".

    Returns:
        The source.

    Raises:
        InvalidInputError: an unknown kind, or settings that it does not have.
    """
    if kind == "neuralxc":
        return neuralxc_source(keywords)
    if kind == "emt":
        if keywords:
            raise InvalidInputError(f"labeller: 'emt' has no settings, got {sorted(keywords)}")
        return Source((EMTLabeller(),))
    raise unknown_name("labeller", kind, KINDS)
