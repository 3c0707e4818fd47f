"""Adsorption sites of any slab: triangulation of the exposed atoms, reduced by symmetry.

Exposed atoms are those that a probe sphere lowered onto the slab touches, so that steps and open
faces need no special treatment. Sites are the atoms (top), the edges (bridge) and the faces
(hollow) of their Delaunay triangulation, as in Montoya and Persson, npj Comput. Mater. 3, 14
(2017); triangles on one circle, of which square and rectangular faces consist, are joined. spglib
gives the symmetry.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import spglib
from ase import Atoms
from ase.data import covalent_radii
from ase.geometry import find_mic
from ase.utils import spglib_new_errorhandling
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay, KDTree

from ase_neuralxc.errors import InvalidInputError

#: Radius of the probe (Angstrom): a first-row atom.
_PROBE = 0.8
#: Spacing of the points over which the probe is lowered (Angstrom).
_SPACING = 0.15
#: Corners of triangles on one circle agree in its centre to this (Angstrom).
_SAME_CIRCLE = 0.15
#: An atom this near to the axis of a hollow (Angstrom) lies below it.
_BELOW = 0.6


@dataclass(frozen=True)
class Site:
    """A place to adsorb.

    Attributes:
        name: kind and elements, for example "top Cu", "bridge CuCu", "hollow-3 CuCuCu over Cu":
            "over" names what lies in the layer below a hollow, hence hcp ("over Cu") and fcc.
        kind: "top", "bridge" or "hollow".
        position: [3] in Angstrom, in the plane of the exposed atoms that make the site.
        atoms: their indices in the slab.
        multiplicity: symmetry-equivalent sites per cell.
    """

    name: str
    kind: str
    position: tuple[float, float, float]
    atoms: tuple[int, ...]
    multiplicity: int = 1


def normal(slab: Atoms) -> NDArray:
    """Unit vector that points out of a slab, along a x b.

    Args:
        slab: periodic along its first two cell vectors.

    Returns:
        [3].

    Raises:
        InvalidInputError: not a slab.
    """
    if len(slab) == 0 or not slab.pbc[:2].all():
        raise InvalidInputError(
            f"slab: expected atoms periodic along the first two cell vectors, got "
            f"{len(slab)} atoms with pbc = {slab.pbc.tolist()}"
        )
    vector = np.cross(slab.cell[0], slab.cell[1])
    length = np.linalg.norm(vector)
    if length < 1e-6:
        raise InvalidInputError(
            f"slab: expected two independent cell vectors, got {slab.cell[:2].tolist()}"
        )
    out = vector / length
    return -out if slab.cell[2] @ out < 0 else out


def contact_heights(
    slab: Atoms, points: NDArray, radius: float, scale: float = 1.0
) -> tuple[NDArray, NDArray]:
    """Heights at which a sphere that is lowered onto the slab first touches an atom.

    Args:
        slab: the slab.
        points: [n, 3] positions of which the lateral part counts.
        radius: of the sphere, in Angstrom.
        scale: of the sum of sphere's radius and atom's covalent radius.

    Returns:
        [n] heights of the sphere's centre along the normal in Angstrom (minus infinity where the
        sphere falls through), and [n] the atoms touched.
    """
    up = normal(slab)
    reach = scale * (covalent_radii[slab.numbers] + radius)
    plane = _axes(slab)
    cell = slab.cell.array[:2] @ plane.T  # [2, 2] lattice of the surface
    # Everything into one cell, and as many images of the atoms as a sphere can touch.
    inside = (np.linalg.solve(cell.T, (np.atleast_2d(points) @ plane.T).T).T % 1.0) @ cell
    home = (np.linalg.solve(cell.T, (slab.positions @ plane.T).T).T % 1.0) @ cell
    depths = abs(np.linalg.det(cell)) / np.linalg.norm(cell[::-1], axis=1)
    counts = np.ceil(reach.max() / depths).astype(int)
    shifts = np.array(
        [(i, j) for i in range(-counts[0], counts[0] + 1) for j in range(-counts[1], counts[1] + 1)]
    )
    images = (home[None] + (shifts @ cell)[:, None]).reshape(-1, 2)
    near = KDTree(inside).sparse_distance_matrix(
        KDTree(images), reach.max(), output_type="coo_matrix"
    )
    atoms = near.col % len(slab)
    touching = near.data < reach[atoms]
    rows, atoms, lateral = near.row[touching], atoms[touching], near.data[touching]
    above = slab.positions[atoms] @ up + np.sqrt(reach[atoms] ** 2 - lateral**2)
    heights, touched = np.full(len(inside), -np.inf), np.zeros(len(inside), dtype=int)
    np.maximum.at(heights, rows, above)
    highest = above == heights[rows]
    touched[rows[highest]] = atoms[highest]
    return heights, touched


def _axes(slab: Atoms) -> NDArray:
    """[2, 3] orthonormal axes of the surface, the first one along a."""
    first = slab.cell[0] / np.linalg.norm(slab.cell[0])
    return np.array([first, np.cross(normal(slab), first)])


def _in_plane(slab: Atoms) -> NDArray:
    """Cell with the third vector along the normal, so that lateral images are those of a and b."""
    extent = np.ptp(slab.positions @ normal(slab))
    return np.array([slab.cell[0], slab.cell[1], (extent + 20.0) * normal(slab)])


def exposed_atoms(slab: Atoms) -> NDArray:
    """Indices of the atoms that can be touched from above.

    Args:
        slab: the slab.

    Returns:
        [n] ascending indices.
    """
    a, b = slab.cell[0], slab.cell[1]
    counts = [max(int(np.linalg.norm(v) / _SPACING), 3) for v in (a, b)]
    u, v = (grid.ravel() for grid in np.meshgrid(*(np.arange(n) / n for n in counts)))
    heights, touched = contact_heights(slab, u[:, None] * a + v[:, None] * b, _PROBE)
    return np.unique(touched[np.isfinite(heights)])


def coverage(slab: Atoms, n_adsorbates: int = 1) -> float:
    """Adsorbates per exposed atom.

    Args:
        slab: the clean slab.
        n_adsorbates: in its cell.

    Returns:
        Coverage in monolayers.
    """
    return n_adsorbates / len(exposed_atoms(slab))


def for_coverage(slab: Atoms, monolayers: float) -> Atoms:
    """The most compact repetition of a slab on which one adsorbate makes at most a coverage.

    Args:
        slab: the clean slab.
        monolayers: coverage in adsorbates per exposed atom.

    Returns:
        The repeated slab.

    Raises:
        InvalidInputError: a coverage that is not positive.
    """
    if not 0 < monolayers <= 10:
        raise InvalidInputError(f"monolayers: expected more than 0, at most 10, got {monolayers!r}")
    per_cell = len(exposed_atoms(slab))
    needed = 1.0 / (monolayers * per_cell) - 1e-9
    lengths = np.linalg.norm(slab.cell[:2], axis=1)
    candidates = [
        (m, n)
        for m in range(1, int(needed) + 2)
        for n in range(1, int(needed) + 2)
        if m * n >= needed
    ]
    # fewest cells first, then the squarest of them
    m, n = min(candidates, key=lambda c: (c[0] * c[1], abs(c[0] * lengths[0] - c[1] * lengths[1])))
    return slab.repeat((m, n, 1))


def surface_operations(slab: Atoms, symprec: float = 0.05) -> list[tuple[NDArray, NDArray]]:
    """Symmetry operations of a slab that leave its upper side up.

    Args:
        slab: the slab; atoms of different initial moments are different.
        symprec: tolerance in Angstrom.

    Returns:
        Rotations [3, 3] and translations [3] in Cartesian coordinates: r -> R r + t. Translations
        by lattice vectors are left out.

    Raises:
        InvalidInputError: no symmetry is found (atoms on top of each other).
    """
    cell = _in_plane(slab)
    moments = np.round(slab.get_initial_magnetic_moments(), 2)
    kinds = {key: n for n, key in enumerate(sorted(set(zip(slab.numbers, moments, strict=True))))}
    types = [kinds[key] for key in zip(slab.numbers, moments, strict=True)]
    scaled = np.linalg.solve(cell.T, slab.positions.T).T
    search = spglib_new_errorhandling(spglib.get_symmetry)
    try:
        found = search((cell, scaled, types), symprec=symprec)
    except spglib.SpglibError as error:
        raise InvalidInputError(
            f"slab: expected a structure that spglib can find the symmetry of, got: {error}"
        ) from error
    up = normal(slab)
    operations = []
    for rotation, translation in zip(found["rotations"], found["translations"], strict=True):
        cartesian = cell.T @ rotation @ np.linalg.inv(cell.T)
        if cartesian @ up @ up > 0.9:
            operations.append((cartesian, translation @ cell))
    return operations


def adsorption_sites(slab: Atoms, symprec: float = 0.05) -> list[Site]:
    """Symmetry-distinct adsorption sites of the upper side of a slab.

    Args:
        slab: periodic along its first two cell vectors.
        symprec: tolerance of the symmetry in Angstrom.

    Returns:
        Sites: tops, bridges, hollows.

    Raises:
        InvalidInputError: not a slab.
    """
    everything = _all_sites(slab)
    operations = surface_operations(slab, symprec)
    cell, up = _in_plane(slab), normal(slab)
    distinct: list[Site] = []
    left = list(range(len(everything)))
    places = np.array([site.position for site in everything])
    while left:
        head = everything[left[0]]
        images = np.array([rotation @ head.position + shift for rotation, shift in operations])
        between = (places[left][:, None] - images[None]).reshape(-1, 3)
        flat = between - np.outer(between @ up, up)
        near = find_mic(flat, cell, (True, True, False))[1].reshape(len(left), -1).min(axis=1)
        same = [
            k
            for k, distance in zip(left, near, strict=True)
            if distance < 4 * symprec and everything[k].name == head.name
        ]
        distinct.append(Site(head.name, head.kind, head.position, head.atoms, len(same)))
        left = [k for k in left if k not in same]
    return distinct


def _all_sites(slab: Atoms) -> list[Site]:
    """Every site of one cell."""
    exposed = exposed_atoms(slab)
    cell = _in_plane(slab)
    # Enough images that the triangles of the home cell do not see the rim.
    shifts = np.array([i * cell[0] + j * cell[1] for i in range(-3, 4) for j in range(-3, 4)])
    points = (slab.positions[exposed][None] + shifts[:, None]).reshape(-1, 3)
    owners = np.tile(exposed, len(shifts))
    plane = points @ _axes(slab).T
    corners: list[tuple[str, tuple[int, ...]]] = [("top", (k,)) for k in range(len(points))]
    corners += _edges_and_faces(plane, Delaunay(plane).simplices)
    sites = []
    for kind, members in corners:
        centre = points[list(members)].mean(axis=0)
        u, v, _ = np.linalg.solve(cell.T, centre)
        if not (-1e-6 <= u < 1 - 1e-6 and -1e-6 <= v < 1 - 1e-6):
            continue
        atoms = tuple(int(owners[k]) for k in members)
        sites.append(Site(_name(slab, kind, centre, atoms), kind, tuple(centre.tolist()), atoms))
    return sites


def _edges_and_faces(plane: NDArray, triangles: NDArray) -> list[tuple[str, tuple[int, ...]]]:
    """Bridges and hollows of a triangulation, triangles on one circle joined."""
    kept, centres, obtuse = [], [], []
    for triangle in triangles:
        a, b, c = plane[triangle]
        sides = sorted((float(np.sum((plane[i] - plane[j]) ** 2)) for i, j in _pairs(triangle)))
        if abs(np.linalg.det([b - a, c - a])) < 1e-6 * sides[2]:
            continue  # a sliver at the rim
        squares = [p @ p for p in (b - a, c - a)]
        centres.append(a + np.linalg.solve(2 * np.array([b - a, c - a]), squares))
        kept.append(triangle)
        obtuse.append(sides[2] > 1.02 * (sides[0] + sides[1]))
    near = KDTree(centres).query_pairs(_SAME_CIRCLE, output_type="ndarray")
    links = coo_array((np.ones(len(near)), near.T), shape=(len(kept), len(kept)))
    _, circle = connected_components(links, directed=False)
    faces: dict[int, set[int]] = {}
    beside: dict[tuple[int, int], set[int]] = {}
    filled: dict[int, bool] = {}
    for key, triangle, wide in zip(circle.tolist(), kept, obtuse, strict=True):
        faces.setdefault(key, set()).update(triangle.tolist())
        filled[key] = wide
        for pair in _pairs(triangle):
            beside.setdefault(pair, set()).add(key)
    found: list[tuple[str, tuple[int, ...]]] = [
        ("bridge", pair)
        for pair, keys in beside.items()
        # a diagonal has the same face on both sides (one key); edges of the rim do not matter
        if len(keys) > 1
    ]
    # An obtuse triangle is filled by the bridge over its longest side.
    found += [
        ("hollow", tuple(sorted(members)))
        for key, members in faces.items()
        if len(members) > 3 or not filled[key]
    ]
    return found


def _pairs(triangle: NDArray) -> list[tuple[int, int]]:
    i, j, k = sorted(int(n) for n in triangle)
    return [(i, j), (i, k), (j, k)]


def _name(slab: Atoms, kind: str, centre: NDArray, atoms: tuple[int, ...]) -> str:
    """Kind, elements and, for a hollow, the element in the layer below."""
    elements = "".join(sorted(slab.symbols[k] for k in atoms))
    if kind != "hollow":
        return f"{kind} {elements}"
    up = normal(slab)
    between = slab.positions - centre
    flat = between - np.outer(between @ up, up)
    lateral = find_mic(flat, _in_plane(slab), (True, True, False))[1]
    depth = -(between @ up)
    below = np.flatnonzero((lateral < _BELOW) & (depth > 0.5) & (depth < 3.0))
    text = f"hollow-{len(atoms)} {elements}"
    if len(below) == 0:
        return text
    nearest = below[np.argmin(depth[below])]
    return f"{text} over {slab.symbols[nearest]}"
