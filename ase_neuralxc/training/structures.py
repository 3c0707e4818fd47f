"""Structures to label: species and reactions as JSON lines, without reference values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule

from ase_neuralxc.records.files import atomic_write


class Collection:
    """Species and reactions, each species once."""

    def __init__(self) -> None:
        self.species: dict[str, dict] = {}
        self.reactions: list[dict] = []

    def add(self, name: str, atoms: Atoms, multiplicity: int = 1, charge: int = 0) -> None:
        """A structure as a species.

        Args:
            name: of the species; a later structure of the same name takes its place.
            atoms: positions in Angstrom, rounded to 1e-6.
            multiplicity: 2S + 1.
            charge: in e.
        """
        self.species[name] = {
            "type": "species",
            "name": name,
            "charge": charge,
            "multiplicity": multiplicity,
            "symbols": list(atoms.symbols),
            "positions": np.round(atoms.positions, 6).tolist(),
        }

    def react(self, name: str, *fragments: str) -> None:
        """The energy of a structure above that of its fragments, all of them species.

        Args:
            name: of the structure.
            *fragments: names; one that occurs twice is given twice.
        """
        kinds = sorted(set(fragments), key=fragments.index)
        self.reactions.append(
            {
                "type": "reaction",
                "id": f"{name} - {' - '.join(fragments)}",
                "species": [name, *kinds],
                "coeffs": [1, *(-fragments.count(kind) for kind in kinds)],
                "ref": 0.0,
            }
        )

    def write(self, path: Path, name: str, description: str) -> str:
        """Write everything.

        Args:
            path: JSON lines.
            name: of the set.
            description: in words.

        Returns:
            What was written, in words.
        """
        meta = {"type": "meta", "set": name, "description": description}
        rows = [meta, *self.species.values(), *self.reactions]
        atomic_write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())
        return f"{len(self.species)} species, {len(self.reactions)} reactions: {path}"


def hydride(name: str) -> Atoms:
    """A hydride, its heavy atom at the origin and one bond to hydrogen along z.

    Args:
        name: in the G2 collection of ASE.

    Returns:
        Atoms, the heavy atom first, the hydrogen on the axis second.
    """
    atoms = molecule(name)
    heavy = int(np.argmax(atoms.numbers))
    rest = [i for i in range(len(atoms)) if i != heavy]
    atoms = atoms[[heavy, *rest]]
    atoms.positions -= atoms.positions[0]
    atoms.rotate(atoms.positions[1], "z")
    return atoms
