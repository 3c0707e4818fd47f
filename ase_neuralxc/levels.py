"""Levels, bands and densities of states in the form that ASE asks of a calculator."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.dft.kpoints import BandPath
from ase.spectrum.band_structure import BandStructure
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units


class ElectronicLevels:
    """Mixin of a calculator that has a `backend` and, after a calculation, a `solution`.

    The methods are those that `ase.dft.dos.DOS`, `ase.dft.bandgap` and
    `ase.spectrum.band_structure` call; energies are in eV.
    """

    backend: Any
    solution: Any

    def _spectrum(self) -> dict[str, Any]:
        if self.solution is None or self.solution.host is None:
            raise InvalidInputError("calculator: no calculation has been done yet")
        spectrum: dict[str, Any] = self.backend.spectrum(self.solution)
        return spectrum

    def get_eigenvalues(self, kpt: int = 0, spin: int = 0) -> NDArray:
        """Levels of one k-point and spin, [bands] in eV."""
        return np.asarray(self._spectrum()["eigenvalues"][spin, kpt]) * units.HARTREE_EV

    def get_fermi_level(self) -> float:
        """Fermi level in eV; for a fixed total moment the mean of the two spins' levels."""
        return float(np.mean(self._spectrum()["fermi_level"])) * units.HARTREE_EV

    def get_band_gap(self) -> float:
        """Gap between occupied and empty levels in eV, zero for a metal."""
        return float(self._spectrum()["band_gap"]) * units.HARTREE_EV

    def get_work_functions(self) -> NDArray:
        """Work functions of a slab's upper and lower side, [2] in eV.

        Returns:
            Vacuum level minus Fermi level on each side.

        Raises:
            InvalidInputError: the calculation had no dipole layer, which separates the sides.
        """
        found = self._spectrum()
        if "work_functions" not in found:
            raise InvalidInputError(
                "dipole_layer: expected a slab calculated with backend='gpaw' and "
                "dipole_layer=True, whose vacuum has two levels, got a calculation without"
            )
        return np.asarray(found["work_functions"]) * units.HARTREE_EV

    def get_ibz_k_points(self) -> NDArray:
        """k-points of the calculation, [k, 3] in units of the reciprocal vectors."""
        return np.asarray(self._spectrum()["kpoints"])

    def get_k_point_weights(self) -> NDArray:
        """Weights of the k-points, [k], their sum 1."""
        return np.asarray(self._spectrum()["weights"])

    def get_number_of_spins(self) -> int:
        """One, or two for a spin-polarised calculation."""
        return int(self._spectrum()["eigenvalues"].shape[0])

    def get_spin_polarized(self) -> bool:
        """Whether the two spins have levels of their own."""
        return self.get_number_of_spins() == 2

    def get_number_of_bands(self) -> int:
        """Number of levels of each k-point."""
        return int(self._spectrum()["eigenvalues"].shape[2])

    def band_structure(
        self, path: BandPath | str | None = None, npoints: int = 60
    ) -> BandStructure:
        """Bands along a path of k-points, at the converged density.

        Args:
            path: a path of ASE, or its special points such as "GXWK", or None for the standard
                path of the lattice.
            npoints: number of k-points, if the path is not given as an object.

        Returns:
            ASE's band structure (`.plot()`, `.subtract_reference()`), energies in eV.

        Raises:
            InvalidInputError: nothing has been calculated yet, or the system is not periodic.
        """
        self._spectrum()
        system = self.solution.system
        if not system.periodic:
            raise InvalidInputError(
                f"band_structure: expected a periodic system, got pbc = {list(system.pbc)}"
            )
        points: Any = path
        if isinstance(path, str) or path is None:
            cell = self.atoms.cell  # type: ignore[attr-defined]
            points = cell.bandpath(path, npoints=npoints, pbc=system.pbc)
        energies = np.asarray(self.backend.bands(self.solution, points.kpts)) * units.HARTREE_EV
        return BandStructure(points, energies, reference=self.get_fermi_level())
