"""Converged densities on disk: one file per species, read by mapping it into memory.

A file is an eight-byte magic, the length of the header in eight bytes, the header in JSON (species,
settings, energies, names and shapes of the arrays), and the arrays one after the other, each at a
multiple of 64 bytes, little-endian.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import FidelityTag
from ase_neuralxc.training.reactions import Species

_MAGIC = b"NXCDENS1"
_ALIGNMENT = 64
#: Suffix of the files.
SUFFIX = ".density"
#: Arrays of a file, in their order; those of the grid first.
GRID_ARRAYS = ("weights", "density", "gradient", "tau", "coords", "atomic_weights")
ARRAYS = (*GRID_ARRAYS, "orbitals", "occupations", "orbital_energies")


@dataclass(frozen=True)
class StoredDensity:
    """The density of one species on its grid, and the energies that belong to it.

    All in Hartree atomic units. A closed shell has one channel, c = 1, which is its total density;
    else c = 2 spin channels. Points with a negligible number of electrons are left out.

    Attributes:
        species: what it is the density of.
        fidelity: functional, basis and grids of the calculation.
        energies: Hartree: "nuclear", "core", "coulomb", "electric field" where there is one, "xc"
            (of the starting functional, on this grid, without its fraction of exact exchange),
            "exact exchange" (of these orbitals, all of it; crystals have none), "host" (of a
            crystal, all the rest),
            "compression" (see `training.compression`; absent from files), and
            dispersion energies by method and damping, for example "d4(r2scan)".
        provenance: convergence, sizes, timing, versions.
        atom_counts: number of points of each atom; the points are in the order of the atoms.
        weights: [n] quadrature weights.
        density: [c, n].
        gradient: [c, 3, n].
        tau: [c, n].
        coords: [n, 3] points.
        atomic_weights: [n] weights before the partition of space among the atoms.
        orbitals: [nao, m] coefficients of the occupied orbitals, those of spin up first; other
            features of the density follow from them without another SCF.
        occupations: [c, m] electrons in each orbital, per channel.
        orbital_energies: [c, nmo], occupied or not.
    """

    species: Species
    fidelity: FidelityTag
    energies: dict[str, float]
    atom_counts: tuple[int, ...]
    weights: NDArray
    density: NDArray
    gradient: NDArray
    tau: NDArray
    coords: NDArray
    atomic_weights: NDArray
    orbitals: NDArray
    occupations: NDArray
    orbital_energies: NDArray
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def closed_shell(self) -> bool:
        """Whether there is one channel, the total density."""
        return len(self.density) == 1

    @property
    def n_points(self) -> int:
        """Number of grid points."""
        return int(self.weights.size)

    @property
    def energy_without_xc(self) -> float:
        """Electronic energy of this density without exchange and correlation, in Hartree."""
        parts = ("nuclear", "core", "coulomb", "electric field", "host", "compression")
        return sum(self.energies.get(part, 0.0) for part in parts)

    @property
    def total_energy(self) -> float:
        """With the starting functional, without dispersion, in Hartree."""
        mixed = self.exact_exchange(self.starting_fraction)
        return self.energy_without_xc + self.starting_xc + mixed

    def exact_exchange(self, fraction: float) -> float:
        """Part of the exact exchange of these orbitals, in Hartree.

        Args:
            fraction: of it.

        Returns:
            The energy.

        Raises:
            InvalidInputError: more than none of it, of a crystal.
        """
        if fraction and "exact exchange" not in self.energies:
            raise InvalidInputError(
                f"exchange_fraction: expected 0 for {self.species.name!r}, whose exact exchange is "
                f"not stored, got {fraction:g}"
            )
        return fraction * self.energies["exact exchange"] if fraction else 0.0

    @property
    def starting_xc(self) -> float:
        """Energy of the starting functional on the points that are left, in Hartree."""
        return self.energies["xc"] - self.energies.get("compression", 0.0)

    @property
    def starting_fraction(self) -> float:
        """Fraction of exact exchange of the starting functional."""
        return self.fidelity.exchange_fraction or 0.0


class DensityCodec:
    """`StoredDensity` as a file of a campaign."""

    suffix = SUFFIX

    def encode(self, result: Any) -> bytes:
        """Content of a file."""
        if not isinstance(result, StoredDensity):
            raise InvalidInputError(f"result: expected a StoredDensity, got {type(result)}")
        arrays = {name: np.ascontiguousarray(getattr(result, name)) for name in ARRAYS}
        header = {
            "species": asdict(result.species),
            "fidelity": result.fidelity.to_dict(),
            "energies": result.energies,
            "provenance": result.provenance,
            "atom_counts": result.atom_counts,
            "arrays": [
                {"name": name, "dtype": a.dtype.newbyteorder("<").str, "shape": a.shape}
                for name, a in arrays.items()
            ],
        }
        text = json.dumps(header, allow_nan=False).encode()
        out = bytearray(_MAGIC + len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            out += b"\0" * (-len(out) % _ALIGNMENT)
            out += array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        return bytes(out)

    def decode(self, content: bytes, source: str) -> StoredDensity:
        """Density from the content of a file; checks that it is complete."""
        return _decode(np.frombuffer(content, np.uint8), source)


def open_density(path: str | Path) -> StoredDensity:
    """Map a file into memory: arrays are read from disk when they are touched, and not before.

    Args:
        path: a file written through `DensityCodec`.

    Returns:
        The density, its arrays read-only.

    Raises:
        InvalidInputError: a file that cannot be read, of another kind, or cut off.
    """
    try:
        content = np.memmap(path, np.uint8, mode="r")
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"path: cannot read the density {str(path)!r}: {error}") from error
    return _decode(content, str(path))


def density_path(directory: str | Path, species: Species) -> Path:
    """File of a species in a folder of prepared densities."""
    return Path(directory) / "results" / f"{species.content_hash}{SUFFIX}"


def _decode(content: NDArray, source: str) -> StoredDensity:
    if content[:8].tobytes() != _MAGIC:
        raise InvalidInputError(f"path: expected a density of this version, got {source!r}")
    offset = 16 + int.from_bytes(content[8:16].tobytes(), "little")
    try:
        header = json.loads(content[16:offset].tobytes())
        arrays = {}
        for entry in header["arrays"]:
            offset += -offset % _ALIGNMENT
            dtype, shape = np.dtype(entry["dtype"]), tuple(entry["shape"])
            stop = offset + dtype.itemsize * int(np.prod(shape))
            # of the plain class: views that stay memmaps pay for it at every slice
            arrays[entry["name"]] = np.asarray(content[offset:stop]).view(dtype).reshape(shape)
            offset = stop
        values = header["species"]
        species = Species(
            **{
                **values,
                "symbols": tuple(values["symbols"]),
                "positions": tuple(tuple(row) for row in values["positions"]),
                "field": None if values["field"] is None else tuple(values["field"]),
                # not in files of older versions
                "cell": None if not values.get("cell") else tuple(map(tuple, values["cell"])),
            }
        )
        return StoredDensity(
            species=species,
            fidelity=FidelityTag.from_dict(header["fidelity"]),
            energies=header["energies"],
            provenance=header["provenance"],
            atom_counts=tuple(header["atom_counts"]),
            **arrays,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"path: expected a complete density file, got {source!r}, which is damaged: {error}"
        ) from error
