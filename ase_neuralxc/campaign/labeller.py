"""What turns a structure into a label, and a cheap one for tests of everything around it."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Protocol, runtime_checkable

from ase import Atoms
from ase.calculators.emt import EMT

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import FidelityTag, LabelRecord, SpinState


@runtime_checkable
class Labeller(Protocol):
    """Computes labels. It must pickle to be used with worker processes.

    A labeller has an attribute `identity`, a string, or is a dataclass, whose representation then
    serves: it says method and settings, and must differ whenever labels of the same structure
    would. Labels of two identities are never put into one folder.
    """

    def label(self, atoms: Atoms, state: SpinState) -> LabelRecord:
        """Label of a structure in a spin state; raises if there is none (not converged, ...)."""


def labeller_identity(labeller: object) -> str:
    """Method and settings of a labeller in words.

    Args:
        labeller: with an `identity`, or a dataclass.

    Returns:
        A text that is the same in every process.

    Raises:
        InvalidInputError: it has neither.
    """
    identity = getattr(labeller, "identity", None)
    if isinstance(identity, str) and identity:
        return identity
    if is_dataclass(labeller):
        return repr(labeller)
    raise InvalidInputError(
        "labeller: expected a dataclass or an object with a text `identity` (method and "
        f"settings), got {type(labeller).__name__} with identity {identity!r}"
    )


class EMTLabeller:
    """ASE's effective-medium potential: metals and H, C, N, O in a fraction of a millisecond."""

    identity = "emt"

    def label(self, atoms: Atoms, state: SpinState) -> LabelRecord:
        """Energy, forces and, for a crystal, stress; charge and spin change nothing.

        Args:
            atoms: the structure; it is not changed.
            state: goes into the record.

        Returns:
            A record with fidelity "emt".

        Raises:
            NotImplementedError: an element that EMT does not have.
        """
        atoms = atoms.copy()
        atoms.calc = EMT()
        crystal = atoms.pbc.all() and atoms.cell.rank == 3
        return LabelRecord.from_atoms(
            atoms,
            spin_state=state,
            fidelity=FidelityTag(functional="emt", host="ase"),
            convergence={"converged": True},
            energy=atoms.get_potential_energy(),
            free_energy=atoms.get_potential_energy(force_consistent=True),
            forces=atoms.get_forces(apply_constraint=False),
            stress=atoms.get_stress(apply_constraint=False) if crystal else None,
            magmoms=None,
            charges=None,
            dipole=None,
        )
