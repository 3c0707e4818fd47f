"""Gaunt products: equivariant products of features as products of functions on the sphere.

A feature with components up to degree L is a function on the sphere (`harmonics`), and the product
of two functions is equivariant. Written in components it is the Clebsch-Gordan product with Gaunt
coefficients as its path weights (Luo, Chen, Krishnapriyan, ICLR 2024), evaluated here on a grid
that is exact for the degrees at hand (`sphere_grid`): O(L^4) per channel instead of O(L^6), all of
it matrix products. Paths with odd l1 + l2 + l3 vanish; `CurlProduct` has exactly those.

Weights per degree, before and after the product, and a sum over `rank` such products (a CP
decomposition of the weights of all paths) win back the freedom of a separate weight for each path.

Layout: [components, atoms, channels], component first. Every step on the grid, and every linear map
of one degree, is then a single matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError
from mlip.model.constants import ExactModule
from mlip.model.harmonics import degree_slice, degrees, n_components
from mlip.model.sphere_grid import sphere_grid


def gaunt_tensor(l1: int, l2: int, l3: int) -> Tensor:
    """Means of Y_l1m1 Y_l2m2 Y_l3m3 over the sphere.

    Args:
        l1: degree of the first factor.
        l2: degree of the second factor.
        l3: degree of the result.

    Returns:
        [2 l1 + 1, 2 l2 + 1, 2 l3 + 1], float64.
    """
    grid = sphere_grid(l1 + l2 + l3)
    values = [grid.values(degree)[:, degree_slice(degree)] for degree in (l1, l2, l3)]
    return torch.einsum("g,ga,gb,gc->abc", grid.weights, *values)


def full_gaunt_tensor(l1_max: int, l2_max: int, l3_max: int) -> Tensor:
    """Gaunt coefficients of all degrees up to three limits.

    Args:
        l1_max: largest degree of the first factor.
        l2_max: largest degree of the second factor.
        l3_max: largest degree of the result.

    Returns:
        [(l1_max + 1)^2, (l2_max + 1)^2, (l3_max + 1)^2], float64.
    """
    grid = sphere_grid(l1_max + l2_max + l3_max)
    values = [grid.values(l_max) for l_max in (l1_max, l2_max, l3_max)]
    return torch.einsum("g,ga,gb,gc->abc", grid.weights, *values)


class DegreeWeights(nn.Module):
    """A weight for each degree and channel, for each of `rank` copies.

    Args:
        l_max: largest degree.
        channels: channels.
        rank: copies; their weights start at random signs, or at one if there is a single copy.
    """

    index: Tensor

    def __init__(self, l_max: int, channels: int, rank: int) -> None:
        super().__init__()
        start = torch.ones(rank, l_max + 1, channels)
        if rank > 1:
            start = torch.randn_like(start)
        self.weights = nn.Parameter(start)
        self.register_buffer("index", degrees(l_max), persistent=False)

    def forward(self, features: Tensor, copy: int) -> Tensor:
        """[components, n, channels] scaled by the weights of one copy."""
        return features * self.weights[copy].index_select(0, self.index)[:, None]


class GridProduct(ExactModule):
    """Common part of the products: limits, weights, and the sum over ranks.

    Args:
        l_factors: largest degree of each factor.
        l_out: largest degree of the result.
        channels: channels, which do not mix.
        rank: number of products that are summed.

    Raises:
        InvalidInputError: fewer than two factors, or a rank below one.
    """

    def __init__(self, l_factors: Sequence[int], l_out: int, channels: int, rank: int = 1) -> None:
        super().__init__()
        if len(l_factors) < 2 or rank < 1:
            raise InvalidInputError(
                f"expected at least two factors and a rank of at least 1, got "
                f"l_factors={list(l_factors)}, rank={rank}"
            )
        self.l_factors, self.l_out, self.rank = tuple(l_factors), l_out, rank
        self.before = nn.ModuleList(DegreeWeights(l_max, channels, rank) for l_max in l_factors)
        self.after = DegreeWeights(l_out, channels, rank)

    def forward(self, *factors: Tensor) -> Tensor:
        """The product of features.

        Args:
            *factors: one feature [(l + 1)^2, n, channels] for each of `l_factors`.

        Returns:
            [(l_out + 1)^2, n, channels].

        Raises:
            InvalidInputError: another number of factors, or of components.
        """
        if [f.shape[0] for f in factors] != [n_components(l_max) for l_max in self.l_factors]:
            raise InvalidInputError(
                f"factors: expected components of degrees up to {self.l_factors}, got shapes "
                f"{[list(f.shape) for f in factors]}"
            )
        total = None
        for copy in range(self.rank):
            scaled = [weigh(f, copy) for weigh, f in zip(self.before, factors, strict=True)]
            term = self.after(self._product(scaled), copy)
            total = term if total is None else total + term
        assert total is not None
        return total

    def _product(self, factors: list[Tensor]) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} must implement _product")


class GauntProduct(GridProduct):
    """Product of two or more features; parity (-1)^l is kept."""

    projection: Tensor

    def __init__(self, l_factors: Sequence[int], l_out: int, channels: int, rank: int = 1) -> None:
        super().__init__(l_factors, l_out, channels, rank)
        grid = sphere_grid(sum(l_factors) + l_out)
        self.keep("projection", grid.projection(l_out))
        for l_max in set(l_factors):
            self.keep(f"values_{l_max}", grid.values(l_max))

    def _product(self, factors: list[Tensor]) -> Tensor:
        on_grid = None
        for l_max, factor in zip(self.l_factors, factors, strict=True):
            values = to_grid(getattr(self, f"values_{l_max}"), factor)
            on_grid = values if on_grid is None else on_grid * values
        assert on_grid is not None
        return to_grid(self.projection, on_grid)


class CurlProduct(GridProduct):
    """r . (grad A x grad B): the odd paths, of which 1 x 1 -> 1 is the cross product.

    The result of two features with parity (-1)^l has parity -(-1)^l: degree 1 is an axial vector.
    """

    projection: Tensor

    def __init__(self, l_factors: Sequence[int], l_out: int, channels: int, rank: int = 1) -> None:
        super().__init__(l_factors, l_out, channels, rank)
        if len(l_factors) != 2:
            raise InvalidInputError(f"l_factors: expected two factors, got {list(l_factors)}")
        # The gradients lower a degree each, the factor r raises it by one.
        grid = sphere_grid(max(sum(l_factors) - 1, 0) + l_out)
        self.keep("projection", grid.projection(l_out))
        for l_max in set(l_factors):
            derivatives = grid.tangent_derivatives(l_max)
            self.keep(f"derivatives_{l_max}", derivatives)

    def _product(self, factors: list[Tensor]) -> Tensor:
        (a1, a2), (b1, b2) = (
            [to_grid(d, factor) for d in getattr(self, f"derivatives_{l_max}")]
            for l_max, factor in zip(self.l_factors, factors, strict=True)
        )
        return to_grid(self.projection, a1 * b2 - a2 * b1)


class ManyBodyProduct(ExactModule):
    """Sum of the powers 1..order of a feature: all products of up to `order` densities.

    One transform to the grid serves all powers. The first power needs none: the harmonics are
    orthonormal, and a feature projected is its own lower degrees.

    Args:
        l_max: largest degree of the feature.
        l_out: largest degree of the result, at most `l_max`.
        channels: channels, which do not mix.
        order: largest power.
        rank: number of sums with separate weights before the product.

    Raises:
        InvalidInputError: order or rank below one, or a result of larger degree than the feature.
    """

    values: Tensor
    projection: Tensor

    def __init__(self, l_max: int, l_out: int, channels: int, order: int, rank: int = 1) -> None:
        super().__init__()
        if order < 1 or rank < 1 or l_out > l_max:
            raise InvalidInputError(
                f"expected order, rank >= 1 and l_out <= l_max, got order={order}, rank={rank}, "
                f"l_out={l_out}, l_max={l_max}"
            )
        self.rank, self._n_out = rank, n_components(l_out)
        self.before = DegreeWeights(l_max, channels, rank)
        self.linear = DegreeWeights(l_out, channels, rank)
        self.powers = nn.ModuleList(DegreeWeights(l_out, channels, rank) for _ in range(order - 1))
        grid = sphere_grid(order * l_max + l_out)
        self.keep("values", grid.values(l_max))
        self.keep("projection", grid.projection(l_out))

    def forward(self, feature: Tensor) -> Tensor:
        """[(l_max + 1)^2, n, channels] to [(l_out + 1)^2, n, channels]."""
        total = None
        for copy in range(self.rank):
            weighted = self.before(feature, copy)
            term = self.linear(weighted[: self._n_out], copy)
            base = to_grid(self.values, weighted)
            power = base
            for weigh in self.powers:
                power = power * base
                term = term + weigh(to_grid(self.projection, power), copy)
            total = term if total is None else total + term
        assert total is not None
        return total


def to_grid(matrix: Tensor, features: Tensor) -> Tensor:
    """Apply a matrix to the first axis.

    Args:
        matrix: [p, q].
        features: [q, n, channels].

    Returns:
        [p, n, channels], one matrix product.
    """
    flat = features.reshape(features.shape[0], -1)
    return (matrix @ flat).reshape(-1, *features.shape[1:])
