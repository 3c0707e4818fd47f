"""The network's derivatives of all orders against torch's own differentiation."""

import pytest
import torch

from ase_neuralxc.functional.network import AnchoredNetwork
from ase_neuralxc.functional.perceptron import hessian, perceptron


def network(inputs=4, depth=2, dtype="float64", width=9):
    generator = torch.Generator().manual_seed(depth)
    return AnchoredNetwork(inputs, width, depth, dtype, generator, 0.5)


def points(n, inputs=4):
    generator = torch.Generator().manual_seed(n)
    return torch.randn(n, inputs, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 2e-5)])
@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("inputs", [2, 4, 7])
def test_hessians_of_all_blocks(dtype, tolerance, depth, inputs):
    net, x = network(inputs, depth, dtype), points(2500, inputs)
    weights, biases = ([p.detach().double() for p in group] for group in (net.weights, net.biases))
    one = torch.func.hessian(lambda row: perceptron(weights, biases, row[None])[0])
    expected = torch.func.vmap(one)(x)
    found = hessian(tuple(net.weights), tuple(net.biases), x)
    assert torch.equal(found, found.mT)
    assert float(expected.abs().max()) > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=tolerance)


def test_first_and_second_derivatives_by_inputs_and_weights():
    net, x = network(width=5), points(4).requires_grad_()

    def value(inputs, *parameters):
        return net(inputs)

    arguments = (x, *net.parameters())
    assert torch.autograd.gradcheck(value, arguments)
    assert torch.autograd.gradgradcheck(value, arguments)


def test_third_derivatives():
    net, x = network(width=5), points(4).requires_grad_()

    def curvature(inputs, *parameters):
        (slope,) = torch.autograd.grad(net(inputs).sum(), inputs, create_graph=True)
        (found,) = torch.autograd.grad((slope**2).sum(), inputs, create_graph=True)
        return found

    assert torch.autograd.gradcheck(curvature, (x, *net.parameters()))


def test_frozen_weights_leave_the_derivatives_by_inputs():
    net, x = network(), points(4).requires_grad_()
    (free,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (expected,) = torch.autograd.grad((free**2).sum(), x)
    net.requires_grad_(False)
    (slope,) = torch.autograd.grad(net(x).sum(), x, create_graph=True)
    (found,) = torch.autograd.grad((slope**2).sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
