"""What an adsorption energy is measured against: the clean slab and species of the gas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.placements import as_adsorbate
from ase_neuralxc.workflows.relaxations import require_same_level


def reference_species(
    molecule: Atoms, reference: Mapping[str, float] | None
) -> dict[str, tuple[Atoms, float]]:
    """Gas-phase species of a reference.

    Args:
        molecule: the adsorbate.
        reference: species (names of `ase.collections.g2`) and coefficients; None: the adsorbate.

    Returns:
        By name: atoms and coefficient.

    Raises:
        InvalidInputError: an unknown species, or species that do not add up to the adsorbate.
    """
    if reference is None:
        return {molecule.get_chemical_formula(): (molecule, 1.0)}
    species = {name: (as_adsorbate(name), float(n)) for name, n in reference.items()}
    total: dict[str, float] = {}
    for atoms, coefficient in species.values():
        for symbol in atoms.symbols:
            total[symbol] = total.get(symbol, 0.0) + coefficient
    wanted = Counter(molecule.get_chemical_symbols())
    if any(abs(total.get(s, 0.0) - wanted[s]) > 1e-9 for s in {*total, *wanted}):
        raise InvalidInputError(
            f"reference: expected species that add up to {dict(wanted)}, got {total} from "
            f"{dict(reference)}"
        )
    return species


def known_gas(
    gas: Mapping[str, Atoms], species: Mapping[str, tuple[Atoms, float]]
) -> dict[str, Atoms]:
    """Species that come with their energy.

    Args:
        gas: by name, with a calculator that holds the energy.
        species: of the reference.

    Returns:
        The same, checked.

    Raises:
        InvalidInputError: one that the reference does not ask for, of other atoms, or without
            energy.
    """
    known = {}
    for name, atoms in gas.items():
        if name not in species:
            raise InvalidInputError(f"gas: expected species of {sorted(species)}, got {name!r}")
        if sorted(atoms.numbers) != sorted(species[name][0].numbers):
            raise InvalidInputError(
                f"gas: expected atoms of {name}, got {atoms.get_chemical_formula()}"
            )
        if atoms.calc is None or atoms.calc.results.get("energy") is None:
            raise InvalidInputError(f"gas: expected {name} with its energy, got none")
        known[name] = atoms
    return known


def boxed(molecule: Atoms, slab: Atoms, vacuum: float) -> Atoms:
    """A gas-phase species with the periodicity of the slab, hence for the same host and basis.

    Args:
        molecule: the species.
        slab: the slab.
        vacuum: space around the species in Angstrom.

    Returns:
        The species in a box.
    """
    atoms = molecule.copy()
    atoms.set_cell(np.diag(np.ptp(atoms.positions, axis=0) + vacuum))
    atoms.center()
    atoms.pbc = slab.pbc
    return atoms


def reference_energy(
    clean: Atoms, gas: Mapping[str, Atoms], reference: Mapping[str, float]
) -> float:
    """Energy of slab and gas in eV.

    Args:
        clean: the slab with its energy.
        gas: species with their energies.
        reference: coefficients.

    Returns:
        Their sum.

    Raises:
        InvalidInputError: energies of different levels of theory.
    """
    for atoms in gas.values():
        require_same_level(clean, atoms)
    return float(clean.get_potential_energy()) + sum(
        coefficient * float(gas[name].get_potential_energy())
        for name, coefficient in reference.items()
    )
