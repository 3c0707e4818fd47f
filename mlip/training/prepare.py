"""From a configuration to data sets and an untrained potential."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ase_neuralxc.errors import InvalidInputError
from mlip.data.dataset import (
    Dataset,
    MappedDataset,
    MemoryDataset,
    Subset,
    is_store,
    iterate_structures,
    open_dataset,
)
from mlip.data.labelled import to_graph
from mlip.data.statistics import (
    DataStatistics,
    ReferenceFit,
    collect_statistics,
    reference_energies,
)
from mlip.model.potential import Potential
from mlip.model.settings import ModelSettings
from mlip.model.sphere_model import SphereModel
from mlip.training.checkpoint import cast
from mlip.training.settings import DataSettings, LossSettings, TrainConfig
from mlip.training.start import Start


@dataclass(frozen=True, eq=False)
class Prepared:
    """What a trainer starts from.

    Attributes:
        train: training part.
        valid: validation part.
        statistics: of the training part.
        fits: of the reference energies, one per level of theory.
        reference_energies: [fidelities, elements] in eV.
        settings: of the model.
        fingerprint: hash of the data, by which a resumed run knows that it is the same.
    """

    train: Dataset
    valid: Dataset
    statistics: DataStatistics
    fits: tuple[ReferenceFit, ...]
    reference_energies: NDArray
    settings: ModelSettings
    fingerprint: str


def prepare(config: TrainConfig) -> Prepared:
    """Read the data, split them, and derive from them what the model needs.

    Args:
        config: of the run.

    Returns:
        Data sets, statistics and the model's settings.

    Raises:
        InvalidInputError: no or unreadable data, a weighted loss term without labels, several
            levels of theory where one is expected, sizes that do not fit.
    """
    data = config.data
    if not data.train:
        raise InvalidInputError("data.train: expected at least one file, got none")
    start = None if config.start is None else Start.read(config.start)
    r_max = float(config.model.get("r_max", _default("r_max")))
    if start is not None:
        r_max = start.settings.r_max
    whole, fidelities = _open(data, r_max, start)
    if data.valid:
        train = Subset(whole, _choose(len(whole), data.train_size, config.seed))
        valid = open_dataset(data.valid, data.keys, r_max, fidelities)
    else:
        train, valid = _split(whole, data, config.seed)
    statistics = collect_statistics(train)
    for loss in [config.loss, *([config.second_stage.loss] if config.second_stage else [])]:
        _check_labels(loss, statistics)
    # a start that knows several levels has references of those that the data lack
    levels = None if start is None else sorted({int(level) for level in statistics.fidelities})
    table, fits = reference_energies(
        statistics, data.reference_energies, max(len(fidelities), 1), levels
    )
    derived: dict[str, Any] = {
        "elements": statistics.elements,
        "average_neighbours": max(statistics.average_neighbours, 1.0),
        "fidelities": fidelities,
        "energy_scale": _energy_scale(statistics, fits),
    }
    given = dict(config.model)
    if data.fidelity == "references":
        given["condition_fidelity"] = False
    if start is None:
        settings = ModelSettings.from_dict({**derived, **given})
    else:
        settings = ModelSettings.from_dict(start.merged(given, fidelities))
        table = start.references(table, statistics.elements, fidelities, set(levels or ()))
    if start is None and settings.elements != statistics.elements:
        table = _widen(table, statistics.elements, settings.elements)
    return Prepared(
        train=train,
        valid=valid,
        statistics=statistics,
        fits=tuple(fits),
        reference_energies=table,
        settings=settings,
        fingerprint=_fingerprint(statistics, train, valid),
    )


def build_potential(prepared: Prepared, config: TrainConfig) -> Potential:
    """An untrained potential; its weights depend on the seed alone.

    Args:
        prepared: of `prepare`.
        config: of the run.

    Returns:
        The potential on the CPU, in training mode.
    """
    torch.manual_seed(config.seed)
    model = SphereModel(prepared.settings)
    reference = torch.as_tensor(prepared.reference_energies, dtype=torch.float64)
    potential = Potential(model, reference)
    if config.start is not None:
        Start.read(config.start).inherit(potential)
    return cast(potential, config.dtype).train()


def _open(data: DataSettings, r_max: float, start: Start | None) -> tuple[Dataset, tuple[str, ...]]:
    """The training file or files, and the levels of theory that the model knows."""
    if is_store(data.train):
        names = Counter(s.fidelity for s in iterate_structures(data.train, data.keys))
        fidelities = _fidelities(names, data)
        fidelities = fidelities if start is None else start.fidelities(fidelities)
        return MappedDataset(data.train[0], r_max, fidelities), fidelities
    structures = list(iterate_structures(data.train, data.keys))
    fidelities = _fidelities(Counter(s.fidelity for s in structures), data)
    fidelities = fidelities if start is None else start.fidelities(fidelities)
    return MemoryDataset([to_graph(s, r_max, fidelities) for s in structures]), fidelities


def _fidelities(names: Counter[str], data: DataSettings) -> tuple[str, ...]:
    if len(names) > 1 and data.fidelity == "single":
        raise InvalidInputError(
            f"data.train: expected one level of theory, got {len(names)} (structures per level: "
            f"{dict(names)}); energies at different levels do not mix. Set data.fidelity to "
            "'conditioned' to make the level an input of the model"
        )
    if len(names) > 1 and "" in names:
        raise InvalidInputError(
            f"data.train: {names['']} structures do not say their level of theory, others do: "
            f"{dict(names)}"
        )
    return tuple(sorted(name for name in names if name))


def _split(whole: Dataset, data: DataSettings, seed: int) -> tuple[Subset, Subset]:
    n = len(whole)
    n_valid = data.valid_size
    if n_valid is None:
        n_valid = max(1, round(data.valid_fraction * n))
    n_train = n - n_valid if data.train_size is None else data.train_size
    if n_valid < 1 or n_train < 1 or n_train + n_valid > n:
        raise InvalidInputError(
            f"data: expected {n_train} training and {n_valid} validation structures, got {n} in all"
        )
    drawn = np.random.default_rng((seed, 1)).permutation(n)
    return Subset(whole, drawn[:n_train]), Subset(whole, drawn[n - n_valid :])


def _choose(n: int, size: int | None, seed: int) -> NDArray:
    if size is None:
        return np.arange(n)
    if not 1 <= size <= n:
        raise InvalidInputError(f"data.train_size: expected 1 to {n}, got {size}")
    return np.random.default_rng((seed, 1)).permutation(n)[:size]


def _check_labels(loss: LossSettings, statistics: DataStatistics) -> None:
    for name, weight in loss.weights.items():
        if weight > 0 and not statistics.counts[name]:
            raise InvalidInputError(
                f"loss.{name}: weight {weight:g}, but the training data have no {name} (see "
                "data.keys and `mlip check`)"
            )


def _energy_scale(statistics: DataStatistics, fits: Sequence[ReferenceFit]) -> float:
    if np.isfinite(statistics.rms_force) and statistics.rms_force > 0:
        return statistics.rms_force
    return max([fit.rms for fit in fits] or [1.0]) or 1.0


def _widen(table: NDArray, present: Sequence[int], wanted: Sequence[int]) -> NDArray:
    """Reference energies for a model that knows more elements than the data."""
    missing = set(present) - set(wanted)
    if missing:
        raise InvalidInputError(f"model.elements: the data also have {sorted(missing)}")
    wide = np.zeros((len(table), len(wanted)))
    wide[:, [list(wanted).index(z) for z in present]] = table
    return wide


def _fingerprint(statistics: DataStatistics, train: Dataset, valid: Dataset) -> str:
    digest = hashlib.sha256()
    for array in (
        statistics.energies,
        statistics.compositions,
        train.n_edges,
        valid.n_atoms,
        valid.n_edges,
    ):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _default(name: str) -> Any:
    return next(item.default for item in fields(ModelSettings) if item.name == name)
