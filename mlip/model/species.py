"""From atomic numbers to the position of an element in the model's list."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError
from mlip.model.harmonics import degrees


class SpeciesIndex(nn.Module):
    """Index of each atom's element.

    Args:
        elements: atomic numbers the model knows.
    """

    table: Tensor

    def __init__(self, elements: Sequence[int]) -> None:
        super().__init__()
        table = torch.full((119,), -1, dtype=torch.long)
        table[list(elements)] = torch.arange(len(elements))
        self.register_buffer("table", table, persistent=False)

    def forward(self, numbers: Tensor) -> Tensor:
        """Look elements up.

        Args:
            numbers: [n] atomic numbers.

        Returns:
            [n] indices.

        Raises:
            InvalidInputError: an element the model was not made for.
        """
        index = self.table.index_select(0, numbers.clamp(0, 118))
        unknown = index < 0
        if bool(unknown.any()):
            known = (self.table >= 0).nonzero().squeeze(1).tolist()
            raise InvalidInputError(
                f"numbers: expected elements with atomic numbers {known}, got "
                f"{sorted(set(numbers[unknown].tolist()))}"
            )
        return index


class SpeciesWeights(nn.Module):
    """Weights of features for each element, degree and channel.

    With a single element they would repeat the linear map before them, and there are none.

    Args:
        n_elements: elements.
        l_max: largest degree of the features.
        channels: channels of the features.
    """

    index: Tensor

    def __init__(self, n_elements: int, l_max: int, channels: int) -> None:
        super().__init__()
        self.weight: nn.Parameter | None = None
        if n_elements > 1:
            start = 1.0 + 0.3 * torch.randn(n_elements, l_max + 1, channels)
            self.weight = nn.Parameter(start)
        self.register_buffer("index", degrees(l_max), persistent=False)

    def forward(self, features: Tensor, species: Tensor) -> Tensor:
        """Weigh features.

        Args:
            features: [(l_max + 1)^2, n, channels].
            species: [n] index of each atom's element.

        Returns:
            Features of the same shape.
        """
        if self.weight is None:
            return features
        rows = self.weight.index_select(0, species).transpose(0, 1)
        return features * rows.index_select(0, self.index)
