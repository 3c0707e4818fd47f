"""London dispersion, D3(BJ) and D4, from the reference implementations `dftd3` and `dftd4`.

Molecules, and crystals with forces and stress. In a slab D3 sums over the periodic directions only;
D4, whose atomic charges need the Coulomb sum of a crystal, repeats the slab with its vacuum.

D3: Grimme et al., JCP 132, 154104 (2010); BJ damping: JCC 32, 1456 (2011).
D4: Caldeweyher et al., JCP 150, 154122 (2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.system import System
from ase_neuralxc.errors import InvalidInputError, MissingDependencyError, unknown_name
from ase_neuralxc.records import units

try:
    import dftd3.interface as d3
    import dftd4.interface as d4
except ImportError as error:  # pragma: no cover - both are dependencies of the package
    _missing: ImportError | None = error
else:
    _missing = None

METHODS = ("d3bj", "d4")


@dataclass(frozen=True)
class Dispersion:
    """A pairwise (and, for D4, three-body) dispersion energy of the geometry alone.

    Attributes:
        method: "d3bj" or "d4".
        functional: name of the functional whose damping parameters are used.

    Raises:
        InvalidInputError: unknown method, or no damping parameters for the functional.
    """

    method: str
    functional: str

    def __post_init__(self) -> None:
        if _missing is not None:
            raise MissingDependencyError(f"dispersion={self.method!r}: {_missing}") from _missing
        if self.method not in METHODS:
            raise unknown_name("dispersion", self.method, METHODS)
        try:
            self._damping()
        except RuntimeError as error:
            raise InvalidInputError(
                f"dispersion: {self.method} has no damping parameters for the functional "
                f"{self.functional!r}; give them as '{self.method}:NAME', for example "
                f"'{self.method}:r2scan'"
            ) from error

    @property
    def name(self) -> str:
        """Name in the itemised energies: method and functional."""
        return f"{self.method}({self.functional})"

    def energy(self, structure: Any, density_matrix: NDArray | None = None) -> float:
        """Dispersion energy in Hartree, per cell; `structure` is a `System` or a PySCF `Mole`."""
        return float(self._evaluate(structure, grad=False)["energy"])

    def ao_operator(self, structure: Any, density_matrix: NDArray | None = None) -> None:
        """No operator: the energy does not depend on the density."""
        return

    def forces(self, structure: Any, density_matrix: NDArray | None = None) -> NDArray:
        """Forces, [n_atoms, 3] in Hartree/Bohr."""
        return -np.asarray(self._evaluate(structure, grad=True)["gradient"])

    def stress(self, structure: System) -> NDArray:
        """Stress (1/V) dE/d(strain), symmetric [3, 3] in Hartree/Bohr^3.

        Args:
            structure: a system with a cell and periodic directions.

        Returns:
            The stress; its volume is that of the cell, with the vacuum of a slab.

        Raises:
            InvalidInputError: the system is not periodic.
        """
        if structure.cell is None or not structure.periodic:
            raise InvalidInputError(
                f"stress: expected a periodic system, got pbc = {list(structure.pbc)}"
            )
        virial = np.asarray(self._evaluate(structure, grad=True)["virial"])
        volume = abs(np.linalg.det(structure.cell)) / units.BOHR_ANGSTROM**3
        return 0.5 * (virial + virial.T) / volume

    def _damping(self) -> Any:
        if self.method == "d3bj":
            return d3.RationalDampingParam(method=self.functional)
        return d4.DampingParam(method=self.functional)

    def _evaluate(self, structure: Any, grad: bool) -> dict[str, Any]:
        if isinstance(structure, System):
            numbers, charge = structure.numbers, structure.spin_state.charge
            positions = structure.positions / units.BOHR_ANGSTROM
            periodic = structure.periodic
            lattice = np.asarray(structure.cell) / units.BOHR_ANGSTROM if periodic else None
            directions = np.array(structure.pbc) if periodic else None
        else:
            # elements, not `atom_charges()`: those are reduced by effective core potentials
            from pyscf.data.elements import charge as atomic_number

            symbols = [structure.atom_pure_symbol(i) for i in range(structure.natm)]
            numbers, charge = np.array([atomic_number(s) for s in symbols]), structure.charge
            positions = structure.atom_coords(unit="Bohr")
            lattice = directions = None
        if self.method == "d3bj":
            model = d3.DispersionModel(numbers, positions, lattice, directions)
        else:
            model = d4.DispersionModel(numbers, positions, float(charge), lattice, directions)
        return model.get_dispersion(self._damping(), grad=grad)


def parse_dispersion(spec: str | None, functional: str) -> Dispersion | None:
    """Read "d3bj", "d4", "d4:NAME" or None.

    Args:
        spec: what the user asked for; NAME takes the damping parameters of another functional.
        functional: the functional in use.

    Returns:
        The term, or None for no dispersion.
    """
    if spec is None:
        return None
    method, _, name = spec.lower().partition(":")
    return Dispersion({"d3": "d3bj"}.get(method, method), name or functional)
