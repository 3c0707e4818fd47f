from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bcc110, bulk, fcc100, fcc110, fcc111, fcc211, hcp0001, molecule, surface
from ase.data import covalent_radii
from ase.geometry import find_mic

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import adsorption_sites, coverage, for_coverage
from ase_neuralxc.workflows.placements import as_adsorbate, orientations, place, random_placements
from ase_neuralxc.workflows.sites import exposed_atoms, surface_operations


def found(slab: Atoms) -> list[tuple[str, int]]:
    return sorted((site.name, site.multiplicity) for site in adsorption_sites(slab))


def alloy() -> Atoms:
    cell = bulk("Cu", cubic=True)
    cell.symbols[0] = "Au"
    return surface(cell, (1, 1, 1), 3, vacuum=6.0, periodic=True)


@pytest.mark.parametrize(
    ("slab", "expected"),
    [
        (
            fcc111("Cu", (2, 2, 3), vacuum=6.0),
            [("bridge CuCu", 12), ("hollow-3 CuCuCu", 4), ("hollow-3 CuCuCu over Cu", 4),
             ("top Cu", 4)],
        ),
        (
            fcc100("Cu", (2, 2, 3), vacuum=6.0),
            [("bridge CuCu", 8), ("hollow-4 CuCuCuCu over Cu", 4), ("top Cu", 4)],
        ),
        (
            bcc110("Fe", (2, 2, 3)),  # no third cell vector
            [("bridge FeFe", 4), ("bridge FeFe", 8), ("hollow-3 FeFeFe", 8), ("top Fe", 4)],
        ),
        (
            hcp0001("Ru", (1, 1, 4), vacuum=6.0),
            [("bridge RuRu", 3), ("hollow-3 RuRuRu", 1), ("hollow-3 RuRuRu over Ru", 1),
             ("top Ru", 1)],
        ),
        (
            alloy(),
            [("bridge AuCu", 6), ("bridge CuCu", 3), ("bridge CuCu", 3), ("hollow-3 AuCuCu", 3),
             ("hollow-3 AuCuCu over Cu", 3), ("hollow-3 CuCuCu", 1), ("hollow-3 CuCuCu over Au", 1),
             ("top Au", 1), ("top Cu", 3)],
        ),
    ],
)  # fmt: skip
def test_sites_of_known_surfaces(slab, expected) -> None:
    assert found(slab) == expected


@pytest.mark.parametrize("build", [fcc111, fcc100, bcc110, hcp0001])
def test_positions_are_those_that_ase_tabulates(build) -> None:
    slab = build("Fe" if build is bcc110 else "Ru" if build is hcp0001 else "Cu", (2, 2, 4))
    info = slab.info["adsorbate_info"]
    names = {"ontop": "top", "fcc": "hollow", "hcp": "hollow"}
    operations = surface_operations(slab)
    cell = np.array([slab.cell[0], slab.cell[1], (0, 0, 30.0)])
    for name, scaled in info["sites"].items():
        kind = names.get(name, name.rstrip("12").removeprefix("long").removeprefix("short"))
        point = np.dot(scaled, info["cell"])
        nearest = np.inf
        for site in adsorption_sites(slab):
            if site.kind != kind:
                continue
            images = np.array([turn @ site.position + shift for turn, shift in operations])
            flat = np.column_stack([images[:, :2] - point, np.zeros(len(images))])
            nearest = min(nearest, find_mic(flat, cell, (1, 1, 0))[1].min())
        # bcc(110): ASE puts the hollow at the centre of the circle, here it is that of the corners
        assert nearest < (0.2 if build is bcc110 else 0.01), name


def test_steps_and_open_faces_expose_lower_atoms() -> None:
    stepped = fcc211("Cu", (3, 2, 3), vacuum=6.0)
    assert len(exposed_atoms(stepped)) == 6
    assert ("hollow-4 CuCuCuCu", 2) in found(stepped)
    trough = fcc110("Cu", (1, 1, 4), vacuum=6.0)
    assert len(exposed_atoms(trough)) == 2
    assert found(trough).count(("top Cu", 1)) == 2  # ridge and trough


def test_sites_do_not_depend_on_cell_and_orientation() -> None:
    slab = fcc111("Cu", (2, 3, 3), vacuum=6.0)
    expected = found(slab)
    turned = slab.copy()
    turned.rotate(33.0, "z", rotate_cell=True)
    turned.rotate(20.0, "x", rotate_cell=True)
    turned.translate((0.3, 0.4, 0.5))
    assert found(turned) == expected
    oblique = slab.copy()
    oblique.set_cell([slab.cell[0], slab.cell[1] + slab.cell[0], slab.cell[2]])
    assert found(oblique) == expected


def test_moments_lower_the_symmetry() -> None:
    slab = fcc100("Fe", (2, 2, 1), a=3.6, vacuum=6.0)
    assert len(found(slab)) == 3
    slab.set_initial_magnetic_moments([1, 1, -1, -1])  # stripes
    assert len(found(slab)) > 3


def test_coverage_and_the_cell_for_it() -> None:
    slab = fcc111("Cu", (1, 1, 3), vacuum=6.0)
    assert coverage(slab) == 1
    assert coverage(slab.repeat((2, 3, 1)), 2) == pytest.approx(1 / 3)
    for monolayers, cells in [(1.0, 1), (0.5, 2), (0.25, 4), (1 / 9, 9), (0.3, 4)]:
        made = for_coverage(slab, monolayers)
        assert len(made) == 3 * cells
        assert coverage(made) <= monolayers + 1e-9
    assert for_coverage(slab, 0.25).cell.lengths()[0] == pytest.approx(2 * slab.cell.lengths()[0])
    with pytest.raises(InvalidInputError, match="monolayers: expected more than 0"):
        for_coverage(slab, 0)


def test_what_is_no_slab() -> None:
    with pytest.raises(InvalidInputError, match="periodic along the first two cell vectors"):
        adsorption_sites(molecule("CO"))


def test_an_adsorbate_touches_at_the_sum_of_the_radii() -> None:
    slab = fcc111("Cu", (2, 2, 3), vacuum=6.0)
    touching = covalent_radii[29] + covalent_radii[8]
    for site in adsorption_sites(slab):
        atoms = place(slab, Atoms("O"), np.array(site.position))
        assert atoms.get_distances(-1, range(12), mic=True).min() == pytest.approx(touching)
        shift = atoms.positions[-1] - site.position
        np.testing.assert_allclose(shift[:2], 0, atol=1e-9)
    for placement in random_placements(slab, molecule("CH3OH"), 5, seed=1):
        both = placement.atoms
        lengths = both.get_all_distances(mic=True)[:12, 12:]
        radii = covalent_radii[both.numbers]
        gaps = lengths - radii[:12, None] - np.maximum(radii[None, 12:], 0.6)  # hydrogen
        assert gaps.min() == pytest.approx(0, abs=1e-6)


def test_orientations() -> None:
    carbon_monoxide = molecule("CO")  # O, C
    turned = orientations(carbon_monoxide, None, (0.0, 90.0), 3)
    assert [text for text, _ in turned] == [
        "O0 down",
        *(f"O0 down, tilt 90, turn {angle}" for angle in (0, 120, 240)),
        "C1 down",
        *(f"C1 down, tilt 90, turn {angle}" for angle in (0, 120, 240)),
    ]
    for text, atoms in turned:
        anchor = int(text.split()[0][1:])
        np.testing.assert_allclose(atoms.positions[anchor], 0, atol=1e-12)
        arm = atoms.positions[1 - anchor]
        assert np.linalg.norm(arm) == pytest.approx(carbon_monoxide.get_distance(0, 1))
        assert arm[2] == pytest.approx(0 if "tilt" in text else np.linalg.norm(arm), abs=1e-9)
    assert len(orientations(molecule("CH4"), None, (0.0,), 2)) == 2  # the anchor is the centre
    assert [text for text, _ in orientations(Atoms("H"), None, (0.0, 90.0), 4)] == [""]
    with pytest.raises(InvalidInputError, match="anchors: expected atoms from 0 to 1, got 2"):
        orientations(carbon_monoxide, [2], (0.0,), 1)


def test_adsorbates_by_name() -> None:
    assert as_adsorbate("O").get_chemical_formula() == "O"
    assert as_adsorbate("CH3OH").get_chemical_formula() == "CH4O"
    with pytest.raises(InvalidInputError, match="unknown adsorbate 'CH3OHH'"):
        as_adsorbate("CH3OHH")
    with pytest.raises(InvalidInputError, match="at least one atom"):
        as_adsorbate(Atoms())


def test_hydrogen_starts_above_wide_hollows_and_over_holes() -> None:
    for slab in (fcc100("Pb", (2, 2, 3), vacuum=6.0), fcc100("Pb", (2, 2, 1), vacuum=6.0)):
        (hollow,) = (site for site in adsorption_sites(slab) if site.kind == "hollow")
        atoms = place(slab, Atoms("H"), np.array(hollow.position))
        assert atoms.positions[-1, 2] > hollow.position[2] - 0.5
        assert atoms.get_distances(-1, range(len(slab)), mic=True).min() > 1.7


def test_room_above_the_slab() -> None:
    made = place(fcc111("Cu", (2, 2, 3)), molecule("CO"), np.zeros(3))
    assert made.cell[2, 2] > 15
    low = fcc111("Cu", (2, 2, 3), vacuum=2.0, periodic=True)
    with pytest.raises(InvalidInputError, match="at least 4 A of vacuum"):
        place(low, molecule("CO"), np.zeros(3))
