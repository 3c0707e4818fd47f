"""Real spherical harmonics in the order and orientation of e3nn.

Components of degrees 0..L stand behind one another, (L + 1)^2 in all; degree l has 2l + 1 of them,
m = -l..l, with y as the polar axis, so that degree 1 is (x, y, z). Normalisation "component": the
mean over the sphere of Y_lm Y_l'm' is 1 where they are equal, and Y_00 = 1. Features are
coefficients in this basis; their inversion parity is (-1)^l.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError


def n_components(l_max: int) -> int:
    """Components of all degrees up to `l_max`."""
    return (l_max + 1) ** 2


def degree_slice(degree: int) -> slice:
    """Where the components of one degree stand."""
    return slice(degree**2, (degree + 1) ** 2)


def degrees(l_max: int, device: torch.device | str | None = None) -> Tensor:
    """[(l_max + 1)^2] degree of each component."""
    sizes = torch.arange(1, 2 * l_max + 2, 2, device=device)
    return torch.repeat_interleave(torch.arange(l_max + 1, device=device), sizes)


def solid_harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """|v|^l Y_lm(v / |v|): homogeneous polynomials, smooth at the origin.

    On unit vectors these are the spherical harmonics. Recursions of the associated Legendre
    functions in the polar coordinate and of (x + iy)^m in the others, without a division.

    Args:
        vectors: [..., 3].
        l_max: largest degree.

    Returns:
        [..., (l_max + 1)^2], differentiable to any order.

    Raises:
        InvalidInputError: vectors without three components, or a negative degree.
    """
    if vectors.shape[-1] != 3:
        raise InvalidInputError(f"vectors: expected shape [..., 3], got {list(vectors.shape)}")
    if l_max < 0:
        raise InvalidInputError(f"l_max: expected a degree >= 0, got {l_max}")
    sine, polar, cosine = vectors.unbind(-1)
    square = vectors.square().sum(-1)
    cosines, sines = [torch.ones_like(polar)], [torch.zeros_like(polar)]
    for _ in range(l_max):
        c, s = cosines[-1], sines[-1]
        cosines.append(cosine * c - sine * s)
        sines.append(cosine * s + sine * c)
    rows: dict[tuple[int, int], Tensor] = {}
    for m in range(l_max + 1):
        before, now = torch.zeros_like(polar), torch.full_like(polar, _double_factorial(2 * m - 1))
        for degree in range(m, l_max + 1):
            scale = _norm(degree, m)
            rows[degree, m] = scale * now * cosines[m]
            if m > 0:
                rows[degree, -m] = scale * now * sines[m]
            after = (2 * degree + 1) * polar * now - (degree + m) * square * before
            before, now = now, after / (degree + 1 - m)
    order = [(degree, m) for degree in range(l_max + 1) for m in range(-degree, degree + 1)]
    return torch.stack([rows[key] for key in order], dim=-1)


def _double_factorial(n: int) -> float:
    return float(math.prod(range(n, 0, -2)))


def _norm(degree: int, m: int) -> float:
    ratio = math.factorial(degree - m) / math.factorial(degree + m)
    return math.sqrt((2 * degree + 1) * (2.0 if m > 0 else 1.0) * ratio)
