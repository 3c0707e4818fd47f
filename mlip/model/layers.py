"""Building blocks on atoms: linear maps per degree, scaled grid products, networks of scalars.

Weights of networks of scalars and radial functions are standard normal and divided by the root of
the fan-in at use, those of maps between features start divided by it. To Adam, whose steps do not
depend on the size of gradients, the first kind moves slower by that factor. Measured on small
molecules: with all weights of the first kind, training takes several times as many steps; with all
of the second, it is noisy at the learning rate that the features want.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from mlip.model.constants import ExactModule
from mlip.model.gaunt import full_gaunt_tensor, to_grid
from mlip.model.harmonics import degree_slice, degrees, n_components
from mlip.model.sphere_grid import sphere_grid

#: Makes SiLU of a standard normal variable have unit second moment.
SILU_GAIN = 1.6766


class Linear(nn.Module):
    """Linear map without bias.

    Args:
        n_in: inputs.
        n_out: outputs.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_in, n_out))
        self._scale = 1.0 / math.sqrt(n_in)

    def forward(self, x: Tensor) -> Tensor:
        """[n, n_in] to [n, n_out]."""
        return x @ (self.weight * self._scale)


class DegreeLinear(nn.Module):
    """A linear map of channels for each degree: equivariant, and all there is of that kind.

    Args:
        l_max: largest degree.
        n_in: channels that come in.
        n_out: channels that go out.
    """

    index: Tensor

    def __init__(self, l_max: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(l_max + 1, n_in, n_out) / math.sqrt(n_in))
        self.register_buffer("index", degrees(l_max), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[components, n, n_in] to [components, n, n_out]."""
        return torch.bmm(x, self.weight.index_select(0, self.index))


class UnitProduct(ExactModule):
    """Gaunt product of two features, scaled to unit variance for standard normal features.

    Args:
        l1: largest degree of the first factor.
        l2: largest degree of the second factor.
        l_out: largest degree of the result.
    """

    values_1: Tensor
    values_2: Tensor
    projection: Tensor

    def __init__(self, l1: int, l2: int, l_out: int) -> None:
        super().__init__()
        variance = full_gaunt_tensor(l1, l2, l_out).square().sum((0, 1))
        grid = sphere_grid(l1 + l2 + l_out)
        projection = grid.projection(l_out) / variance.sqrt()[:, None]
        self.keep("values_1", grid.values(l1))
        self.keep("values_2", grid.values(l2))
        self.keep("projection", projection)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """[(l1 + 1)^2, n, c] and [(l2 + 1)^2, n, c] to [(l_out + 1)^2, n, c]."""
        return to_grid(self.projection, to_grid(self.values_1, a) * to_grid(self.values_2, b))


class DegreeInner(ExactModule):
    """Inner products of two features, one for each degree: invariants.

    Args:
        l_max: largest degree.
    """

    sums: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        sums = torch.zeros(l_max + 1, n_components(l_max), dtype=torch.float64)
        for degree in range(l_max + 1):
            sums[degree, degree_slice(degree)] = 1.0 / math.sqrt(2 * degree + 1)
        self.keep("sums", sums)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two features [components, n, c] to [n, (l_max + 1) c]."""
        return to_grid(self.sums, a * b).transpose(0, 1).flatten(1)


class ScalarNetwork(nn.Module):
    """Linear maps with SiLU between them.

    Args:
        *widths: of the input, the hidden layers and the output.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """[n, widths[0]] to [n, widths[-1]]."""
        x = self.layers[0](x)
        for layer in self.layers[1:]:
            x = layer(nn.functional.silu(x) * SILU_GAIN)
        return x
