"""Contract of the tensor products: O(3) equivariance, equality with e3nn's Clebsch-Gordan path."""

import pytest
import torch
from e3nn import o3
from mlip_equivariance import DTYPES, TOLERANCE, act, random_rotation, representation

from ase_neuralxc.errors import InvalidInputError
from mlip.model.convolution import GauntConvolution
from mlip.model.fourier import FourierGauntProduct
from mlip.model.gaunt import CurlProduct, GauntProduct, ManyBodyProduct, gaunt_tensor
from mlip.model.harmonics import degree_slice, n_components, solid_harmonics

CHANNELS, ATOMS = 3, 5


def feature(l_max, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    shape = (n_components(l_max), ATOMS, CHANNELS)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def randomised(module, dtype):
    """The module with random weights, so that no degree or channel is like another."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module.to(dtype)


CASES = {
    "two": (lambda: GauntProduct((3, 2), 3, CHANNELS), (3, 2), 3, False),
    "two, rank 3": (lambda: GauntProduct((2, 2), 4, CHANNELS, rank=3), (2, 2), 4, False),
    "three": (lambda: GauntProduct((2, 1, 2), 2, CHANNELS), (2, 1, 2), 2, False),
    "many-body": (lambda: ManyBodyProduct(3, 2, CHANNELS, order=3, rank=2), (3,), 2, False),
    "curl": (lambda: CurlProduct((3, 2), 3, CHANNELS, rank=2), (3, 2), 3, True),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_equivariant_under_o3(case, improper, dtype):
    make, l_in, l_out, pseudo = CASES[case]
    product = randomised(make(), dtype)
    features = [feature(l_max, seed, dtype) for seed, l_max in enumerate(l_in)]
    rotation = random_rotation(dtype, improper)
    turned = product(
        *(act(representation(rotation, f), x) for f, x in zip(l_in, features, strict=True))
    )
    expected = act(representation(rotation, l_out, pseudo), product(*features))
    assert expected.abs().max() > 0.1
    scale = float(expected.detach().abs().max())
    torch.testing.assert_close(turned, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("degrees", [(0, 0, 0), (1, 1, 2), (2, 1, 3), (2, 2, 2), (3, 3, 4)])
def test_gaunt_coefficients_are_multiples_of_clebsch_gordan(degrees):
    ours, theirs = gaunt_tensor(*degrees), o3.wigner_3j(*degrees, dtype=torch.float64)
    factor = (ours * theirs).sum()  # the 3j tensor of e3nn has norm one
    assert factor.abs() > 0.1
    torch.testing.assert_close(ours, factor * theirs, rtol=0, atol=1e-12)


def test_odd_gaunt_coefficients_vanish():
    assert gaunt_tensor(1, 1, 1).abs().max() < 1e-14


@pytest.fixture
def double_e3nn():
    """e3nn writes its constants into a product in the default precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def e3nn_product(a, b, l1, l2, l_out, path_weight, odd):
    """e3nn's tensor product of all paths, one channel after the other ("uuu")."""
    irreps1 = o3.Irreps([(CHANNELS, (degree, (-1) ** degree)) for degree in range(l1 + 1)])
    irreps2 = o3.Irreps([(CHANNELS, (degree, (-1) ** degree)) for degree in range(l2 + 1)])
    sign = -1 if odd else 1
    out = o3.Irreps([(CHANNELS, (degree, sign * (-1) ** degree)) for degree in range(l_out + 1)])
    paths = [
        (i, j, k, "uuu", False, path_weight(i, j, k) ** 2 / (2 * k + 1))
        for i in range(l1 + 1)
        for j in range(l2 + 1)
        for k in range(abs(i - j), min(i + j, l_out) + 1)
        if (i + j + k) % 2 == (1 if odd else 0)
    ]
    signs = [1.0 if path_weight(i, j, k) > 0 else -1.0 for i, j, k, *_ in paths]
    product = o3.TensorProduct(
        irreps1,
        irreps2,
        out,
        [(i, j, k, mode, True, w) for i, j, k, mode, _, w in paths],
        irrep_normalization="component",
        path_normalization="none",
        internal_weights=False,
        shared_weights=True,
    )
    weights = torch.cat([torch.full((CHANNELS,), s, dtype=torch.float64) for s in signs])
    flat = product(to_e3nn(a, l1), to_e3nn(b, l2), weights)
    return from_e3nn(flat, l_out)


def to_e3nn(x, l_max):
    """[components, n, channels] to [n, channels x (2l + 1) for each degree]."""
    blocks = [x[degree_slice(degree)].permute(1, 2, 0).flatten(1) for degree in range(l_max + 1)]
    return torch.cat(blocks, dim=1)


def from_e3nn(flat, l_max):
    sizes = [CHANNELS * (2 * degree + 1) for degree in range(l_max + 1)]
    blocks = flat.split(sizes, dim=1)
    return torch.cat([b.reshape(ATOMS, CHANNELS, -1).permute(2, 0, 1) for b in blocks])


def gaunt_factor(i, j, k):
    return float((gaunt_tensor(i, j, k) * o3.wigner_3j(i, j, k, dtype=torch.float64)).sum())


@pytest.mark.parametrize(("l1", "l2", "l_out"), [(1, 1, 2), (3, 2, 3), (4, 4, 4)])
def test_equal_to_the_clebsch_gordan_path_of_e3nn(l1, l2, l_out, double_e3nn):
    a, b = feature(l1, 1), feature(l2, 2)
    ours = GauntProduct((l1, l2), l_out, CHANNELS).double()(a, b)
    theirs = e3nn_product(a, b, l1, l2, l_out, gaunt_factor, odd=False)
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=1e-11 * float(theirs.detach().abs().max())
    )


def curl_factor(i, j, k):
    """Multiple of the 3j tensor that the curl of two single degrees is."""
    index = torch.eye(n_components(max(i, j)), dtype=torch.float64)
    a = index[: n_components(i), degree_slice(i)]
    b = index[: n_components(j), degree_slice(j)]
    product = CurlProduct((i, j), k, 1).double()
    pairs = product(
        a[:, :, None].expand(-1, -1, b.shape[1]).reshape(len(a), -1, 1),
        b[:, None, :].expand(-1, a.shape[1], -1).reshape(len(b), -1, 1),
    )
    tensor = pairs[degree_slice(k)].reshape(2 * k + 1, 2 * i + 1, 2 * j + 1).permute(1, 2, 0)
    return float((tensor.detach() * o3.wigner_3j(i, j, k, dtype=torch.float64)).sum())


def test_curl_equals_the_odd_paths_of_e3nn(double_e3nn):
    l1, l2, l_out = 2, 3, 3
    a, b = feature(l1, 1), feature(l2, 2)
    ours = CurlProduct((l1, l2), l_out, CHANNELS).double()(a, b)
    theirs = e3nn_product(a, b, l1, l2, l_out, curl_factor, odd=True)
    assert theirs.abs().max() > 0.1
    torch.testing.assert_close(
        ours, theirs, rtol=0, atol=1e-11 * float(theirs.detach().abs().max())
    )


def test_curl_of_two_vectors_is_their_cross_product():
    a, b = feature(1, 1), feature(1, 2)
    out = CurlProduct((1, 1), 1, CHANNELS).double()(a, b)
    cross = torch.linalg.cross(a[1:], b[1:], dim=0)
    # components of normalisation "component" are sqrt(3) times a unit vector's
    torch.testing.assert_close(out[1:], 3**0.5 * cross, rtol=0, atol=1e-12)
    assert out[0].abs().max() < 1e-12


@pytest.mark.parametrize(("l1", "l2", "l_out"), [(1, 1, 1), (3, 2, 4), (2, 1, 5), (6, 6, 6)])
def test_fourier_form_is_the_same_product(l1, l2, l_out):
    a, b = feature(l1, 1), feature(l2, 2)
    grid = GauntProduct((l1, l2), l_out, CHANNELS).double()(a, b)
    fourier = FourierGauntProduct(l1, l2, l_out)(a, b)
    assert grid.abs().max() > 0.1
    torch.testing.assert_close(
        fourier, grid.detach(), rtol=0, atol=1e-11 * float(grid.detach().abs().max())
    )


def test_many_body_is_the_sum_of_repeated_products():
    x = feature(2, 3)
    many = ManyBodyProduct(2, 2, CHANNELS, order=3).double()
    powers = [GauntProduct((2,) * k, 2, CHANNELS).double()(*[x] * k) for k in (2, 3)]
    torch.testing.assert_close(many(x), x + sum(powers), rtol=0, atol=1e-11)


EDGES = torch.tensor([[1, 2, 0, 4, 3], [0, 0, 1, 3, 4]])


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_convolution_is_equivariant(dtype, improper):
    l_in, l_edge, l_out = 2, 3, 3
    convolution = randomised(GauntConvolution(l_in, l_edge, l_out, CHANNELS), dtype)
    x, radial = feature(l_in, 1, dtype), feature(0, 2, dtype)[0]
    vectors = torch.nn.functional.normalize(feature(0, 3, dtype)[0], dim=1)
    rotation = random_rotation(dtype, improper)

    def run(x, vectors):
        return convolution(x, solid_harmonics(vectors, l_edge), radial, EDGES)

    expected = act(representation(rotation, l_out), run(x, vectors))
    turned = run(act(representation(rotation, l_in), x), vectors @ rotation.T)
    scale = float(expected.detach().abs().max())
    assert scale > 0.1
    torch.testing.assert_close(turned, expected, rtol=0, atol=TOLERANCE[dtype] * scale)


def test_convolution_equals_the_product_on_the_grid():
    l_in, l_edge, l_out = 2, 3, 3
    convolution = randomised(GauntConvolution(l_in, l_edge, l_out, CHANNELS), torch.float64)
    product = GauntProduct((l_in, l_edge), l_out, CHANNELS).double()
    product.before[0].weights.data = convolution.before.weights.data
    product.before[1].weights.data[0] = convolution.edge.data[:, None]
    product.after.weights.data = convolution.after.weights.data
    x, radial = feature(l_in, 1), feature(0, 2)[0]
    harmonics = solid_harmonics(torch.nn.functional.normalize(feature(0, 3)[0], dim=1), l_edge)
    edges = harmonics.T[:, :, None].expand(-1, -1, CHANNELS)
    messages = product(x[:, EDGES[0]], edges) * radial
    expected = torch.zeros_like(messages).index_add(1, EDGES[1], messages)
    ours = convolution(x, harmonics, radial, EDGES)
    assert ours.abs().max() > 0.1
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-11)


def test_convolution_differentiates_twice():
    convolution = randomised(GauntConvolution(1, 2, 1, CHANNELS), torch.float64)
    x, harmonics, radial = feature(1, 1), feature(0, 2)[0].repeat(1, 3), feature(0, 3)[0]
    inputs = [x[:, :5], harmonics[:, :9], radial]
    inputs = [each.clone().requires_grad_() for each in inputs]
    assert torch.autograd.gradgradcheck(lambda *args: convolution(*args, EDGES), inputs)


def test_products_differentiate_twice():
    product = CurlProduct((1, 2), 1, CHANNELS).double()
    a, b = feature(1, 1)[:, :1].requires_grad_(), feature(2, 2)[:, :1].requires_grad_()
    assert torch.autograd.gradgradcheck(product, (a, b))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GauntProduct((2,), 2, 1), "at least two factors"),
        (lambda: GauntProduct((2, 2), 2, 1, rank=0), "rank=0"),
        (lambda: CurlProduct((2, 2, 2), 2, 1), "expected two factors"),
        (lambda: ManyBodyProduct(2, 2, 1, order=0), "got order=0"),
        (lambda: GauntProduct((1, 1), 1, 1)(feature(1, 0), feature(2, 0)), "degrees up to"),
    ],
)
def test_wrong_arguments_say_what_was_expected(make, message):
    with pytest.raises(InvalidInputError, match=message):
        make()
