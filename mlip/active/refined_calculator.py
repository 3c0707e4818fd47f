"""A potential as a calculator that DFT points correct in their neighbourhood."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord
from mlip.active.correction import DifferenceModel, PairDistances
from mlip.active.energies import computed_energy, labelled_surface
from mlip.active.labeller import Source, as_source
from mlip.calculator import CloseContactWarning


class RefinedCalculator(Calculator):
    """A potential, corrected near the DFT points that it has been shown.

    Args:
        potential: a calculator of ASE.
        dft: a labeller, `NeuralXC(...)` or any other calculator of ASE.
        known: labels to start with.
        **options: of ASE's Calculator.

    Attributes:
        known: the labels it started with.
        records: the DFT calculations so far.
    """

    implemented_properties = ["energy", "free_energy", "forces"]
    default_parameters: dict[str, Any] = {}

    def __init__(
        self, potential: Any, dft: Any, known: Sequence[LabelRecord] = (), **options: Any
    ) -> None:
        super().__init__(**options)
        self.potential = potential
        self.known = tuple(known)
        self.records: list[LabelRecord] = []
        self._source: Source = as_source(dft)
        self._correction: DifferenceModel | None = None
        self._system: Atoms | None = None
        for record in self.known:
            self.learn(record)

    @property
    def corrected(self) -> bool:
        """Whether any DFT point was learned."""
        return self._system is not None

    @property
    def n_dft(self) -> int:
        """DFT calculations so far."""
        return len(self.records)

    def observe(self, atoms: Atoms) -> LabelRecord:
        """Ask DFT about a structure and learn the difference.

        Args:
            atoms: the structure.

        Returns:
            The label.

        Raises:
            InvalidInputError: another system than before.
            SCFNotConverged: from the DFT core; nothing is learned.
        """
        self._check(atoms)
        record = self._source.label(atoms)
        self.learn(record)
        self.records.append(record)
        return record

    def learn(self, record: LabelRecord) -> None:
        """Learn the difference at a structure that DFT was asked about before.

        Args:
            record: its label; it is not counted.

        Raises:
            InvalidInputError: another system than before, or a label without energy or forces.
        """
        atoms = record.to_atoms()
        atoms.calc = None
        self._check(atoms)
        energy, forces = self._potential_results(atoms)
        known_energy, known_forces = labelled_surface(record)
        if self._correction is None:
            self._system, self._correction = atoms, DifferenceModel(PairDistances(atoms))
        self._correction.add(atoms.positions, known_energy - energy, forces - known_forces)
        self.reset()

    def focus(self, atoms: Atoms) -> None:
        """Correct the surroundings of a structure, which may not be that of the last point.

        Args:
            atoms: the structure.
        """
        if self._correction is not None:
            self._correction.focus(atoms.positions)
            self.reset()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy and forces; called by ASE."""
        super().calculate(atoms, list(properties), list(system_changes))
        self._check(self.atoms)
        energy, forces = self._potential_results(self.atoms)
        if self._correction is not None:
            shift, slope = self._correction.predict(self.atoms.positions)
            energy, forces = energy + shift, forces - slope
        self.results = {"energy": energy, "free_energy": energy, "forces": forces}

    def _potential_results(self, atoms: Atoms) -> tuple[float, NDArray]:
        bare = atoms.copy()
        bare.set_constraint()
        bare.calc = self.potential
        with warnings.catch_warnings():
            # DFT is asked in any case, wherever the potential leads
            warnings.simplefilter("ignore", CloseContactWarning)
            forces = np.array(bare.get_forces())
            return computed_energy(bare), forces

    def _check(self, atoms: Atoms) -> None:
        known = self._system
        if known is None:
            return
        same = np.array_equal(known.numbers, atoms.numbers) and np.array_equal(known.pbc, atoms.pbc)
        if not (same and np.allclose(known.cell.array, atoms.cell.array)):
            raise InvalidInputError(
                "atoms: expected the system of the DFT points shown before (same atoms in the same "
                f"order, same cell), got {atoms.get_chemical_formula()}"
            )
