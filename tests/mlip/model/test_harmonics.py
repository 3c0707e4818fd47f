import pytest
import torch
from e3nn import o3

from ase_neuralxc.errors import InvalidInputError
from mlip.model.edge_harmonics import EdgeHarmonics
from mlip.model.harmonics import degree_slice, degrees, n_components, solid_harmonics
from mlip.model.sphere_grid import product_grid, sphere_grid


@pytest.mark.parametrize("l_max", [0, 1, 3, 8])
def test_equal_to_e3nn(l_max):
    vectors = torch.randn(20, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    theirs = o3.spherical_harmonics(
        list(range(l_max + 1)), vectors, normalize=False, normalization="component"
    )
    ours = solid_harmonics(vectors, l_max)
    assert ours.shape == (20, n_components(l_max))
    torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-11 * theirs.abs().max())


def test_smooth_at_the_origin():
    origin = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: solid_harmonics(v, 3), origin)
    assert torch.autograd.gradgradcheck(lambda v: solid_harmonics(v, 3), origin)


@pytest.mark.parametrize("l_max", [1, 3, 5])
def test_derivatives_of_edge_harmonics(l_max):
    harmonics = EdgeHarmonics(l_max).double()
    vectors = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = solid_harmonics(vectors, l_max)
    torch.testing.assert_close(harmonics(vectors), expected, rtol=1e-12, atol=1e-12)
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(harmonics, vectors)
    assert torch.autograd.gradgradcheck(harmonics, vectors)


def test_degrees_and_slices_agree():
    index = degrees(4)
    for degree in range(5):
        assert (index[degree_slice(degree)] == degree).all()


@pytest.mark.parametrize("make", [sphere_grid, product_grid])
@pytest.mark.parametrize("degree", [0, 2, 9, 14, 25])
def test_grid_is_exact_to_its_degree(make, degree):
    grid = make(degree)
    assert grid.degree >= degree
    # Y_l Y_l' is a polynomial of degree l + l'
    l_max = degree // 2
    overlap = grid.projection(l_max) @ grid.values(l_max)
    torch.testing.assert_close(overlap, torch.eye(n_components(l_max)).double(), atol=1e-12, rtol=0)
    # any one harmonic up to `degree` itself
    means = grid.weights @ grid.values(degree)
    assert means[1:].abs().max() < 1e-12 if degree else True


def test_product_grid_replaces_lebedev_above_its_last_order():
    grid = sphere_grid(132)
    assert len(grid.points) == 67 * 133
    assert grid.weights.min() > 0


@pytest.mark.parametrize(
    "call", [lambda: solid_harmonics(torch.zeros(3), -1), lambda: sphere_grid(-1)]
)
def test_negative_degrees_are_refused(call):
    with pytest.raises(InvalidInputError, match=r"expected .*>= 0, got -1"):
        call()


def test_vectors_need_three_components():
    with pytest.raises(InvalidInputError, match=r"vectors: expected shape \[..., 3\], got \[2\]"):
        solid_harmonics(torch.zeros(2), 1)
