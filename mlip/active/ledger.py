"""What each round of a loop did, on disk: data, models, errors, cost."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import LabelRecord
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.records.files import atomic_write

LEDGER_FILE = "ledger.json"


@dataclass(frozen=True)
class Row:
    """One round.

    Attributes:
        round: number; 0 is the first training.
        candidates: structures explored.
        uncertain: of them, above the threshold.
        selected: of them, chosen to be labelled.
        failed: of them, without a label in the end.
        labels: in the training data of this round's model.
        data_hash: of all labels the model was trained on.
        model_hash: of the weights of the committee; "" where nothing was trained.
        fidelity: digest of the level of theory.
        largest_uncertainty: of the candidates, expected force error in eV/Angstrom; None before
            there is a potential.
        new_errors: of the previous model on this round's labels, which it had not seen: root mean
            square errors, energy in eV/atom and forces in eV/Angstrom.
        valid_errors: of this round's model on its validation part, likewise.
        dft_calls: labels of this round and attempts at those that failed.
        seconds: by stage, of the process that finished it.
    """

    round: int
    candidates: int
    uncertain: int
    selected: int
    failed: int
    labels: int
    data_hash: str
    model_hash: str
    fidelity: str
    largest_uncertainty: float | None = None
    new_errors: dict[str, float] = field(default_factory=dict)
    valid_errors: dict[str, float] = field(default_factory=dict)
    dft_calls: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    def without_times(self) -> dict[str, Any]:
        """What two runs of the same loop have in common."""
        values = asdict(self)
        del values["seconds"]
        return values


def data_hash(records: Iterable[LabelRecord]) -> str:
    """Hash of labels, in whatever order.

    Times and versions count nothing: the same structure, level and results are the same label.
    """
    rows = []
    for record in records:
        values = record.to_dict()
        del values["provenance"], values["convergence"]
        rows.append(digest(values))
    return digest(sorted(rows))


def weights_hash(paths: Sequence[Path]) -> str:
    """Hash of the weights of models, wherever their files are and whatever their cards say."""
    found = hashlib.sha256()
    for path in paths:
        weights = safetensors.torch.load(path.read_bytes())
        for name in sorted(weights):
            found.update(name.encode())
            found.update(weights[name].contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def write_ledger(folder: Path, rows: Sequence[Row]) -> None:
    """Write all rows, at once or not at all."""
    text = json.dumps([asdict(row) for row in rows], indent=1)
    atomic_write(folder / LEDGER_FILE, text.encode())


def read_ledger(folder: str | Path) -> list[Row]:
    """The rows of a loop.

    Args:
        folder: of the loop.

    Returns:
        One row per round that is finished.

    Raises:
        InvalidInputError: no ledger, or a damaged one.
    """
    path = Path(folder) / LEDGER_FILE
    try:
        return [Row(**values) for values in json.loads(path.read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInputError(f"folder: cannot read the ledger {str(path)!r}: {error}") from error


def table(rows: Sequence[Row]) -> str:
    """Text: one line per round.

    Args:
        rows: of the ledger.

    Returns:
        The table, errors in meV.
    """
    lines = [
        f"{'':>5} {'explored':>9} {'chosen':>7} {'failed':>7} {'labels':>7} {'largest':>9}"
        f" {'new data: E':>12} {'F':>8} {'validation: E':>14} {'F':>8}  model",
        f"{'round':>5} {'':>9} {'':>7} {'':>7} {'':>7} {'meV/A':>9} {'meV/atom':>12} "
        f"{'meV/A':>8} {'meV/atom':>14} {'meV/A':>8}",
    ]
    for row in rows:
        largest = row.largest_uncertainty
        cells = [
            _milli(largest, 9),
            _milli(row.new_errors.get("energy"), 12),
            _milli(row.new_errors.get("forces"), 8),
            _milli(row.valid_errors.get("energy"), 14),
            _milli(row.valid_errors.get("forces"), 8),
        ]
        lines.append(
            f"{row.round:5d} {row.candidates:9d} {row.selected:7d} {row.failed:7d} "
            f"{row.labels:7d} {' '.join(cells)}  {row.model_hash[:8]}"
        )
    calls = sum(row.dft_calls for row in rows)
    lines.append(f"{calls} DFT calculations; new data: errors of the model that had not seen them")
    return "\n".join(lines)


def _milli(value: float | None, width: int) -> str:
    return " " * (width - 1) + "-" if value is None else f"{1000.0 * value:{width}.1f}"
