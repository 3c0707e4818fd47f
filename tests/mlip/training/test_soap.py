"""SOAP sees neither the basis of a matrix nor its neighbours in a stack."""

import copy

import pytest
import torch
from torch import nn

from ase_neuralxc.errors import InvalidInputError
from mlip.training.soap import SOAP


def losses_of(seed, start, left=None, right=None):
    """Loss of a noisy regression as a function of the step and of a matrix [4, 4]."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(40, 16, 4, dtype=torch.float64, generator=generator)
    targets = torch.randn(40, 16, 4, dtype=torch.float64, generator=generator)
    scales = torch.logspace(0, -2, 4, dtype=torch.float64)
    left = torch.eye(4, dtype=torch.float64) if left is None else left
    right = torch.eye(4, dtype=torch.float64) if right is None else right

    def loss(step, weight):
        return (inputs[step] * scales @ left.T @ weight @ right - targets[step]).square().mean()

    return loss, (left @ start @ right.T)


def trained(loss, start, steps=40, **options):
    weight = nn.Parameter(start.clone())
    optimizer = SOAP([weight], lr=0.02, **options)
    for step in range(steps):
        optimizer.zero_grad()
        loss(step, weight).backward()
        optimizer.step()
    return weight.detach()


@pytest.fixture
def start():
    return torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def test_a_turned_problem_has_the_turned_solution(start):
    generator = torch.Generator().manual_seed(5)
    # square: else the null space of the first gradient has no basis of its own
    left, right = torch.linalg.qr(torch.randn(2, 4, 4, dtype=torch.float64, generator=generator))[0]
    plain = trained(*losses_of(1, start), frequency=5)
    turned = trained(*losses_of(1, start, left, right), frequency=5)
    assert (plain - start).abs().max() > 0.1
    torch.testing.assert_close(left.T @ turned @ right, plain, rtol=0.0, atol=1e-8)
    # which AdamW, the same without a basis, is not
    plain, turned = (
        trained(*losses_of(1, start, *turns), max_dim=1) for turns in ((), (left, right))
    )
    assert (left.T @ turned @ right - plain).abs().max() > 1e-3


def test_matrices_of_a_stack_do_not_feel_each_other(start):
    problems = [losses_of(seed, start + seed) for seed in (1, 2)]
    alone = torch.stack([trained(*problem) for problem in problems])

    def both(step, weight):
        return sum(loss(step, w) for (loss, _), w in zip(problems, weight, strict=True))

    torch.testing.assert_close(trained(both, torch.stack([s for _, s in problems])), alone)


@pytest.mark.parametrize(("shape", "options"), [((5,), {}), ((6, 4), {"max_dim": 3})])
def test_without_a_basis_it_is_adamw_one_step_later(shape, options):
    gradients = torch.randn(12, *shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = (nn.Parameter(torch.ones(shape)) for _ in range(2))
    common = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.01}
    first, second = SOAP([ours], **common, **options), torch.optim.AdamW([theirs], **common)
    for number, gradient in enumerate(gradients):
        ours.grad = gradient.clone()
        first.step()
        if number == 0:
            torch.testing.assert_close(ours.detach(), torch.ones(shape))
            continue
        theirs.grad = gradient.clone()
        second.step()
    torch.testing.assert_close(ours.detach(), theirs.detach())


def test_a_stored_state_continues_to_the_same_weights(start):
    loss, _ = losses_of(1, start)
    weight = nn.Parameter(start.clone())
    optimizer = SOAP([weight], lr=0.02, frequency=3)
    for step in range(20):
        if step == 10:
            state = copy.deepcopy(optimizer.state_dict())
            weight = nn.Parameter(weight.detach().clone())
            optimizer = SOAP([weight], lr=0.5)
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        loss(step, weight).backward()
        optimizer.step()
    assert torch.equal(weight.detach(), trained(loss, start, steps=20, frequency=3))


def test_a_closure_is_called_and_a_frequency_of_nothing_refused(start):
    weight = nn.Parameter(start.clone())
    optimizer = SOAP([weight])
    assert optimizer.step(lambda: 3.5) == 3.5
    torch.testing.assert_close(weight.detach(), start)
    with pytest.raises(InvalidInputError, match="frequency: expected at least 1, got 0"):
        SOAP([weight], frequency=0)
