"""Write small reactive structures without reference values, for `scripts/label_reactions.py`.

Three kinds, all in rigid fragments near their equilibrium, none a stationary point: a hydrogen atom
half way between two radicals; a radical that approaches a molecule; a molecule with one bond
stretched. Reactions of the barrier sets of GMTKN55 (HTBH38, NHTBH38) are left out, so that these
sets stay a test.
"""

from __future__ import annotations

import argparse
from itertools import combinations_with_replacement
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.data import covalent_radii

from ase_neuralxc.process import guarded
from ase_neuralxc.training.structures import Collection, hydride

#: Radical, and the hydride that it forms, by name in ASE's G2 collection.
RADICALS = {
    "H": "H2", "F": "HF", "Cl": "HCl", "OH": "H2O", "SH": "SH2", "NH2": "NH3", "PH2": "PH3",
    "CH3": "CH4", "SiH3": "SiH4",
}  # fmt: skip
#: Pairs of radicals whose hydrogen transfer is in HTBH38 or NHTBH38.
KNOWN = {
    ("H", "H"), ("H", "F"), ("H", "Cl"), ("H", "OH"), ("H", "SH"), ("H", "PH2"), ("H", "CH3"),
    ("OH", "CH3"), ("OH", "NH2"), ("Cl", "CH3"), ("NH2", "CH3"),
}  # fmt: skip
#: Distances of the hydrogen from both sides, in units of the equilibrium bond.
STRETCHES = ((1.2, 1.2), (1.1, 1.4), (1.4, 1.1))
#: Radical, molecule, atom attacked, its neighbour: from above the bond, a little from behind.
ADDITIONS = (
    ("H", "C2H2", 0, 1), ("H", "HCN", 0, 1), ("H", "HCN", 1, 0), ("H", "H2CO", 1, 0),
    ("H", "H2CO", 0, 1), ("H", "CO2", 0, 1), ("H", "CO2", 1, 0), ("F", "C2H4", 0, 1),
    ("OH", "C2H2", 0, 1), ("OH", "C2H4", 0, 1), ("F", "C2H2", 0, 1), ("Cl", "C2H2", 0, 1),
    ("NH2", "C2H2", 0, 1), ("H", "CS2", 0, 1), ("H", "SO2", 0, 1), ("CH3", "HCN", 0, 1),
)  # fmt: skip
#: Radical, molecule, atom attacked, atom that leaves: collinear, the bond stretched.
EXCHANGES = (
    ("H", "Cl2", 0, 1), ("H", "ClF", 0, 1), ("H", "ClF", 1, 0), ("H", "HOCl", 2, 0),
    ("H", "HOCl", 0, 2), ("H", "H2O2", 0, 1), ("H", "CH3Cl", 1, 0), ("H", "CH3Cl", 0, 1),
    ("H", "N2H4", 0, 1), ("F", "Cl2", 0, 1), ("H", "C2H6", 0, 1), ("Cl", "Cl2", 0, 1),
    ("H", "CH3OH", 0, 1), ("H", "CH3OH", 1, 0), ("H", "Si2H6", 0, 1),
)  # fmt: skip
#: Molecule, atom whose side stays, atom whose side moves.
BONDS = (
    ("H2", 0, 1), ("HF", 0, 1), ("H2O", 0, 1), ("NH3", 0, 1), ("CH4", 0, 1), ("HCl", 0, 1),
    ("SH2", 0, 1), ("PH3", 0, 1), ("SiH4", 0, 1), ("N2", 0, 1), ("CO", 0, 1), ("F2", 0, 1),
    ("Cl2", 0, 1), ("P2", 0, 1), ("CS", 0, 1), ("SiO", 0, 1), ("ClF", 0, 1), ("CO2", 0, 1),
    ("N2O", 0, 1), ("N2O", 1, 2), ("SO2", 0, 1), ("OCS", 1, 0), ("OCS", 1, 2), ("HCN", 0, 1),
    ("HCN", 0, 2), ("C2H2", 0, 1), ("C2H2", 1, 2), ("C2H4", 0, 1), ("C2H4", 0, 2), ("C2H6", 0, 1),
    ("H2CO", 1, 0), ("H2CO", 1, 2), ("CH3OH", 0, 1), ("CH3OH", 1, 3), ("CH3Cl", 0, 1),
    ("H2O2", 0, 1), ("H2O2", 0, 2), ("N2H4", 0, 1), ("N2H4", 0, 2), ("H3CNH2", 0, 1),
    ("CH3SH", 0, 1), ("Si2H6", 0, 1), ("CH3SiH3", 0, 1), ("HOCl", 0, 2), ("HOCl", 0, 1),
    ("BF3", 0, 1), ("H2CF2", 0, 1), ("CH2_s1A1d", 0, 1), ("SiH2_s1A1d", 0, 1),
)  # fmt: skip
#: The last one only of bonds to hydrogen: others have no single determinant there.
BOND_STRETCHES = (0.9, 1.1, 1.2, 1.45)
#: Distances of attacking atoms, in units of the sum of covalent radii.
ADDITION, EXCHANGE, LEAVING = 1.5, 1.3, 1.2
#: Angle between bond and attack, in degrees (Buergi and Dunitz).
ATTACK_ANGLE = 105.0


def transfer(donor: str, acceptor: str, stretches: tuple[float, float]) -> Atoms:
    """Two radicals with a hydrogen atom between them, on a line, at `stretches` of both bonds."""
    left, right = (hydride(RADICALS[name]) for name in (donor, acceptor))
    for side, stretch in zip((left, right), stretches, strict=True):
        side.positions[1] *= stretch
        side.positions -= side.positions[1]
    right.rotate(180, "x")
    right.rotate(60, "z")
    del right[1]
    return left + right


def addition(radical: str, name: str, atom: int, neighbour: int) -> Atoms:
    """A radical above one atom of a molecule."""
    target = molecule(name)
    target.positions -= target.positions[atom]
    target.rotate(target.positions[neighbour], "z")
    # out of the plane of a planar molecule, whose third direction carries nothing
    third = np.linalg.svd(target.positions[:, :2])[2][-1]
    angle = np.radians(ATTACK_ANGLE)
    direction = np.array([*(np.sin(angle) * third), np.cos(angle)])
    return _approach(radical, target, atom, direction, ADDITION)


def exchange(radical: str, name: str, atom: int, leaving: int) -> Atoms:
    """A radical on the far side of a bond that is about to break."""
    target = stretched(name, atom, leaving, LEAVING)
    bond = target.positions[atom] - target.positions[leaving]
    target.positions -= target.positions[atom]
    return _approach(radical, target, atom, bond / np.linalg.norm(bond), EXCHANGE)


def _approach(
    radical: str, target: Atoms, atom: int, direction: np.ndarray, distance: float
) -> Atoms:
    """The radical in `direction` of an atom at the origin, its hydrogen atoms turned away."""
    guest = molecule(radical)
    heavy = int(np.argmax(guest.numbers))
    guest.positions -= guest.positions[heavy]
    outward = guest.positions.sum(0)
    if np.linalg.norm(outward) > 0.1:
        guest.rotate(outward, direction)
    elif len(guest) > 1:
        guest.rotate("z", direction)  # planar, in the xy plane of the collection
    radii = covalent_radii[target.numbers[atom]] + covalent_radii[guest.numbers[heavy]]
    guest.positions += distance * radii * direction
    return target + guest


def stretched(name: str, fixed: int, moved: int, stretch: float) -> Atoms:
    """A molecule with one bond lengthened; what is nearer to the moved atom goes with it."""
    atoms = molecule(name)
    bond = atoms.positions[moved] - atoms.positions[fixed]
    nearer = atoms.get_distances(moved, range(len(atoms))) < atoms.get_distances(
        fixed, range(len(atoms))
    )
    atoms.positions[nearer] += (stretch - 1.0) * bond
    return atoms


def react(found: Collection, name: str, *fragments: str) -> None:
    """The energy of a structure above that of molecules and radicals of the G2 collection."""
    for fragment in fragments:
        found.add(fragment, molecule(fragment), 2 if fragment in RADICALS else 1)
    found.react(name, *fragments)


def collect() -> Collection:
    """All structures and reactions."""
    found = Collection()
    for x, y in combinations_with_replacement(RADICALS, 2):
        if {(x, y), (y, x)} & KNOWN:
            continue
        for stretches in STRETCHES if x != y else STRETCHES[:2]:
            name = f"{x}...H...{y} {stretches[0]} {stretches[1]}"
            found.add(name, transfer(x, y, stretches), 2)
            react(found, name, RADICALS[x], y)
            if x != y:
                react(found, name, x, RADICALS[y])
    for radical, target, atom, neighbour in ADDITIONS:
        name = f"{radical}...{target} {atom}"
        found.add(name, addition(radical, target, atom, neighbour), 2)
        react(found, name, radical, target)
    for radical, target, atom, leaving in EXCHANGES:
        name = f"{radical}...{target} {atom} {leaving}"
        found.add(name, exchange(radical, target, atom, leaving), 2)
        react(found, name, radical, target)
    for target, fixed, moved in BONDS:
        light = molecule(target).numbers[[fixed, moved]].min() == 1
        for stretch in BOND_STRETCHES if light else BOND_STRETCHES[:-1]:
            name = f"{target} {fixed} {moved} {stretch}"
            found.add(name, stretched(target, fixed, moved, stretch), 1)
            react(found, name, target)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", required=True, type=Path, help="JSON lines of species, reactions")
    arguments = parser.parse_args()
    print(collect().write(arguments.out, "reactive", "small reactive structures"))
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("reactive_structures", main))
