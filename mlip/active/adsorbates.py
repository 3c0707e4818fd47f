"""Adsorbates anywhere on slabs, in any orientation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import UnconvergedWarning, relax
from ase_neuralxc.workflows.common import require_positive
from ase_neuralxc.workflows.placements import as_adsorbate, random_placements
from mlip.active.dynamics import hash_seed
from mlip.active.sampler import sampled
from mlip.calculator import CloseContactWarning


@dataclass(frozen=True)
class Adsorbates:
    """Random placements of adsorbates on the starts, which are clean slabs.

    Attributes:
        names: adsorbates: chemical symbols, or names in `ase.collections.g2`.
        count: placements of each adsorbate on each slab.
        steps: of a relaxation on the potential, after which the structure is taken; 0 takes it as
            it was placed, which needs no potential.
    """

    names: tuple[str, ...] = ("H",)
    count: int = 5
    steps: int = 0

    def __post_init__(self) -> None:
        names: Any = self.names
        object.__setattr__(self, "names", (names,) if isinstance(names, str) else tuple(names))
        for name in self.names:
            as_adsorbate(name)
        require_positive("adsorbates.count", self.count)
        if self.steps < 0:
            raise InvalidInputError(f"adsorbates.steps: expected at least 0, got {self.steps}")

    @property
    def needs_potential(self) -> bool:
        """Whether placements are relaxed."""
        return self.steps > 0

    def sample(self, starts: Sequence[Atoms], calc: Any, seed: int) -> Iterator[Atoms]:
        """Slabs with one adsorbate each."""
        for parent, slab in enumerate(starts):
            if not slab.pbc[:2].all():
                raise InvalidInputError(
                    f"adsorbates: expected slabs, periodic along x and y, got "
                    f"{slab.get_chemical_formula()} (start {parent})"
                )
            for which, name in enumerate(self.names):
                drawn = hash_seed(seed, parent, which)
                placements = random_placements(slab, as_adsorbate(name), self.count, drawn)
                for number, placement in enumerate(placements):
                    atoms = placement.atoms
                    if self.steps:
                        with warnings.catch_warnings():
                            warnings.simplefilter("ignore", CloseContactWarning)
                            warnings.simplefilter("ignore", UnconvergedWarning)
                            atoms = relax(atoms, calc, fmax=0.05, steps=self.steps).atoms
                    yield sampled(atoms, "adsorbates", parent, adsorbate=name, number=number)
