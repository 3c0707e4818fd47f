"""Self-consistent refinement: densities of the functional's own, training on them, and again.

A functional that was trained on another one's densities is judged by its users at its own. Each
round converges the densities of all training species with the current functional, measures it
there, and goes on training on these densities; the energy is stationary at them, so that nothing
else of the response enters to first order. The last functional is measured as well, and the round
whose functional was best at its own densities is what is kept.

OUT/round-K/densities   densities of the functional that round K starts from
OUT/round-K/run         the training of round K
OUT/rounds.json         errors at the functional's own densities, after each round
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ase_neuralxc.campaign import Campaign
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import units
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.settings import build_settings, read_settings
from ase_neuralxc.training.config import TrainingConfig
from ase_neuralxc.training.dataset import ReactionTable
from ase_neuralxc.training.one_step import FixedDensity
from ase_neuralxc.training.planning import count_basis_functions, plan
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import find_reactions, select_reactions
from ase_neuralxc.training.run_report import write_report
from ase_neuralxc.training.stored import DensityCodec, density_path, open_density
from ase_neuralxc.training.trainer import EpochRecord, Trainer

#: Keys of the training that follow from the refinement.
_DERIVED = ("densities", "out", "start")
#: Densities whose Fock matrices are kept for the regulariser.
_KEPT = 64


@dataclass(frozen=True)
class RefinementConfig:
    """Settings of a refinement.

    Attributes:
        start: checkpoint to refine.
        out: folder of the refinement; a killed one continues in it.
        training: settings of the training of each round, as in `TrainingConfig`, but for
            densities, out and start.
        densities: settings of the densities, as in `PrepareSettings`, but for xc, and with the SCF
            on the grid of the features: on level 1 energies of trained functionals are off by mHa.
        rounds: how often densities and functional are renewed.
        max_basis_functions: reactions with larger species are left out, or None.
        workers: processes for the densities.
        scf_weight: weight of the regulariser: the square of what one diagonalisation would lower
            the energy of a stored density by, in kcal/mol, of one random species per step.
    """

    start: str
    out: str
    training: Mapping[str, Any]
    densities: Mapping[str, Any] = field(default_factory=dict)
    rounds: int = 2
    max_basis_functions: int | None = None
    workers: int = 1
    scf_weight: float = 0.0

    def __post_init__(self) -> None:
        for name in ("rounds", "workers"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        if not self.scf_weight >= 0:
            raise InvalidInputError(
                f"scf_weight: expected a number that is not negative, got {self.scf_weight}"
            )
        for name in _DERIVED:
            if name in self.training:
                raise InvalidInputError(
                    f"training: expected settings without {name!r}, which follows from the "
                    f"refinement, got {self.training[name]!r}"
                )
        if "xc" in self.densities:
            raise InvalidInputError(
                f"densities: expected settings without 'xc', which is the functional that is "
                f"refined, got {self.densities['xc']!r}"
            )
        self.round_config("checkpoint", Path("round"))  # checks the settings of the training
        self.prepare_settings("xc")

    def round_config(self, start: str, folder: Path) -> TrainingConfig:
        """Settings of the training of one round.

        Args:
            start: checkpoint that it starts from.
            folder: of the round.

        Returns:
            The settings.
        """
        places = {
            "start": start,
            "densities": str(folder / "densities"),
            "out": str(folder / "run"),
        }
        return build_settings(TrainingConfig, {**self.training, **places})

    def prepare_settings(self, xc: str) -> PrepareSettings:
        """Settings of the densities of a functional, whose SCF runs on the grid of the features."""
        level = self.densities.get("grid_level", PrepareSettings.grid_level)
        values = {"scf_grid_level": level, **self.densities, "xc": xc}
        return build_settings(PrepareSettings, values)


@dataclass(frozen=True)
class RoundRecord:
    """A functional at its own densities; errors in kcal/mol.

    Attributes:
        round: rounds of training that it has behind it.
        checkpoint: its file.
        training_mae: mean absolute error of the training reactions.
        validation_mae: of the held-out reactions; NaN if nothing is held out.
        n_species: densities that converged.
        n_failed: densities that did not.
        median_cycles: of the SCFs.
    """

    round: int
    checkpoint: str
    training_mae: float
    validation_mae: float
    n_species: int
    n_failed: int
    median_cycles: float

    @property
    def error(self) -> float:
        """What rounds are compared by: held-out reactions if there are any."""
        return self.training_mae if math.isnan(self.validation_mae) else self.validation_mae


def load_refinement(path: str | Path, overrides: tuple[str, ...] = ()) -> RefinementConfig:
    """Read the configuration of a refinement.

    Args:
        path: YAML file.
        overrides: "key=value" pairs; "training.epochs=3" goes one level down.

    Returns:
        The settings.

    Raises:
        InvalidInputError: the file cannot be read, or a key is unknown or of the wrong type.
    """
    return build_settings(RefinementConfig, read_settings(path, overrides))


class RegularisedTrainer(Trainer):
    """Training with the SCF regulariser (`RefinementConfig.scf_weight`).

    Args:
        config: settings of the training.
        scf_weight: weight of the regulariser.
    """

    def __init__(self, config: TrainingConfig, scf_weight: float) -> None:
        if scf_weight > 0 and config.optimizer != "adamw":
            raise InvalidInputError(
                f"scf_weight: expected 0 with the optimizer {config.optimizer!r}, which knows "
                f"reaction energies alone, or the optimizer 'adamw', got {scf_weight}"
            )
        super().__init__(config)
        self.scf_weight = scf_weight
        self._fixed = lru_cache(maxsize=_KEPT)(self._load)

    def penalty(self, batch: ReactionTable, epoch: int, step: int) -> Tensor | float:
        """Weight times the square of the SCF gain of one species, in kcal/mol."""
        if self.scf_weight == 0.0:
            return 0.0
        generator = np.random.default_rng((self.config.seed, epoch, step, 1))
        chosen = batch.densities[int(generator.integers(len(batch.densities)))]
        path = density_path(self.config.densities, chosen.species)
        gain = self._fixed(str(path)).evaluate(self.functional, one_step=False).scf_gain
        return self.scf_weight * (gain / units.KCALMOL_HARTREE) ** 2

    def _load(self, path: str) -> FixedDensity:
        return FixedDensity(open_density(path))


def refine(
    config: RefinementConfig,
    on_epoch: Callable[[EpochRecord], None] = lambda record: None,
    on_round: Callable[[RoundRecord], None] = lambda record: None,
    progress: bool = True,
) -> Path:
    """Run all rounds, or those that an earlier, killed run has left.

    Args:
        config: all settings.
        on_epoch: called after each epoch of training.
        on_round: called when a functional has been measured at its own densities.
        progress: show bars.

    Returns:
        Checkpoint of the functional that was best at its own densities, in the folder `out`.
    """
    out = Path(config.out)
    checkpoint = Path(config.start)
    records: list[RoundRecord] = []
    for number in range(config.rounds + 1):
        folder = out / f"round-{number + 1}"
        counts = _prepare(config, checkpoint, folder / "densities", progress)
        settings = config.round_config(str(checkpoint), folder)
        trainer = RegularisedTrainer(settings, config.scf_weight)
        records.append(_measure(trainer, number, checkpoint, counts))
        values = [asdict(record) for record in records]
        atomic_write(out / "rounds.json", json.dumps(values, indent=1).encode())
        on_round(records[-1])
        if number < config.rounds:
            checkpoint = write_report(trainer, trainer.run(on_epoch))
    best = min(records, key=lambda record: record.error)
    kept = out / f"{settings.name}.safetensors"
    shutil.copyfile(best.checkpoint, kept)
    return kept


def _prepare(
    config: RefinementConfig, checkpoint: Path, folder: Path, progress: bool
) -> tuple[int, int]:
    """Densities of a functional; how many there are, and how many failed."""
    settings = config.prepare_settings(str(checkpoint))
    sets = select_reactions(
        [s for s in find_reactions(config.training["data"]) if s.name not in _left_out(config)],
        settings.basis,
    )
    cache: dict[str, int] = {}
    work = plan(
        [sets],
        lambda species: count_basis_functions(species, settings.basis, cache),
        config.max_basis_functions,
    )
    summary = Campaign(folder, settings.identity, DensityCodec()).run(
        work.species, DensityTask(settings), workers=config.workers, retries=1, progress=progress
    )
    return summary.n_done + summary.n_skipped, summary.n_failed


def _left_out(config: RefinementConfig) -> tuple[str, ...]:
    return config.round_config(config.start, Path("round")).leave_out


def _measure(
    trainer: Trainer, number: int, checkpoint: Path, counts: tuple[int, int]
) -> RoundRecord:
    table = trainer.table
    errors = np.abs((table.starting_energies() - table.references).numpy())
    held = errors[trainer.validation]
    return RoundRecord(
        round=number,
        checkpoint=str(checkpoint),
        training_mae=float(errors[trainer.training].mean()),
        validation_mae=float(held.mean()) if held.size else math.nan,
        n_species=counts[0],
        n_failed=counts[1],
        median_cycles=float(np.median([d.provenance["cycles"] for d in table.densities])),
    )
