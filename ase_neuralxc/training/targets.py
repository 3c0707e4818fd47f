"""Reference values of single structures: energies, dipoles, forces, ionisation potentials.

They are read from extended XYZ files in ASE's units, as ASE and most programs write them: `energy`
(eV) and `dipole` (e*Angstrom) of a frame, `forces` (eV/Angstrom) of its atoms. Further entries of
the header are `charge`, `multiplicity`, `name`, `ionisation_potential` (eV, vertical) and
`cation_multiplicity`. Energies become reactions, which the trainer takes: atomisations where the
file has the free atoms, else total energies.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import ground_state_magnetic_moments
from ase.io import read
from numpy.typing import NDArray

from ase_neuralxc.campaign import state_from_atoms
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units
from ase_neuralxc.training.reactions import Reaction, ReactionSet, Species

#: Suffixes of files that `find_reactions` reads through this module.
SUFFIXES = (".xyz", ".extxyz")


@dataclass(frozen=True)
class Target:
    """Reference values of one structure, in Hartree atomic units; what is unknown is None.

    Attributes:
        species: the structure.
        energy: total energy in Hartree.
        dipole: [3] in e*Bohr, about the origin of the coordinates.
        forces: [n_atoms, 3] in Hartree/Bohr.
        ionisation_potential: E(cation) - E at the same positions, in Hartree.
        cation_multiplicity: 2S+1 of the cation; None where there is no ionisation potential.
    """

    species: Species
    energy: float | None = None
    dipole: NDArray | None = None
    forces: NDArray | None = None
    ionisation_potential: float | None = None
    cation_multiplicity: int | None = None

    @property
    def cation(self) -> Species:
        """The species without one electron, at the same positions."""
        if self.cation_multiplicity is None:
            raise InvalidInputError(
                f"cation_multiplicity: expected one for {self.species.name!r}, got None"
            )
        return replace(
            self.species,
            name=f"{self.species.name}+",
            charge=self.species.charge + 1,
            multiplicity=self.cation_multiplicity,
        )


def read_targets(path: str | Path) -> list[Target]:
    """Read the frames of an extended XYZ file.

    A multiplicity that is not given is that of the ground state for an atom, and the lowest one
    that the number of electrons allows for a molecule.

    Args:
        path: the file.

    Returns:
        One target per frame that has any reference value, with names that are unique.

    Raises:
        InvalidInputError: the file cannot be read, a frame is periodic or in an impossible spin
            state, a value is not finite, or no frame has a reference value.
    """
    try:
        frames = read(path, index=":", format="extxyz")
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise InvalidInputError(f"path: cannot read {str(path)!r}: {error}") from error
    formulas = Counter(frame.get_chemical_formula() for frame in frames)
    targets: dict[str, Target] = {}
    for index, frame in enumerate(frames):
        formula = frame.get_chemical_formula()
        default = formula if formulas[formula] == 1 else f"{formula}-{index}"
        name = str(frame.info.get("name", default))
        try:
            target = _target(frame, name)
        except InvalidInputError as error:
            raise InvalidInputError(f"{Path(path).name}, frame {index}: {error}") from error
        if name in targets:
            raise InvalidInputError(
                f"{Path(path).name}, frame {index}: name: expected one that is new, got {name!r}"
            )
        if any(v is not None for v in _values(target)):
            targets[name] = target
    if not targets:
        raise InvalidInputError(
            f"path: expected frames with energy, forces, dipole or ionisation_potential in "
            f"{str(path)!r}, got none"
        )
    return list(targets.values())


def reactions_of(targets: Sequence[Target], name: str, file_hash: str = "") -> ReactionSet:
    """Energies and ionisation potentials of targets as reactions.

    Args:
        targets: with unique names.
        name: of the set.
        file_hash: of the file they come from.

    Returns:
        An atomisation per molecule if the energies of its free atoms are among the targets, else
        its total energy; one reaction per ionisation potential.

    Raises:
        InvalidInputError: no target has an energy or an ionisation potential.
    """
    atoms = {
        t.species.symbols[0]: (t.species.name, t.energy)
        for t in targets
        if len(t.species.symbols) == 1 and t.species.charge == 0 and t.energy is not None
    }
    species = {t.species.name: t.species for t in targets}
    reactions = []
    for target in targets:
        if target.energy is not None and (len(target.species.symbols) > 1 or not atoms):
            reactions.append(_energy_reaction(target, target.energy, atoms))
        if target.ionisation_potential is not None:
            cation = target.cation
            species[cation.name] = cation
            reactions.append(
                Reaction(
                    name=f"ionisation of {target.species.name}",
                    species=(target.species.name, cation.name),
                    coefficients=(-1.0, 1.0),
                    reference=target.ionisation_potential / units.KCALMOL_HARTREE,
                )
            )
    if not reactions:
        raise InvalidInputError(
            f"targets: expected energies or ionisation potentials in {name!r}, got none"
        )
    meta = {"type": "meta", "set": name}
    return ReactionSet(name, species, tuple(reactions), meta, file_hash)


def read_target_reactions(path: str | Path) -> ReactionSet:
    """Reactions of an extended XYZ file; the set is named after the file.

    Args:
        path: the file.

    Returns:
        The set.

    Raises:
        InvalidInputError: see `read_targets` and `reactions_of`.
    """
    targets = read_targets(path)
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return reactions_of(targets, Path(path).stem, digest)


def _energy_reaction(
    target: Target, energy: float, atoms: Mapping[str, tuple[str, float]]
) -> Reaction:
    own = target.species
    counts = Counter(own.symbols)
    if not counts.keys() <= atoms.keys():
        return Reaction(
            f"energy of {own.name}", (own.name,), (1.0,), energy / units.KCALMOL_HARTREE
        )
    apart = sum(count * atoms[symbol][1] for symbol, count in counts.items())
    return Reaction(
        name=f"atomisation of {own.name}",
        species=(*(atoms[symbol][0] for symbol in counts), own.name),
        coefficients=(*map(float, counts.values()), -1.0),
        reference=(apart - energy) / units.KCALMOL_HARTREE,
    )


def _target(frame: Atoms, name: str) -> Target:
    if frame.pbc.any():
        raise InvalidInputError(f"pbc: expected a molecule, got {frame.pbc.tolist()}")
    state = state_from_atoms(frame)
    electrons = int(frame.numbers.sum()) - state.charge
    if state.n_unpaired is not None:
        unpaired = state.n_unpaired
    elif len(frame) == 1 and state.charge == 0:
        unpaired = round(float(ground_state_magnetic_moments[frame.numbers[0]]))
    else:
        unpaired = electrons % 2
    if electrons < 1 or unpaired > electrons or (electrons - unpaired) % 2:
        raise InvalidInputError(
            f"multiplicity: expected 2S+1 of {electrons} electrons, got {unpaired + 1}"
        )
    results: Mapping[str, Any] = {} if frame.calc is None else frame.calc.results
    potential = frame.info.get("ionisation_potential")
    cation = None
    if potential is not None:
        lowest = unpaired if unpaired > 0 else 2
        cation = int(frame.info.get("cation_multiplicity", lowest))
    target = Target(
        species=Species(
            name=name,
            symbols=tuple(frame.get_chemical_symbols()),
            positions=tuple((float(x), float(y), float(z)) for x, y, z in frame.positions),
            charge=state.charge,
            multiplicity=unpaired + 1,
        ),
        energy=_scaled(results.get("energy"), units.EV_HARTREE),
        dipole=_scaled_array(results.get("dipole"), units.ANGSTROM_BOHR),
        forces=_scaled_array(results.get("forces"), 1.0 / units.HARTREE_BOHR_EV_ANGSTROM),
        ionisation_potential=_scaled(potential, units.EV_HARTREE),
        cation_multiplicity=cation,
    )
    for value in _values(target):
        if value is not None and not np.isfinite(value).all():
            raise InvalidInputError(f"energy: expected finite reference values, got {value}")
    return target


def _values(target: Target) -> Iterable[Any]:
    return target.energy, target.dipole, target.forces, target.ionisation_potential


def _scaled(value: Any, factor: float) -> float | None:
    return None if value is None else float(value) * factor


def _scaled_array(value: Any, factor: float) -> NDArray | None:
    return None if value is None else np.asarray(value, dtype=float) * factor
