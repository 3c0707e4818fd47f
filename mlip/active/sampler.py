"""New structures near known ones: displaced, strained, and along normal modes.

A sampler is a frozen record of its settings; what it draws depends on the structures, the
calculator and the seed alone. Each sample says in `info["sample"]` where it comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ase import Atoms, units
from ase.data import covalent_radii
from ase.neighborlist import neighbor_list

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import vibrations
from ase_neuralxc.workflows.common import require_positive

#: Where a sample says its origin; `config_type` beside it names the sampler, for error tables.
SAMPLE_KEY = "sample"
#: What of `info` is part of a structure's state, not of its history.
STATE_KEYS = ("charge", "multiplicity", "spin_polarised")
#: Atoms closer than this fraction of the sum of their covalent radii are no chemistry.
CLOSEST = 0.6


class Sampler(Protocol):
    """Draws structures."""

    @property
    def needs_potential(self) -> bool:
        """Whether it has to have one."""

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """New structures from known ones.

        Args:
            starts: known structures.
            calc: a calculator of ASE, or None for samplers that need none.
            seed: of everything random.

        Returns:
            An iterator over structures without calculator and velocities, their origin in `info`.
        """


def sampled(atoms: Atoms, sampler: str, parent: int, **origin: Any) -> Atoms:
    """A structure with its origin and without its history.

    Args:
        atoms: the structure.
        sampler: name of the sampler.
        parent: index of the structure that it was drawn from.
        **origin: what else tells the sample from others, JSON values.

    Returns:
        A copy with positions, cell, constraints, initial moments and electronic state.
    """
    made = Atoms(
        atoms.numbers,
        atoms.positions,
        cell=atoms.cell,
        pbc=atoms.pbc,
        constraint=[constraint.copy() for constraint in atoms.constraints],
    )
    if atoms.has("initial_magmoms"):
        made.set_initial_magnetic_moments(atoms.get_initial_magnetic_moments())
    made.info = {key: atoms.info[key] for key in STATE_KEYS if key in atoms.info}
    made.info["config_type"] = sampler
    made.info[SAMPLE_KEY] = {"sampler": sampler, "parent": parent, **origin}
    return made


def is_reasonable(atoms: Atoms, closest: float = CLOSEST) -> bool:
    """Whether no two atoms sit on each other and every number is finite.

    Args:
        atoms: the structure.
        closest: shortest distance allowed, by the sum of the covalent radii.

    Returns:
        True for a structure that is worth a calculation.
    """
    if not np.isfinite(atoms.positions).all():
        return False
    radii = covalent_radii[atoms.numbers]
    i, j, distance = neighbor_list("ijd", atoms, closest * 2.0 * float(radii.max()))
    return not bool((distance < closest * (radii[i] + radii[j])).any())


@dataclass(frozen=True)
class Rattle:
    """Random displacements, each coordinate by a normal distribution.

    Attributes:
        count: samples of each start and amplitude.
        amplitudes: standard deviations in Angstrom.
    """

    count: int = 5
    amplitudes: tuple[float, ...] = (0.05, 0.1)
    needs_potential = False

    def __post_init__(self) -> None:
        _check_all("rattle.amplitudes", self.amplitudes)
        require_positive("rattle.count", self.count)

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Displaced structures; atoms that constraints hold stay."""
        for parent, atoms in enumerate(starts):
            for number in range(self.count * len(self.amplitudes)):
                amplitude = self.amplitudes[number % len(self.amplitudes)]
                rng = np.random.default_rng((seed, parent, number))
                moved = atoms.copy()
                moved.rattle(amplitude, rng=rng)
                yield sampled(moved, "rattle", parent, amplitude=amplitude, number=number)


@dataclass(frozen=True)
class Strain:
    """Random strains of the periodic directions, atoms following and displaced a little.

    Attributes:
        count: samples of each start.
        largest: largest component of the strain.
        amplitude: standard deviation of the displacements in Angstrom; 0 for none.
    """

    count: int = 5
    largest: float = 0.04
    amplitude: float = 0.05
    needs_potential = False

    def __post_init__(self) -> None:
        require_positive("strain.count", self.count)
        require_positive("strain.largest", self.largest)

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Strained structures; a structure without periodic directions is an error."""
        for parent, atoms in enumerate(starts):
            if not atoms.pbc.any():
                raise InvalidInputError(
                    f"strain: expected periodic structures, got {atoms.get_chemical_formula()} "
                    f"(start {parent}) without periodic directions"
                )
            for number in range(self.count):
                rng = np.random.default_rng((seed, parent, number))
                strain = rng.uniform(-self.largest, self.largest, (3, 3))
                free = np.outer(atoms.pbc, atoms.pbc)
                strain = np.where(free, (strain + strain.T) / 2.0, 0.0)
                moved = atoms.copy()
                moved.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
                if self.amplitude:
                    moved.rattle(self.amplitude, rng=rng)
                yield sampled(moved, "strain", parent, strain=strain.tolist(), number=number)


@dataclass(frozen=True)
class NormalModes:
    """Thermal displacements along the normal modes of the potential (classical, harmonic).

    Modes of negative or small curvature count as if they had `softest`.

    Attributes:
        count: samples of each start and temperature.
        temperatures: in kelvin.
        softest: smallest curvature in eV/Angstrom^2 that a mode is given.
    """

    count: int = 5
    temperatures: tuple[float, ...] = (300.0, 1000.0)
    softest: float = 0.5
    needs_potential = True

    def __post_init__(self) -> None:
        _check_all("modes.temperatures", self.temperatures)
        require_positive("modes.count", self.count)
        require_positive("modes.softest", self.softest)

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Structures x = x0 + sum_k sqrt(k_B T / h_k) g_k e_k, g normal, h and e of the Hessian."""
        for parent, atoms in enumerate(starts):
            modes = vibrations(atoms.copy(), calc, intensities=False)
            directions = modes.modes.reshape(len(modes.modes), -1)
            directions = np.linalg.qr(directions.T)[0].T
            curvatures, mixing = np.linalg.eigh(directions @ modes.hessian @ directions.T)
            directions = mixing.T @ directions
            curvatures = np.maximum(curvatures, self.softest)
            for number in range(self.count * len(self.temperatures)):
                temperature = self.temperatures[number % len(self.temperatures)]
                rng = np.random.default_rng((seed, parent, number))
                width = np.sqrt(units.kB * temperature / curvatures)
                shift = (width * rng.normal(size=len(width))) @ directions
                moved = atoms.copy()
                moved.positions[modes.indices] += shift.reshape(-1, 3)
                yield sampled(moved, "modes", parent, temperature=temperature, number=number)


def _check_all(name: str, values: Sequence[float]) -> None:
    if not values:
        raise InvalidInputError(f"{name}: expected at least one number, got none")
    for value in values:
        require_positive(name, value)


def draw(
    samplers: Mapping[str, Sampler], starts: Sequence[Atoms], calc: Any, seed: int
) -> list[Atoms]:
    """All samples of several samplers, without those in which atoms collide.

    Args:
        samplers: by name, each with its own random numbers.
        starts: known structures, at least one.
        calc: the potential, or None before there is one.
        seed: of everything random.

    Returns:
        The samples in the order of the samplers.

    Raises:
        InvalidInputError: no start, or a sampler that needs a potential before there is one.
    """
    if not starts:
        raise InvalidInputError("starts: expected at least one structure, got none")
    found = []
    for place, (name, sampler) in enumerate(samplers.items()):
        if sampler.needs_potential and calc is None:
            raise InvalidInputError(
                f"initial.{name}: expected a sampler that needs no potential (rattle, strain), as "
                "there is none before the first round"
            )
        drawn = sampler.sample(starts, calc, seed * 1000 + place)
        found += [atoms for atoms in drawn if is_reasonable(atoms)]
    return found
