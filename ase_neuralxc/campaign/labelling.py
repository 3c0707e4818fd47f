"""Labelling campaigns: many structures, one record file each, resumable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_neuralxc.campaign.engine import Campaign, RunSummary
from ase_neuralxc.campaign.labeller import Labeller, labeller_identity
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord, SpinState, structure_hash
from ase_neuralxc.records.io import format_records, parse_records
from ase_neuralxc.records.label import INFO_KEY


class RecordCodec:
    """One label per file, as extended XYZ that any viewer opens."""

    suffix = ".extxyz"

    def encode(self, result: Any) -> bytes:
        """Text of one record."""
        if not isinstance(result, LabelRecord):
            raise InvalidInputError(f"label: expected a LabelRecord, got {type(result).__name__}")
        return format_records([result]).encode()

    def decode(self, content: bytes, source: str) -> LabelRecord:
        """The record of a file, checked."""
        (record,) = parse_records(content.decode(errors="replace"), source)
        return record


@dataclass(frozen=True)
class LabelTask:
    """A structure to be labelled.

    Attributes:
        atoms: numbers, positions, cell, pbc and the initial moments of the state; no constraints,
            which would hide forces.
        state: spin state.
    """

    atoms: Atoms
    state: SpinState

    @classmethod
    def from_atoms(cls, atoms: Atoms, state: SpinState) -> LabelTask:
        """Task for a structure, without anything that belongs to its history."""
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        if state.magmoms is not None:
            bare.set_initial_magnetic_moments(np.array(state.magmoms))
        return cls(bare, state)

    @cached_property
    def content_hash(self) -> str:
        """Hash of geometry and spin state."""
        return structure_hash(self.atoms, self.state)


@dataclass(frozen=True)
class _Label:
    """The task function: the n-th attempt uses the n-th labeller, the last one from then on."""

    labellers: tuple[Labeller, ...]

    def __call__(self, task: LabelTask, attempt: int) -> LabelRecord:
        labeller = self.labellers[min(attempt, len(self.labellers) - 1)]
        return labeller.label(task.atoms.copy(), task.state)


def label_structures(
    images: Iterable[Atoms],
    labeller: Labeller | Sequence[Labeller],
    directory: str | Path,
    state_of: Callable[[Atoms], SpinState] | None = None,
    **options: Any,
) -> RunSummary:
    """Label structures, one record file each; run it again to go on after an interruption.

    Args:
        images: structures; equal ones (geometry and spin state) are labelled once.
        labeller: what labels, or several of rising strength at the same level of theory: the
            second one is used for the first retry, and so on.
        directory: folder of the campaign.
        state_of: spin state of a structure; `state_from_atoms` if not given.
        **options: workers, executor, retries, progress of `Campaign.run`.

    Returns:
        Numbers of labels made, failed and already there, and the failures with their reasons.

    Raises:
        InvalidInputError: no labeller, an impossible spin state, or a folder that cannot be
            written or holds labels of another identity.
    """
    labellers = tuple(labeller) if isinstance(labeller, Sequence) else (labeller,)
    if not labellers:
        raise InvalidInputError("labeller: expected at least one, got an empty sequence")
    read_state = state_of or state_from_atoms
    tasks = [LabelTask.from_atoms(atoms, read_state(atoms)) for atoms in images]
    campaign = Campaign(directory, labeller_identity(labellers[0]), RecordCodec())
    return campaign.run(tasks, _Label(labellers), **options)


def collect(directory: str | Path) -> list[LabelRecord]:
    """All labels of a campaign, also while it is running.

    Args:
        directory: folder of the campaign.

    Returns:
        The labels in the order of their tasks' hashes.

    Raises:
        InvalidInputError: not a campaign, or a damaged record.
    """
    return [record for _, record in Campaign(directory, codec=RecordCodec()).results()]


def state_from_atoms(atoms: Atoms) -> SpinState:
    """Spin state that a structure carries.

    Args:
        atoms: with a spin state in `info` (as labels that were read have it), or with
            `info["charge"]`, `info["multiplicity"]` and initial magnetic moments, each optional.

    Returns:
        The state; neutral and open where nothing is said.

    Raises:
        InvalidInputError: an impossible charge or multiplicity.
    """
    stored = atoms.info.get(INFO_KEY, {}).get("spin_state")
    if stored is not None:
        return SpinState.from_dict(stored)
    charge = atoms.info.get("charge", 0)
    moments = atoms.get_initial_magnetic_moments()
    unpaired = None
    if "multiplicity" in atoms.info:
        unpaired = SpinState.from_multiplicity(atoms.info["multiplicity"]).n_unpaired
    return SpinState(charge, unpaired, moments if np.any(moments) else None)
