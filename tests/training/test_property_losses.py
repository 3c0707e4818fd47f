"""Losses of density, dipole and forces: values from the host, gradients from differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from numerical import central_difference
from pyscf import cc, dft, scf
from systems import as_system, water

from ase_neuralxc.backend.molecular import MolecularBackend, first_order
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import NeuralSemilocal
from ase_neuralxc.response.adjoint import differentiable
from ase_neuralxc.training.property_losses import (
    DensityReference,
    density_loss,
    differentiable_forces,
    dipole_loss,
    force_loss,
)

BACKEND = MolecularBackend()
SYSTEMS = {
    "H2O": as_system(water()),
    "BeH": as_system(Atoms("BeH", [(0, 0, 0), (0.1, 0.0, 1.4)]), n_unpaired=1),
    "HF": as_system(Atoms("HF", [(0, 0, 0), (0.1, 0.0, 0.95)])),
}


def solve(xc, name, guess=None):
    settings = KSSettings(
        basis="sto-3g", grid_level=0, conv_tol=1e-11, conv_tol_grad=1e-10, stability="never"
    )
    return BACKEND.solve(SYSTEMS[name], xc, settings, guess=guess)


def functional():
    return NeuralSemilocal(width=6, depth=1, seed=3, dtype="float64", head_scale=0.5)


def gradients(xc, name, loss):
    """Derivative of a loss of the solution along a direction: by autograd, by differences."""
    parameters = list(xc.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    solution = solve(xc, name)
    loss(solution).backward()
    found = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    start = [p.detach().clone() for p in parameters]

    def value(step):
        with torch.no_grad():
            for p, p0, d in zip(parameters, start, direction, strict=True):
                p.copy_(p0 + step * d)
        return float(loss(solve(xc, name, solution.density_matrix)).detach())

    return found, central_difference(value, 2e-3)


@pytest.mark.parametrize("name", ["H2O", "BeH"])
def test_density_loss(name):
    xc = functional()
    solution = solve(xc, name)
    mol, grids = first_order(solution.host).mol, first_order(solution.host).grids
    mf = (scf.RHF if name == "H2O" else scf.UHF)(mol).run()
    correlated = cc.CCSD(mf).run()
    matrix = np.asarray(correlated.make_rdm1(ao_repr=True))
    reference = DensityReference.from_matrix(solution, matrix)
    value = float(density_loss(differentiable(solution, xc), reference).detach())

    def on_grid(matrices):
        # spin densities: half of a closed shell's total
        stack = np.stack([0.5 * matrices] * 2) if matrices.ndim == 2 else matrices
        return np.stack([dft.numint.eval_rho(mol, ao, one) for one in stack])

    ao = dft.numint.eval_ao(mol, grids.coords)
    n, m = on_grid(solution.density_matrix), on_grid(matrix)
    ratio = np.where(n + m > 1e-12, (n - m) ** 2 / np.maximum(n + m, 1e-12), 0.0)
    electrons = (m @ grids.weights).sum()
    assert electrons == pytest.approx(mol.nelectron, rel=1e-3)
    assert value == pytest.approx((ratio @ grids.weights).sum() / electrons, rel=1e-6)
    assert 1e-5 < value < 0.1
    # symmetric, zero for itself, and the same through points of any origin
    own = DensityReference.from_matrix(solution, solution.density_matrix)
    assert float(density_loss(differentiable(solution, xc), own).detach()) < 1e-20
    points = DensityReference.on_grid(mol, grids.coords, grids.weights, reference.density.numpy())
    again = float(density_loss(differentiable(solution, xc), points).detach())
    assert again == pytest.approx(value, rel=1e-12)

    found, expected = gradients(
        xc, name, lambda s: 1e3 * density_loss(differentiable(s, xc), reference)
    )
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=2e-5)


def test_dipole_loss():
    xc = functional()
    wanted = [0.1, -0.2, 0.9]
    solution = solve(xc, "H2O")
    dipole = solution.host.dip_moment(unit="AU", verbose=0)
    value = float(dipole_loss(differentiable(solution, xc), wanted).detach())
    assert value == pytest.approx(((dipole - wanted) ** 2).sum(), rel=1e-8)
    found, expected = gradients(xc, "H2O", lambda s: dipole_loss(differentiable(s, xc), wanted))
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=2e-5)


@pytest.mark.parametrize("name", ["HF", "BeH"])
def test_force_loss(name):
    xc = functional()
    wanted = np.linspace(-0.1, 0.1, 3 * len(SYSTEMS[name].numbers)).reshape(-1, 3)
    solution = solve(xc, name)
    forces = BACKEND.forces(solution)
    assert np.abs(forces).max() > 1e-2
    value = float(force_loss(differentiable_forces(solution, xc, BACKEND), wanted).detach())
    assert value == pytest.approx(((forces - wanted) ** 2).mean(), rel=1e-12)

    def loss(s):
        return force_loss(differentiable_forces(s, xc, BACKEND), wanted)

    found, expected = gradients(xc, name, loss)
    assert abs(expected) > 1e-5
    assert found == pytest.approx(expected, rel=2e-3)


def test_forces_that_do_not_enter_the_loss_cost_nothing():
    xc = functional()
    forces = differentiable_forces(solve(xc, "HF"), xc, OnlyForces())
    (0.0 * forces).sum().backward()
    assert all(float(p.grad.abs().max()) == 0.0 for p in xc.parameters())


class OnlyForces:
    """Has forces, but cannot solve."""

    def forces(self, solution):
        return BACKEND.forces(solution)


def test_a_density_of_another_shape_is_refused():
    weights, orbitals = torch.ones(4), torch.ones(4, 2)
    with pytest.raises(InvalidInputError, match=r"density: expected \[1, 4\] or .* got \[3, 4\]"):
        DensityReference(orbitals, weights, torch.ones(3, 4))
