"""The configuration of a loop: frozen records, read from one YAML file (`examples/loop.yaml`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.settings import build_settings, read_settings
from ase_neuralxc.workflows.common import require_positive
from mlip.active.adsorbates import Adsorbates
from mlip.active.dynamics import Dynamics, PathImages
from mlip.active.labeller import Source, named_source
from mlip.active.sampler import NormalModes, Rattle, Sampler, Strain
from mlip.active.selection import SelectionSettings
from mlip.active.walkers import WalkerSettings
from mlip.model.settings import ModelSettings
from mlip.training.config import build_config
from mlip.training.settings import TrainConfig

#: Samplers by the name in a configuration.
SAMPLERS: dict[str, type] = {
    "rattle": Rattle,
    "strain": Strain,
    "modes": NormalModes,
    "md": Dynamics,
    "path": PathImages,
    "adsorbates": Adsorbates,
}
#: Settings of a training that belong to the loop.
OWN = ("out", "seed")
#: What may change between two starts of one loop: how far it goes, and how it is run.
CHANGEABLE = ("out", "rounds", "workers", "refine")


@dataclass(frozen=True)
class RefineStep:
    """What is refined with DFT after the last round.

    The starts are relaxed on the final potential and the distinct minima handed to DFT.

    Attributes:
        budget: DFT calculations.
        fmax: largest force of the potential at its minima, in eV/Angstrom.
        reference: name of the point that is zero in the diagram; the lowest if None.
    """

    budget: int = 12
    fmax: float = 0.01
    reference: str | None = None

    def __post_init__(self) -> None:
        require_positive("refine.budget", self.budget)
        require_positive("refine.fmax", self.fmax)


@dataclass(frozen=True)
class LoopConfig:
    """A loop.

    Attributes:
        starts: file of the structures that exploration starts from, any format of ASE.
        out: folder of the loop.
        seed: of samplers, weights, splits.
        rounds: rounds of exploration after the first training.
        labeller: `kind` ("neuralxc" or "emt") and the settings of `NeuralXC`.
        labels: files of labels that are there already, of the same level of theory.
        initial: samplers of the first labels, before there is a potential.
        explore: samplers of each round.
        on_the_fly: walkers that go on from round to round, instead of `explore`.
        selection: thresholds and budget of each round.
        training: settings of `mlip train`; `data.train` is the loop's.
        committee: potentials that are trained with different seeds.
        workers: processes that label.
        refine: what to do in the end, None for nothing.
    """

    starts: str
    out: str = "loop"
    seed: int = 0
    rounds: int = 3
    labeller: Mapping[str, Any] = field(default_factory=lambda: {"kind": "neuralxc"})
    labels: tuple[str, ...] = ()
    initial: Mapping[str, Any] = field(default_factory=lambda: {"rattle": {}})
    explore: Mapping[str, Any] = field(default_factory=lambda: {"md": {}})
    on_the_fly: WalkerSettings | None = None
    selection: SelectionSettings = field(default_factory=SelectionSettings)
    training: Mapping[str, Any] = field(default_factory=dict)
    committee: int = 1
    workers: int = 1
    refine: RefineStep | None = None

    def __post_init__(self) -> None:
        labels: Any = self.labels
        object.__setattr__(self, "labels", (labels,) if isinstance(labels, str) else tuple(labels))
        for name in ("rounds", "committee", "workers"):
            require_positive(name, getattr(self, name))
        if not self.labels and not self.initial:
            raise InvalidInputError("initial: expected samplers or `labels`, got neither")
        # everything is built once, so that a mistake is found before the first calculation
        self.samplers("initial")
        self.samplers("explore")
        self.source()
        model = self.train_config("", (), 0).model
        ensemble = model.get("ensemble", ModelSettings.__dataclass_fields__["ensemble"].default)
        if self.committee < 2 and ensemble < 2:
            raise InvalidInputError(
                "training.model.ensemble: expected at least 2, or a committee, for a model with "
                f"uncertainties, got {ensemble} and committee: {self.committee}"
            )

    def samplers(self, part: str) -> dict[str, Sampler]:
        """The samplers of "initial" or "explore", by name."""
        made: dict[str, Sampler] = {}
        for name, values in getattr(self, part).items():
            if name not in SAMPLERS:
                raise unknown_name(f"sampler in {part}", str(name), SAMPLERS)
            made[name] = build_settings(SAMPLERS[name], values or {}, f"{part}.{name}.")
        return made

    def source(self) -> Source:
        """What labels."""
        settings = dict(self.labeller)
        return named_source(str(settings.pop("kind", "neuralxc")), settings)

    def train_config(self, out: str, files: tuple[str, ...], member: int) -> TrainConfig:
        """Configuration of one training.

        Args:
            out: folder of the run.
            files: labels.
            member: of the committee.

        Returns:
            The configuration.

        Raises:
            InvalidInputError: a setting that belongs to the loop or does not exist.
        """
        for name in OWN:
            if name in self.training:
                raise InvalidInputError(
                    f"training.{name}: expected no such setting, it is the loop's own"
                )
        data = dict(self.training.get("data", {}))
        if "train" in data:
            raise InvalidInputError(
                f"training.data.train: expected no files, they are the loop's own (`labels` adds "
                f"some), got {data['train']!r}"
            )
        data["train"] = list(files)
        return build_config(
            {**self.training, "data": data, "out": out, "seed": self.seed + 1000 * member}
        )

    def identity(self) -> dict[str, Any]:
        """What must be equal for a loop to be continued, JSON values."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if name not in CHANGEABLE}


def read_loop_config(path: str | Path) -> LoopConfig:
    """Read a configuration.

    Args:
        path: YAML file.

    Returns:
        The configuration.

    Raises:
        InvalidInputError: an unreadable file, an unknown key, a value of the wrong type.
    """
    values = read_settings(path)
    if "starts" not in values:
        raise InvalidInputError(f"starts: expected a file of structures in {str(path)!r}, got none")
    return build_settings(LoopConfig, values)
