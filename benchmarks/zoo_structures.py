"""Hard cases for the self-consistent field: structures, charges, multiplicities, initial moments.

Bond lengths are rounded experimental or textbook values (Angstrom); nothing depends on them being
minima. Every case states its charge, its multiplicity and the initial moment of every atom.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from ase import Atoms
from ase.build import molecule

COMPLEX_BASIS = {"default": "6-31g", "Fe": "def2-svp", "Ni": "def2-svp", "Cr": "def2-svp",
                 "Co": "def2-svp", "Ti": "def2-svp"}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One hard case.

    Attributes:
        name: unique.
        group: what makes it hard.
        atoms: builds the structure.
        charge: in e.
        multiplicity: 2S+1.
        moments: initial moment of every atom in mu_B; () for none.
        settings: fields of `KSSettings` that differ from the protocol's.
        large: one other start is compared.
    """

    name: str
    group: str
    atoms: Callable[[], Atoms]
    charge: int = 0
    multiplicity: int = 1
    moments: tuple[float, ...] = ()
    settings: dict = field(default_factory=dict)
    large: bool = False


def atom(symbol: str) -> Atoms:
    return Atoms(symbol)


def diatomic(first: str, second: str, distance: float) -> Atoms:
    return Atoms([first, second], [(0.0, 0.0, 0.0), (0.0, 0.0, distance)])


def from_database(name: str) -> Atoms:
    return molecule(name)


def linear(symbols: Sequence[str], heights: Sequence[float]) -> Atoms:
    return Atoms(list(symbols), [(0.0, 0.0, z) for z in heights])


def ring(symbol: str, n: int, bond: float) -> Atoms:
    """A regular polygon."""
    radius = bond / (2 * np.sin(np.pi / n))
    angles = 2 * np.pi * np.arange(n) / n
    return Atoms([symbol] * n, [(radius * np.cos(a), radius * np.sin(a), 0.0) for a in angles])


def twisted_ethylene(angle: float) -> Atoms:
    half, radians = 0.67, np.radians(angle)
    up, out = 0.56, 0.93
    turned = (out * np.cos(radians), out * np.sin(radians))
    positions = [(0, 0, half), (0, 0, -half)]
    positions += [(s * out, 0, half + up) for s in (1, -1)]
    positions += [(s * turned[0], s * turned[1], -half - up) for s in (1, -1)]
    return Atoms("C2H4", positions)


def planar_carbon(substituents: Sequence[tuple[str, float]]) -> Atoms:
    """A carbon atom with substituents in a plane at 120 degrees."""
    positions, symbols = [(0.0, 0.0, 0.0)], ["C"]
    for i, (symbol, distance) in enumerate(substituents):
        angle = 2 * np.pi * i / 3
        positions.append((distance * np.cos(angle), distance * np.sin(angle), 0.0))
        symbols.append(symbol)
    return Atoms(symbols, positions)


def allyl() -> Atoms:
    return Atoms(
        "C3H5",
        [(0, 0, 0.44), (0, 1.22, -0.19), (0, -1.22, -0.19), (0, 0, 1.53), (0, 2.15, 0.36),
         (0, 1.30, -1.27), (0, -2.15, 0.36), (0, -1.30, -1.27)],
    )  # fmt: skip


def phenoxyl() -> Atoms:
    benzene = molecule("C6H6")
    hydrogen = 6 + int(np.argmax(benzene.positions[6:, 1]))
    carbon = int(
        np.argmin(np.linalg.norm(benzene.positions[:6] - benzene[hydrogen].position, axis=1))
    )
    away = benzene[hydrogen].position - benzene[carbon].position
    benzene[hydrogen].position = benzene[carbon].position + 1.25 * away / np.linalg.norm(away)
    benzene[hydrogen].symbol = "O"
    return benzene


def para_benzyne() -> Atoms:
    benzene = molecule("C6H6")
    top = 6 + int(np.argmax(benzene.positions[6:, 1]))
    bottom = 6 + int(np.argmin(benzene.positions[6:, 1]))
    del benzene[sorted([top, bottom])]
    return benzene


def trimethylenemethane() -> Atoms:
    atoms = planar_carbon([("C", 1.41)] * 3)
    hydrogens = []
    for i in range(3):
        angle = 2 * np.pi * i / 3
        along = np.array([np.cos(angle), np.sin(angle), 0.0])
        across = np.array([-np.sin(angle), np.cos(angle), 0.0])
        hydrogens += [(1.41 + 0.54) * along + s * 0.94 * across for s in (1, -1)]
    return atoms + Atoms("H6", hydrogens)


def tetrahedral(center: str, ligand: str, bond: float) -> Atoms:
    corners = np.array([(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]) / np.sqrt(3)
    return Atoms([center] + [ligand] * 4, [(0, 0, 0), *(bond * corners)])


OCTAHEDRON = [(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)]
TETRAHEDRON = [(1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1)]
BIPYRAMID = [(0, 0, 1), (0, 0, -1), (1, 0, 0), (-0.5, 0.75**0.5, 0), (-0.5, -(0.75**0.5), 0)]


def carbonyl(metal: str, directions: Sequence[tuple], bond: float) -> Atoms:
    symbols, positions = [metal], [np.zeros(3)]
    for direction in directions:
        unit = np.array(direction, dtype=float) / np.linalg.norm(direction)
        symbols += ["C", "O"]
        positions += [bond * unit, (bond + 1.15) * unit]
    return Atoms(symbols, positions)


def octahedral(metal: str, ligand: str, bond: float) -> Atoms:
    return Atoms([metal] + [ligand] * 6, [(0, 0, 0), *(bond * np.array(OCTAHEDRON))])


def hexaaqua(metal: str, bond: float) -> Atoms:
    """Water around a metal ion, the planes of opposite molecules parallel (T_h)."""
    symbols, positions = [metal], [np.zeros(3)]
    across = {0: (0, 1, 0), 1: (0, 0, 1), 2: (1, 0, 0)}
    for direction in OCTAHEDRON:
        unit = np.array(direction, dtype=float)
        side = np.array(across[int(np.argmax(np.abs(unit)))], dtype=float)
        oxygen = bond * unit
        symbols += ["O", "H", "H"]
        positions += [
            oxygen,
            oxygen + 0.59 * unit + 0.77 * side,
            oxygen + 0.59 * unit - 0.77 * side,
        ]
    return Atoms(symbols, positions)


def ferrocene() -> Atoms:
    angles = 2 * np.pi * np.arange(5) / 5
    symbols, positions = ["Fe"], [(0.0, 0.0, 0.0)]
    for height in (1.65, -1.65):
        for element, radius in (("C", 1.21), ("H", 2.29)):
            symbols += [element] * 5
            positions += [(radius * np.cos(a), radius * np.sin(a), height) for a in angles]
    return Atoms(symbols, positions)


def _pair(name: str, group: str, first: str, second: str, distance: float, multiplicity: int,
          moments: tuple[float, ...] = (), **more: object) -> Case:  # fmt: skip
    build = partial(diatomic, first, second, distance)
    return Case(name, group, build, multiplicity=multiplicity, moments=moments, **more)


def _atom(symbol: str, multiplicity: int) -> Case:
    moments = (float(multiplicity - 1),)
    return Case(f"{symbol} atom", "atom", partial(atom, symbol), 0, multiplicity, moments)


_BOND, _RADICAL, _ANION = "stretched bond", "radical", "anion"
_DIRADICAL, _DIMER, _OXIDE = "diradical", "3d dimer", "3d oxide or halide"
_COMPLEX, _CLUSTER = "complex", "cluster"
_LARGE = {"settings": {"density_fit": True, "basis": COMPLEX_BASIS}, "large": True}

CASES: tuple[Case, ...] = (
    # stretched bonds
    _pair("H2 at 3.0", _BOND, "H", "H", 3.0, 1, (1.0, -1.0)),
    _pair("N2 at 2.2", _BOND, "N", "N", 2.2, 1, (3.0, -3.0)),
    _pair("N2 at 1.8 closed", _BOND, "N", "N", 1.8, 1),
    _pair("F2 at 2.5", _BOND, "F", "F", 2.5, 1, (1.0, -1.0)),
    _pair("LiF at 4.0", _BOND, "Li", "F", 4.0, 1, (1.0, -1.0)),
    Case("C2H4 at 90 singlet", _BOND, partial(twisted_ethylene, 90.0), 0, 1, (1, -1, 0, 0, 0, 0)),
    Case("C2H4 at 90 triplet", _BOND, partial(twisted_ethylene, 90.0), 0, 3, (1, 1, 0, 0, 0, 0)),
    Case("C2H4 at 90 closed", _BOND, partial(twisted_ethylene, 90.0), 0, 1),
    # radicals
    Case("OH", _RADICAL, partial(from_database, "OH"), 0, 2, (1.0, 0.0)),
    Case("NO", _RADICAL, partial(diatomic, "N", "O", 1.15), 0, 2, (1.0, 0.0)),
    Case("NO2", _RADICAL, partial(from_database, "NO2"), 0, 2, (1.0, 0.0, 0.0)),
    Case("CH3", _RADICAL, partial(from_database, "CH3"), 0, 2, (1.0, 0.0, 0.0, 0.0)),
    Case("CN", _RADICAL, partial(from_database, "CN"), 0, 2, (1.0, 0.0)),
    Case("allyl", _RADICAL, allyl, 0, 2, (-0.2, 0.6, 0.6, 0, 0, 0, 0, 0)),
    Case("phenoxyl", _RADICAL, phenoxyl, 0, 2, (0.0,) * 12),
    # anions
    Case("F-", _ANION, partial(atom, "F"), -1, 1),
    Case("OH-", _ANION, partial(from_database, "OH"), -1, 1),
    Case("CN-", _ANION, partial(from_database, "CN"), -1, 1),
    Case("C2-", _ANION, partial(diatomic, "C", "C", 1.27), -1, 2, (0.5, 0.5)),
    Case("O2-", _ANION, partial(diatomic, "O", "O", 1.35), -1, 2, (0.5, 0.5)),
    Case("NO2-", _ANION, partial(from_database, "NO2"), -1, 1),
    # diradicals
    Case("O2 singlet", _DIRADICAL, partial(diatomic, "O", "O", 1.21), 0, 1, (1.0, -1.0)),
    Case("O2 triplet", _DIRADICAL, partial(diatomic, "O", "O", 1.21), 0, 3, (1.0, 1.0)),
    Case("CH2 singlet", _DIRADICAL, partial(from_database, "CH2_s1A1d"), 0, 1),
    Case("CH2 triplet", _DIRADICAL, partial(from_database, "CH2_s3B1d"), 0, 3, (2.0, 0.0, 0.0)),
    Case("O3", _DIRADICAL, partial(from_database, "O3"), 0, 1, (0.0, 1.0, -1.0)),
    Case("C2 singlet", _DIRADICAL, partial(diatomic, "C", "C", 1.25), 0, 1, (1.0, -1.0)),
    Case("p-benzyne singlet", _DIRADICAL, para_benzyne, 0, 1, (1, 0, 0, -1, 0, 0, 0, 0, 0, 0)),
    Case("trimethylenemethane", _DIRADICAL, trimethylenemethane, 0, 3,
         (-0.5, *[0.8] * 3, *[0] * 6)),
    # atoms
    _atom("B", 2), _atom("C", 3), _atom("O", 3), _atom("Sc", 2), _atom("Ti", 3), _atom("V", 4),
    _atom("Cr", 7), _atom("Fe", 5), _atom("Co", 4), _atom("Ni", 3), _atom("Cu", 2),
    # dimers
    _pair("Sc2", _DIMER, "Sc", "Sc", 2.65, 5, (2.0, 2.0)),
    _pair("V2", _DIMER, "V", "V", 1.77, 3, (1.0, 1.0)),
    _pair("Cr2", _DIMER, "Cr", "Cr", 1.68, 1, (5.0, -5.0)),
    _pair("Mn2", _DIMER, "Mn", "Mn", 3.40, 1, (5.0, -5.0)),
    _pair("Fe2", _DIMER, "Fe", "Fe", 2.02, 7, (3.0, 3.0)),
    _pair("Co2", _DIMER, "Co", "Co", 2.00, 5, (2.0, 2.0)),
    _pair("Ni2", _DIMER, "Ni", "Ni", 2.15, 3, (1.0, 1.0)),
    _pair("Cu2", _DIMER, "Cu", "Cu", 2.22, 1),
    # oxides and halides
    _pair("ScO", _OXIDE, "Sc", "O", 1.67, 2, (1.0, 0.0)),
    _pair("TiO", _OXIDE, "Ti", "O", 1.62, 3, (2.0, 0.0)),
    _pair("VO", _OXIDE, "V", "O", 1.59, 4, (3.0, 0.0)),
    _pair("CrO", _OXIDE, "Cr", "O", 1.62, 5, (4.0, 0.0)),
    _pair("MnO", _OXIDE, "Mn", "O", 1.65, 6, (5.0, 0.0)),
    _pair("FeO", _OXIDE, "Fe", "O", 1.62, 5, (4.0, 0.0)),
    _pair("CoO", _OXIDE, "Co", "O", 1.63, 4, (3.0, 0.0)),
    _pair("NiO", _OXIDE, "Ni", "O", 1.63, 3, (2.0, 0.0)),
    _pair("CuO", _OXIDE, "Cu", "O", 1.72, 2, (0.5, 0.5)),
    Case("FeCl2", _OXIDE, partial(linear, ["Cl", "Fe", "Cl"], [-2.15, 0, 2.15]), 0, 5,
         (0.0, 4.0, 0.0)),
    Case("CuCl2", _OXIDE, partial(linear, ["Cl", "Cu", "Cl"], [-2.05, 0, 2.05]), 0, 2,
         (0.3, 0.4, 0.3)),
    # complexes
    Case("TiCl4", _COMPLEX, partial(tetrahedral, "Ti", "Cl", 2.17), 0, 1, **_LARGE),
    Case("CrO4 2-", _COMPLEX, partial(tetrahedral, "Cr", "O", 1.65), -2, 1, **_LARGE),
    Case("Ni(CO)4", _COMPLEX, partial(carbonyl, "Ni", TETRAHEDRON, 1.83), 0, 1, **_LARGE),
    Case("Fe(CO)5", _COMPLEX, partial(carbonyl, "Fe", BIPYRAMID, 1.81), 0, 1, **_LARGE),
    Case("Cr(CO)6", _COMPLEX, partial(carbonyl, "Cr", OCTAHEDRON, 1.91), 0, 1, **_LARGE),
    Case("ferrocene", _COMPLEX, ferrocene, 0, 1, **_LARGE),
    Case("[CoF6]3-", _COMPLEX, partial(octahedral, "Co", "F", 1.95), -3, 5, (4.0, *[0.0] * 6),
         **_LARGE),
    Case("[Fe(H2O)6]2+", _COMPLEX, partial(hexaaqua, "Fe", 2.13), 2, 5, (4.0, *[0.0] * 18),
         **_LARGE),
    Case("[Fe(H2O)6]3+", _COMPLEX, partial(hexaaqua, "Fe", 2.00), 3, 6, (5.0, *[0.0] * 18),
         **_LARGE),
    # clusters
    Case("Na4+", _CLUSTER, partial(ring, "Na", 4, 3.4), 1, 2, (0.25,) * 4),
    Case("Al4 2-", _CLUSTER, partial(ring, "Al", 4, 2.58), -2, 1),
    Case("Li5+", _CLUSTER, partial(ring, "Li", 5, 3.0), 1, 1),
    Case("Cu4", _CLUSTER, partial(ring, "Cu", 4, 2.4), 0, 3, (0.5,) * 4),
    Case("Ag3", _CLUSTER, partial(ring, "Ag", 3, 2.75), 0, 2, (0.6, 0.2, 0.2)),
)  # fmt: skip
