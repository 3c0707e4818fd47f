"""Skala functionals from their published `.fun` files.

A `.fun` file is a TorchScript archive with four extra files: `metadata` (a JSON object), `features`
(a JSON list of input names), `expected_d3_settings` (a JSON string or null) and `protocol_version`
(a JSON integer). Its module has `get_exc_density(inputs: Dict[str, Tensor]) -> Tensor [n]`. Skala
1.0 reads density, gradient, tau, grid and nuclei; 1.1 also the layout of the atoms' own grids
(Luise et al., arXiv:2506.14665; github.com/microsoft/skala).

**Loading such a file runs the TorchScript program inside it.** It is never searched for nor
downloaded: the path is given explicitly. Its SHA-256 is compared with those of the published files
first; any other file gives a warning that names its hash.
"""

from __future__ import annotations

import hashlib
import io
import json
import warnings
import zipfile
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.features.names import Feature

PROTOCOL_VERSION = 2

#: SHA-256 of the files published by the authors, with the names that they have there.
PUBLISHED = {
    "08d94436995937eb57c451af7c92e2c7f9e1bff6b7da029a3887e9f9dd4581c0": "skala-1.0.fun",
    "0b38e13237cec771fed331664aace42f8c0db8f15caca6a5c563085e61e2b1fd": "skala-1.0-cuda.fun",
    "0c8432ac3f03c8f1276372df9aca5b7ee7f8939d47a8789eb158976e89aa0606": "skala-1.1.fun",
    "f77be6002d873c0a2384b6df7850d32bbec519036344ff5fdde9730c6f9a4326": "skala-1.1-cuda.fun",
    "7f3e8622e1eb520ccd88a55464c3e359ac4d7e5ccbd1fb77a26afa1e1c20a5cd": "skala-1.1-rev1.fun",
    "f848eae769dca91741a518ae7275d10caac398ab21db649f91bc1f136872f223": "skala-1.1-rev1-cuda.fun",
}

_POINTWISE = {"density": Feature.DENSITY, "grad": Feature.GRADIENT, "kin": Feature.TAU}
_GRID = (
    "grid_coords",
    "grid_weights",
    "coarse_0_atomic_coords",
    "atomic_grid_weights",
    "atomic_grid_sizes",
    "atomic_grid_size_bound_shape",
)
_EXTRA = ("metadata", "features", "expected_d3_settings", "protocol_version")


@dataclass(frozen=True)
class SkalaHeader:
    """What the extra files of a `.fun` file say.

    Attributes:
        metadata: free information by the authors.
        inputs: names of the tensors that the program reads.
        dispersion: functional whose D3 parameters belong to it, or None.
    """

    metadata: dict[str, Any]
    inputs: tuple[str, ...]
    dispersion: str | None


class SkalaFunctional(nn.Module):
    """A TorchScript functional with Skala's inputs, as an `XCFunctional`.

    It is nonlocal: the points of a grid belong together, in the order of the atoms, each atom's
    points contiguous (`GridFeatures.atom_slices`). Padding or sorting of the grid is not allowed.
    A program that reads the sizes of the atoms' grids (1.1) keeps to each of them, and may be
    evaluated one atom at a time (`atomwise`).

    Args:
        program: scripted module with `get_exc_density`.
        header: what its file says about it.
        path: the file; its stem is the name for reports unless the file is a published one.
        file_hash: SHA-256 of the file.

    Raises:
        CheckpointError: the program wants an input that this package does not know.
    """

    exchange_fraction = 0.0

    def __init__(self, program: nn.Module, header: SkalaHeader, path: Path, file_hash: str) -> None:
        super().__init__()
        name = Path(PUBLISHED.get(file_hash, path.name)).stem
        unknown = [key for key in header.inputs if key not in (*_POINTWISE, *_GRID)]
        if unknown:
            raise CheckpointError(
                f"{name}: the functional reads {', '.join(unknown)}, expected only "
                f"{', '.join((*_POINTWISE, *_GRID))}"
            )
        self.program = program
        self.header = header
        self.name = name
        self.path = path
        self.file_hash = file_hash
        self.features = frozenset(_POINTWISE.get(key, Feature.GRID) for key in header.inputs)
        self.atomwise = "atomic_grid_sizes" in header.inputs

    def __reduce__(self) -> tuple[Any, tuple[Path, str]]:
        """Pickle as path and hash: a scripted program cannot be pickled, the file is read again."""
        return load_skala, (self.path.absolute(), self.file_hash)

    @property
    def dispersion(self) -> str | None:
        """Functional whose D3 parameters the authors add to it, for example "b3lyp5"."""
        return self.header.dispersion

    def energy_density(self, features: GridFeatures) -> Tensor:
        """Energy per volume, [n] in Hartree/Bohr^3, float64 (see the protocol).

        Args:
            features: all points of the molecule, atom by atom, with coords, weights, atom_slices,
                atom_coords and (for 1.1) atomic_weights.

        Returns:
            [n] energy density.

        Raises:
            InvalidInputError: a quantity that the functional reads is missing, or the points are
                not in the order of the atoms.
        """
        density = self.program.get_exc_density(self._inputs(features))  # type: ignore[operator]
        n = features.density.shape[-1]
        if density.shape != (n,):
            raise InvalidInputError(
                f"{self.name}: expected an energy density of shape ({n},), got "
                f"{tuple(density.shape)}"
            )
        return density.to(torch.float64)

    def _inputs(self, features: GridFeatures) -> dict[str, Tensor]:
        sizes = _atom_sizes(features) if "atomic_grid_sizes" in self.header.inputs else []
        device = features.density.device
        values: dict[str, Tensor | None] = {
            "density": features.density,
            "grad": features.gradient,
            "kin": features.tau,
            "grid_coords": features.coords,
            "grid_weights": features.weights,
            "coarse_0_atomic_coords": features.atom_coords,
            "atomic_grid_weights": features.atomic_weights,
            "atomic_grid_sizes": torch.tensor(sizes, dtype=torch.int64, device=device),
            # Its first dimension carries the largest size as a shape, which tracing keeps static.
            "atomic_grid_size_bound_shape": torch.zeros(
                (max(sizes, default=0), 0), dtype=torch.int64, device=device
            ),
        }
        chosen: dict[str, Tensor] = {}
        for key in self.header.inputs:
            value = values[key]
            if value is None:
                raise InvalidInputError(f"features: {self.name} reads {key!r}, got None")
            chosen[key] = value
        return chosen


def load_skala(
    path: str | PathLike[str], expected_hash: str | None = None, device: str = "cpu"
) -> SkalaFunctional:
    """Load a `.fun` file; this runs the TorchScript program inside it.

    Args:
        path: the file.
        expected_hash: SHA-256 that the file must have, checked before anything in it is used.
        device: torch device on which the program is placed.

    Returns:
        The functional.

    Raises:
        CheckpointError: another hash than expected, no TorchScript archive, truncated, extra files
            missing or malformed, another protocol version, or an unknown input.
        OSError: the file cannot be read.
    """
    path = Path(path)
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if expected_hash is not None and digest != expected_hash:
        raise CheckpointError(f"{path}: expected SHA-256 {expected_hash}, got {digest}")
    header = _read_header(path, data)
    if digest not in PUBLISHED and expected_hash is None:
        claim = f"it is not the published {path.name}; " if path.name in PUBLISHED.values() else ""
        warnings.warn(
            f"{path}: SHA-256 {digest} is of no published Skala file; {claim}loading runs the "
            "program inside it",
            UserWarning,
            stacklevel=2,
        )
    try:
        program = torch.jit.load(io.BytesIO(data), map_location=device)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: not a TorchScript program: {error}") from error
    if not hasattr(program, "get_exc_density"):
        raise CheckpointError(f"{path}: the program lacks the method get_exc_density")
    return SkalaFunctional(program.eval(), header, path, digest)


def _read_header(path: Path, data: bytes) -> SkalaHeader:
    """Parse the extra files as text, before torch touches the archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = {
                Path(name).name: name for name in archive.namelist() if "/extra/" in f"/{name}"
            }
            missing = [key for key in _EXTRA if key not in names]
            if missing:
                raise CheckpointError(f"{path}: the archive lacks extra/{', extra/'.join(missing)}")
            texts = {key: archive.read(names[key]) for key in _EXTRA}
    except (zipfile.BadZipFile, EOFError) as error:
        raise CheckpointError(f"{path}: truncated or no TorchScript archive: {error}") from error
    try:
        values = {key: json.loads(text.decode()) for key, text in texts.items()}
    except ValueError as error:
        raise CheckpointError(f"{path}: an extra file is not JSON: {error}") from error
    if values["protocol_version"] != PROTOCOL_VERSION:
        raise CheckpointError(
            f"{path}: expected protocol_version {PROTOCOL_VERSION}, got "
            f"{values['protocol_version']!r}"
        )
    inputs, dispersion = values["features"], values["expected_d3_settings"]
    if not isinstance(inputs, list) or not all(isinstance(key, str) for key in inputs):
        raise CheckpointError(f"{path}: features: expected a list of names, got {inputs!r}")
    if not isinstance(dispersion, (str, type(None))):
        raise CheckpointError(
            f"{path}: expected_d3_settings: expected a name or null, got {dispersion!r}"
        )
    if not isinstance(values["metadata"], dict):
        raise CheckpointError(f"{path}: metadata: expected an object, got {values['metadata']!r}")
    return SkalaHeader(values["metadata"], tuple(inputs), dispersion)


def _atom_sizes(features: GridFeatures) -> list[int]:
    """Points of each atom, after a check that they follow one another and cover the grid."""
    stop = 0
    for part in features.atom_slices:
        if part.start != stop or part.step not in (None, 1):
            break
        stop = part.stop
    n = features.density.shape[-1]
    if not features.atom_slices or stop != n:
        raise InvalidInputError(
            f"features.atom_slices: expected contiguous slices that cover all {n} points atom by "
            f"atom (an unsorted, unpadded grid), got {features.atom_slices}"
        )
    return [part.stop - part.start for part in features.atom_slices]
