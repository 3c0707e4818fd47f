"""Write small complexes without reference values, for `scripts/label_reactions.py`.

Two kinds, rigid and none a stationary point. `exchange`: rings of two or three hydrides with a
proton between each two neighbours, half way of an exchange of protons. `heavy`: complexes of
hydrides of elements from the fourth to the sixth period (label them with `--family def2`). Pairs of
PX13 and HEAVY28, subsets of GMTKN55, are left out, so that these sets stay a test.
"""

from __future__ import annotations

import argparse
from itertools import combinations_with_replacement, cycle
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import vdw_alvarez

from ase_neuralxc.process import guarded
from ase_neuralxc.training.structures import Collection, hydride

#: Members of rings by name in ASE's G2 collection: hydrides that give a proton and take one.
MEMBERS = ("HF", "H2O", "NH3", "HCl", "SH2")
#: Rings of one kind of these are in PX13.
KNOWN_MEMBERS = {"HF", "H2O", "NH3"}
TRIANGLES = (
    ("HF", "HF", "H2O"), ("HF", "H2O", "H2O"), ("HF", "HF", "NH3"), ("HF", "H2O", "NH3"),
    ("HF", "HF", "HCl"),
)  # fmt: skip
#: Bonds of a proton to the atom it leaves and to the one it goes to, by the equilibrium bond.
EXCHANGES = ((1.3, 1.3), (1.15, 1.5))
#: The same in rings of three, where bonds are shorter.
EXCHANGE_OF_THREE = (1.22, 1.22)
#: How far protons stand off the line between their neighbours, by the sum of both bonds; outwards.
BEND = {2: 0.24, 3: 0.11}
#: Angle of the other hydrogens with the plane of a ring, in degrees, by their number.
OUT_OF_PLANE = {1: 65.0, 2: 51.0}

#: Heavy hydrides: number of hydrogens, bond in Angstrom, angle in degrees, from experiment.
HEAVY = {
    "GeH4": (4, 1.525, 109.47), "SnH4": (4, 1.711, 109.47), "PbH4": (4, 1.754, 109.47),
    "AsH3": (3, 1.519, 91.8), "SbH3": (3, 1.707, 91.5), "BiH3": (3, 1.778, 90.3),
    "SeH2": (2, 1.460, 90.6), "TeH2": (2, 1.658, 90.2), "HBr": (1, 1.414, 0.0),
    "HI": (1, 1.609, 0.0),
}  # fmt: skip
#: Molecules and the atom that comes next to the heavy one, opposite to a bond to hydrogen.
DONORS = (("HCN", 1), ("HF", 0), ("H2CO", 0), ("PH3", 0), ("CO", 1))
#: Donors of each heavy hydride: those of HEAVY28 (water, ammonia and others) are not among them.
DONORS_EACH = 3
#: Molecules whose hydrogen comes next to the lone pair of a heavy atom.
ACIDS = (("HF", 1), ("HCN", 2))
PAIRS = (
    ("SnH4", "SnH4"), ("AsH3", "AsH3"), ("SeH2", "SeH2"), ("HBr", "HBr"), ("HI", "HI"),
    ("SnH4", "HI"), ("AsH3", "SbH3"), ("SeH2", "TeH2"), ("PbH4", "SbH3"), ("BiH3", "TeH2"),
    ("GeH4", "TeH2"), ("BiH3", "SeH2"), ("PbH4", "SeH2"), ("SnH4", "TeH2"), ("SnH4", "BiH3"),
    ("Xe", "SbH3"), ("Xe", "PbH4"), ("Kr", "TeH2"), ("Kr", "BiH3"),
)  # fmt: skip
#: Distances between both atoms by the sum of their van der Waals radii, in turn.
DISTANCES = (0.88, 0.80, 1.0)


def ring(names: tuple[str, ...], stretches: tuple[float, float]) -> Atoms:
    """Two or three hydrides in a ring, each with one hydrogen on the way to the next."""
    parts = [hydride(name) for name in names]
    bonds = [part.positions[1, 2] for part in parts]
    around = list(zip(range(len(parts)), np.roll(range(len(parts)), -1), strict=True))
    reach = [(stretches[0] * bonds[i], stretches[1] * bonds[j]) for i, j in around]
    offsets = [BEND[len(parts)] * sum(pair) for pair in reach]
    sides = [
        sum(np.sqrt(bond**2 - offset**2) for bond in pair)
        for pair, offset in zip(reach, offsets, strict=True)
    ]
    places = _polygon(sides)
    atoms = Atoms()
    for (i, j), pair, offset in zip(around, reach, offsets, strict=True):
        way = places[j] - places[i]
        outwards = np.cross(way, [0.0, 0.0, 1.0]) / np.linalg.norm(way)
        proton = places[i] + way * pair[0] / sum(pair) + offset * outwards
        atoms += Atoms([parts[i].symbols[0], "H"], [places[i], proton])
        atoms += _rest(parts[i], places[i])
    return atoms


def _polygon(sides: list[float]) -> np.ndarray:
    """Corners in the xy plane, counter-clockwise around the origin; of two sides, their mean."""
    if len(sides) == 2:
        half = np.mean(sides) / 2
        return np.array([[0.0, half, 0.0], [0.0, -half, 0.0]])
    a, b, c = sides
    x = (a * a + c * c - b * b) / (2 * a)
    corners = np.array([[0.0, 0.0, 0.0], [a, 0.0, 0.0], [x, np.sqrt(c * c - x * x), 0.0]])
    return corners - corners.mean(0)


def _rest(part: Atoms, place: np.ndarray) -> Atoms:
    """The hydrogens of a member that stay, above and below the plane of the ring."""
    lengths = np.linalg.norm(part.positions[2:], axis=1)
    outwards = place / np.linalg.norm(place)
    angle = np.radians(OUT_OF_PLANE.get(len(lengths), 0.0))
    return Atoms(
        part.symbols[2:],
        [
            place + length * (np.cos(angle) * outwards + np.sin(angle) * np.array([0.0, 0.0, sign]))
            for length, sign in zip(lengths, (1.0, -1.0), strict=False)
        ],
    )


def heavy(name: str) -> Atoms:
    """A heavy hydride or a noble gas, the heavy atom first, one bond along -z."""
    if name not in HEAVY:
        return Atoms(name)
    number, bond, degrees = HEAVY[name]
    # bonds around an axis, each at the same angle with it and with each other
    angle, n_around = np.radians(degrees), 3 if number == 4 else number
    if number == 4:
        polar = np.pi - angle
    else:
        polar = np.arcsin(np.sin(angle / 2) / np.sin(np.pi / n_around)) if number > 1 else 0.0
    turns = 2 * np.pi * np.arange(n_around) / n_around
    around = [(np.sin(polar) * np.cos(t), np.sin(polar) * np.sin(t), np.cos(polar)) for t in turns]
    bonds = np.array([*around, (0.0, 0.0, -1.0)] if number == 4 else around)
    symbol = name.strip("H234")
    atoms = Atoms([symbol] + ["H"] * number, np.vstack([np.zeros(3), bond * bonds]))
    atoms.rotate(atoms.positions[number], (0, 0, -1))
    return atoms


def facing(name: str, first: int) -> Atoms:
    """A molecule with one atom at the origin and the rest above it."""
    atoms = heavy(name) if name in HEAVY else molecule(name)
    atoms.positions -= atoms.positions[first]
    outward = atoms.positions.sum(0)
    if np.linalg.norm(outward) < 0.1:
        outward = atoms.positions[-1]  # tetrahedral: one bond up, a face down
    atoms.rotate(outward, (0, 0, 1))
    return atoms


def complexed(below: Atoms, above: Atoms, first: int, distance: float) -> Atoms:
    """Two molecules on the z axis, atoms 0 and `first` at `distance` by their radii."""
    radii = vdw_alvarez.vdw_radii[[below.numbers[0], above.numbers[first]]]
    above = above.copy()
    above.positions[:, 2] += distance * radii.sum()
    return below + above


def exchange() -> Collection:
    """Rings."""
    found = Collection()
    for pair in combinations_with_replacement(MEMBERS, 2):
        if pair[0] == pair[1] and pair[0] in KNOWN_MEMBERS:
            continue
        for stretches in EXCHANGES:
            _add_ring(found, pair, stretches)
    for names in TRIANGLES:
        _add_ring(found, names, EXCHANGE_OF_THREE)
    return found


def _add_ring(found: Collection, names: tuple[str, ...], stretches: tuple[float, float]) -> None:
    for name in names:
        found.add(name, molecule(name))
    label = f"({' '.join(names)}) {stretches[0]} {stretches[1]}"
    found.add(label, ring(names, stretches))
    found.react(label, *names)


def heavy_complexes() -> Collection:
    """Complexes of heavy hydrides."""
    found, distances, donors = Collection(), cycle(DISTANCES), cycle(DONORS)
    for name in HEAVY:
        found.add(name, heavy(name))
    for name in HEAVY:
        for _ in range(DONORS_EACH):
            partner, first = next(donors)
            _add_complex(found, heavy(name), name, partner, first, next(distances))
        if HEAVY[name][0] in (2, 3):
            for partner, first in ACIDS:
                below = heavy(name)
                below.rotate(below.positions.sum(0), (0, 0, -1))
                _add_complex(found, below, f"{name} lone pair", partner, first, next(distances))
    for name, partner in PAIRS:
        found.add(name, heavy(name))
        _add_complex(found, heavy(name), name, partner, 0, next(distances))
    return found


def _add_complex(
    found: Collection, below: Atoms, name: str, partner: str, first: int, distance: float
) -> None:
    found.add(partner, heavy(partner) if partner in HEAVY else molecule(partner))
    label = f"{name}...{partner} {first} {distance}"
    found.add(label, complexed(below, facing(partner, first), first, distance))
    found.react(label, name.split()[0], partner)


KINDS = {
    "exchange": (exchange, "rings of hydrides that exchange protons"),
    "heavy": (heavy_complexes, "complexes of hydrides of heavy elements"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--out", required=True, type=Path, help="JSON lines of species, reactions")
    arguments = parser.parse_args()
    collect, description = KINDS[arguments.kind]
    print(collect().write(arguments.out, arguments.kind, description))
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("complex_structures", main))
