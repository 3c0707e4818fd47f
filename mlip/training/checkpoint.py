"""A trained potential as one file that is checked before it is believed.

The file is in the safetensors format, whatever its suffix: tensors and a text header, no code. The
header says how to rebuild the model and what it was trained on. Pickle and zip files, which can run
code when read, are recognised by their first bytes and refused unread.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from ase.data import chemical_symbols
from safetensors import SafetensorError
from torch import Tensor

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.records.canonical import canonical_json
from ase_neuralxc.records.files import atomic_write, may_run_code
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.calibration import Calibration

FORMAT = "mlip potential"
FORMAT_VERSION = 3
#: Settings that files of a version have silently, because there were no others.
_IMPLIED: dict[str, dict[str, Any]] = {"1": {"radial_decay": 0.0}}
#: Weights that files of these versions do not have: conditions of sums over neighbours, which are
#: as if they were not there when they are zero.
_WITHOUT = {"1", "2"}
_ADDED = ("model.film_density.weight", "model.film_message.weight")
#: Architectures by the name in the header.
ARCHITECTURES = {"sphere": SphereModel}
_DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class ModelCard:
    """What a user of a potential should know; JSON values.

    Attributes:
        energy_reference: what the energies mean, in words.
        shortest: "Cu-O" to the shortest distance in Angstrom in the training data.
        uncertainty_scale: factors of the spreads of "energy" and "forces"; empty if not calibrated.
        uncertainty_floor: what is added to them in quadrature, in eV/atom and eV/Angstrom, to be
            standard deviations on the validation data (see `calibration`).
        data: numbers of structures and labels, files.
        metrics: errors by part of the data.
        training: configuration of the run.
    """

    energy_reference: str = ""
    shortest: Mapping[str, float] = field(default_factory=dict)
    uncertainty_scale: Mapping[str, float] = field(default_factory=dict)
    uncertainty_floor: Mapping[str, float] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def calibration(self, name: str) -> Calibration:
        """How spreads of "energy" (per atom) or "forces" become expected errors."""
        return Calibration(
            float(self.uncertainty_scale.get(name, 1.0)),
            float(self.uncertainty_floor.get(name, 0.0)),
        )


def save_potential(path: str | Path, potential: Potential, card: ModelCard) -> None:
    """Write a potential to one file, at once or not at all.

    Args:
        path: file to write; any suffix.
        potential: with an architecture of `ARCHITECTURES`.
        card: what to say about it.

    Raises:
        InvalidInputError: another architecture, or a path that cannot be written.
        CheckpointError: weights that are not finite.
    """
    kinds = {kind: name for name, kind in ARCHITECTURES.items()}
    kind: Any = type(potential.model)
    if kind not in kinds:
        raise InvalidInputError(f"potential: expected one of {sorted(ARCHITECTURES)}, got {kind}")
    weights = {k: v.detach().cpu().contiguous() for k, v in potential.state_dict().items()}
    for key, value in weights.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: weights {key!r} hold values that are not finite")
    header = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "architecture": kinds[kind],
        "settings": canonical_json(potential.model.settings.as_dict()),
        "dtype": str(next(potential.parameters()).dtype).removeprefix("torch."),
        "card": json.dumps(asdict(card), sort_keys=True),
    }
    atomic_write(path, safetensors.torch.save(weights, header))


def load_potential(
    path: str | Path, device: str | torch.device = "cpu", dtype: str | None = None
) -> tuple[Potential, ModelCard]:
    """Read a potential; no code in the file is executed, because none can be in it.

    Args:
        path: a file of `save_potential`.
        device: torch device.
        dtype: "float32" or "float64"; that of the file if None.

    Returns:
        The potential in evaluation mode, and its card.

    Raises:
        CheckpointError: no such file, truncated, of a newer version, of an unknown architecture,
            or another kind of file.
    """
    path = Path(path)
    header, weights = _read(path)
    try:
        implied = _IMPLIED.get(header["format_version"], {})
        settings = ModelSettings.from_dict({**json.loads(header["settings"]), **implied})
        model = ARCHITECTURES[header["architecture"]](settings)
        potential = Potential(model).to(_DTYPES[header["dtype"]])
        if header["format_version"] in _WITHOUT:
            own = potential.state_dict()
            weights.update({name: torch.zeros_like(own[name]) for name in _ADDED if name in own})
        potential.load_state_dict(weights, strict=True)
        card = ModelCard(**json.loads(header["card"]))
        if dtype is not None:
            potential = cast(potential, dtype)
    except (InvalidInputError, RuntimeError, TypeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: cannot build the potential: {error}") from error
    return potential.to(device).eval(), card


def cast(potential: Potential, dtype: str) -> Potential:
    """The potential with weights of another precision.

    Args:
        potential: changed in place.
        dtype: "float32" or "float64".

    Returns:
        The same object.

    Raises:
        InvalidInputError: another precision.
    """
    if dtype not in _DTYPES:
        raise InvalidInputError(f"dtype: expected one of {sorted(_DTYPES)}, got {dtype!r}")
    return potential.to(_DTYPES[dtype])


def symbol_pairs(shortest: Mapping[tuple[int, int], float]) -> dict[str, float]:
    """Distances by names of pairs ("H-O") of distances by atomic numbers."""
    return {
        f"{chemical_symbols[a]}-{chemical_symbols[b]}": distance
        for (a, b), distance in sorted(shortest.items())
    }


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if may_run_code(start):
        raise CheckpointError(
            f"{path}: a pickle or zip file, as torch.save writes it: reading it could run code. "
            "Expected a file written by `mlip train`"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            _check_version(path, header)
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise CheckpointError(f"{path}: truncated or no checkpoint: {error}") from error
    return header, weights


def _check_version(path: Path, header: Mapping[str, str]) -> None:
    if header.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: expected a file of format {FORMAT!r}, got {header.get('format')!r}"
        )
    version = header.get("format_version", "")
    if not version.isdigit() or int(version) > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: of version {version!r}, this program reads up to {FORMAT_VERSION}; update it"
        )
    if header.get("architecture") not in ARCHITECTURES:
        raise CheckpointError(
            f"{path}: expected an architecture of {sorted(ARCHITECTURES)}, got "
            f"{header.get('architecture')!r}"
        )
