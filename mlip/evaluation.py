"""Results of one or several potentials as plain NumPy, for any number of structures.

Several potentials are a committee: results are means, and the uncertainty is that of a mixture of
Gaussians (the mean variance of the members and the variance of their means).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import AtomGraph
from mlip.model.potential import Potential, Wanted
from mlip.training.checkpoint import ModelCard

_MEANS = ("energy", "energies", "forces", "stress", "magmoms", "magnetic_forces")


@dataclass(frozen=True, eq=False)
class Committee:
    """Potentials that agree on what an energy is.

    Attributes:
        potentials: in evaluation mode, on one device.
        cards: of each.

    Raises:
        InvalidInputError: no potential, or potentials whose energies do not compare.
    """

    potentials: tuple[Potential, ...]
    cards: tuple[ModelCard, ...]

    def __post_init__(self) -> None:
        if not self.potentials:
            raise InvalidInputError("model: expected at least one file, got none")
        first, card = self.potentials[0], self.cards[0]
        for other, other_card in zip(self.potentials[1:], self.cards[1:], strict=True):
            mine, theirs = first.model.settings, other.model.settings
            for name in ("elements", "fidelities", "moments", "predict_moments", "soc"):
                if getattr(mine, name) != getattr(theirs, name):
                    raise InvalidInputError(
                        f"model: expected models that agree in {name}, got {getattr(mine, name)} "
                        f"and {getattr(theirs, name)}"
                    )
            if card.energy_reference != other_card.energy_reference:
                raise InvalidInputError(
                    f"model: expected one energy reference, got {card.energy_reference!r} and "
                    f"{other_card.energy_reference!r}; their energies do not compare"
                )

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers."""
        return self.potentials[0].model.settings.elements

    @property
    def r_max(self) -> float:
        """Largest cutoff in Angstrom; a shorter one sees the rest of the edges as nothing."""
        return max(potential.model.settings.r_max for potential in self.potentials)

    def check_elements(self, numbers: Sequence[int]) -> None:
        """Refuse elements that the potentials do not know.

        Args:
            numbers: atomic numbers.

        Raises:
            InvalidInputError: with the symbols.
        """
        unknown = sorted({int(z) for z in numbers} - set(self.elements))
        if unknown:
            raise InvalidInputError(
                f"atoms: the model knows {[chemical_symbols[z] for z in self.elements]}, got "
                f"{[chemical_symbols[z] for z in unknown]}"
            )

    def compute(self, graph: AtomGraph, stress: bool) -> dict[str, Tensor]:
        """Energies, forces and what else the models give, with the uncertainty of the energy.

        Args:
            graph: the structures.
            stress: compute the stress as well.

        Returns:
            Means by name, and "energy_uncertainty" [g] if there is more than one estimate.
        """
        wanted = Wanted(stress=stress, magnetic_forces=self._magnetic(graph))
        single = [potential(graph, wanted) for potential in self.potentials]
        found = {
            name: torch.stack([out[name] for out in single]).mean(0)
            for name in _MEANS
            if name in single[0]
        }
        if self.has_uncertainty:
            variances = [
                _calibrated(card, "energy", _variance(out["member_energy"]), graph.atoms_per_graph)
                for out, card in zip(single, self.cards, strict=True)
            ]
            means = torch.stack([out["energy"] for out in single], dim=1)
            total = torch.stack(variances).mean(0) + _variance(means)
            found["energy_uncertainty"] = total.sqrt()
        return found

    def forces_uncertainty(self, graph: AtomGraph) -> Tensor:
        """[n] expected length of the error of the forces in eV/Angstrom.

        It costs one more derivative for each readout, which is why it is not computed before it
        is asked for.

        Args:
            graph: the structures.

        Returns:
            The uncertainties.

        Raises:
            InvalidInputError: a single model with a single readout.
        """
        if not self.has_uncertainty:
            raise InvalidInputError(
                "forces_uncertainty: expected a model with several readouts (model.ensemble) or "
                "several models, got one of one"
            )
        variances, means = [], []
        for potential, card in zip(self.potentials, self.cards, strict=True):
            several = potential.model.settings.ensemble > 1
            out = potential(graph, Wanted(uncertainty=several))
            means.append(out["forces"])
            spread = out["forces_uncertainty"] if several else torch.zeros_like(means[0][:, 0])
            variances.append(_calibrated(card, "forces", spread.square()))
        forces = torch.stack(means)
        between = torch.zeros_like(variances[0])
        if len(means) > 1:
            between = (forces - forces.mean(0)).square().sum(2).sum(0) / (len(means) - 1)
        return (torch.stack(variances).mean(0) + between).sqrt()

    def features(self, graph: AtomGraph) -> Tensor:
        """[n, f] invariants of each atom, of all potentials side by side.

        Args:
            graph: the structures.

        Returns:
            What the readouts make the energies of.
        """
        wanted = Wanted(forces=False, features=True)
        return torch.cat([each(graph, wanted)["features"] for each in self.potentials], dim=1)

    @property
    def has_uncertainty(self) -> bool:
        """Whether there is more than one estimate: several readouts or several models."""
        ensemble = max(potential.model.settings.ensemble for potential in self.potentials)
        return ensemble > 1 or len(self.potentials) > 1

    def _magnetic(self, graph: AtomGraph) -> bool:
        settings = self.potentials[0].model.settings
        return settings.moments != "none" and graph.magmoms is not None


def _calibrated(card: ModelCard, name: str, variance: Tensor, atoms: Tensor | int = 1) -> Tensor:
    """Variance of the error from that of the readouts; the floor of an energy is per atom."""
    calibration = card.calibration(name)
    return calibration.scale**2 * variance + (calibration.floor * atoms) ** 2


def shortest_table(shortest: Mapping[str, float], elements: Sequence[int]) -> Tensor:
    """[elements, elements] shortest distance in the training data; 0 where a pair never was."""
    place = {chemical_symbols[z]: i for i, z in enumerate(elements)}
    table = torch.zeros(len(elements), len(elements), dtype=torch.float64)
    for pair, distance in shortest.items():
        a, b = (place[symbol] for symbol in pair.split("-"))
        table[a, b] = table[b, a] = distance
    return table


def _variance(values: Tensor) -> Tensor:
    """Unbiased variance over the second axis, zero for a single value."""
    if values.shape[1] == 1:
        return torch.zeros_like(values[:, 0])
    return values.var(1)
