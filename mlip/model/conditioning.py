"""What a structure's level of theory and electronic state do to its features (FiLM).

Perez et al., AAAI 2018: s <- s (1 + gamma) + beta on scalars; features of higher degree take only a
gain, which keeps them equivariant. gamma and beta are linear in a description of the state and
start at zero: an unconditioned model is the starting point, and what is unknown has its own token.
The model conditions what it sums over neighbours (a radial function of its own for each state, so
to say), the features that atoms send, and the last hidden layer.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mlip.data.graph import AtomGraph
from mlip.model.settings import ModelSettings


class StateDescription(nn.Module):
    """Numbers per structure that say its fidelity, charge, unpaired electrons and polarisation.

    Args:
        settings: with several `fidelities` or with `system_state`.

    Attributes:
        size: how many numbers, 0 if nothing conditions the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        conditioned = settings.condition_fidelity and len(settings.fidelities) > 1
        self._n_fidelities = len(settings.fidelities) if conditioned else 0
        self._state = settings.system_state
        self.size = self._n_fidelities + (7 if self._state else 0)

    def forward(self, graph: AtomGraph, dtype: torch.dtype) -> Tensor:
        """Describe the structures of a batch.

        Args:
            graph: the batch.
            dtype: of the result.

        Returns:
            [g, size]: one token per fidelity; value and missing-token of the charge and of the
            unpaired electrons; one token each for polarisation unknown, no and yes.
        """
        parts = []
        if self._n_fidelities:
            parts.append(nn.functional.one_hot(graph.fidelity, self._n_fidelities))
        if self._state:
            for value in (graph.charge, graph.n_unpaired):
                missing = value.isnan()
                parts.append(torch.stack([value.masked_fill(missing, 0.0), missing], dim=1))
            # -1 unknown, 0 no, 1 yes
            parts.append(nn.functional.one_hot(graph.spin_polarised.long() + 1, 3))
        return torch.cat([part.to(dtype) for part in parts], dim=1)


class FiLM(nn.Module):
    """Scale and shift of features by the state of the structure.

    Args:
        size: numbers in the description of a state.
        channels: channels of the features.
        l_max: largest degree of the features.
    """

    def __init__(self, size: int, channels: int, l_max: int = 0) -> None:
        super().__init__()
        self._channels, self._l_max = channels, l_max
        self.weight = nn.Parameter(torch.zeros(size, channels * (3 if l_max else 2)))

    def forward(self, features: Tensor, state: Tensor) -> Tensor:
        """Condition features.

        Args:
            features: [(l_max + 1)^2, n, channels].
            state: [n, size] description of each atom's structure.

        Returns:
            Features of the same shape.
        """
        parts = (state @ self.weight).split(self._channels, dim=1)
        scalars = features[:1] * (1.0 + parts[0]) + parts[1]
        if not self._l_max:
            return scalars
        return torch.cat([scalars, features[1:] * (1.0 + parts[2])])
