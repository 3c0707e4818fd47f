"""Random elements of O(3) and what they do to features."""

import torch
from e3nn import o3

from mlip.model.sphere_grid import sphere_grid

#: Rounding of a chain of products of order-one numbers.
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4}
DTYPES = [torch.float64, torch.float32]


def random_rotation(dtype, improper, seed=0):
    """[3, 3] orthogonal matrix of determinant -1 if improper, else 1."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    rotation = rotation * torch.sign(torch.linalg.det(rotation))
    return (-rotation if improper else rotation).to(dtype)


def representation(rotation, l_max, pseudo=False):
    """[(l_max + 1)^2, same] matrix on features of parity (-1)^l, or its opposite if pseudo.

    Made of e3nn's harmonics, Y(R r) = D Y(r); its own matrices hold single-precision constants.
    """
    grid = sphere_grid(2 * l_max)
    turned = o3.spherical_harmonics(
        list(range(l_max + 1)),
        grid.points @ rotation.double().T,
        normalize=True,
        normalization="component",
    )
    matrix = (grid.projection(l_max) @ turned).T
    if pseudo:
        matrix = matrix * torch.linalg.det(rotation.double())
    return matrix.to(rotation.dtype)


def act(matrix, feature):
    """Transform [components, n, channels]."""
    return torch.einsum("ab,bnc->anc", matrix, feature)
