"""Derivatives by functional parameters: adjoint = unrolled SCF = finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from numerical import central_difference
from systems import aminyl, as_system, water
from unrolled import UnrolledSCF

from ase_neuralxc.backend.molecular import MolecularBackend, first_order
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import NeuralSemilocal
from ase_neuralxc.functional.moments import MomentFunctional
from ase_neuralxc.response.adjoint import differentiable
from ase_neuralxc.response.parameters import energy_gradient
from ase_neuralxc.terms.field import ElectricField

BACKEND = MolecularBackend()
#: Breaks the degeneracy of pi orbitals, at which derivatives of eigenvectors do not exist.
FIELD = ElectricField((0.0, 0.004, 0.01))
CASES = {
    "H2": (Atoms("H2", [(0, 0, 0), (0, 0, 0.8)]), {}, "rks", 0.0),
    "H2O": (water(), {}, "rks", 0.0),
    "O2": (molecule("O2"), {"n_unpaired": 2}, "uks", 0.0),
    "H2O-hybrid": (water(), {}, "rks", 0.25),
    "NH2-roks": (aminyl(), {"n_unpaired": 1}, "roks", 0.0),
}


def functional(fraction=0.0):
    return NeuralSemilocal(
        width=6, depth=1, seed=3, dtype="float64", exchange_fraction=fraction, head_scale=0.5
    )


def nonlocal_functional():
    """Moments of the density around atoms, with weights that are not those of the start."""
    xc = MomentFunctional(dtype="float64")
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in xc.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return xc


def solve(xc, name, guess=None):
    atoms, state, reference, _ = CASES[name]
    settings = KSSettings(
        basis="6-31g" if name == "H2" else "sto-3g", reference=reference, grid_level=0,
        conv_tol=1e-11, conv_tol_grad=1e-10, stability="never",
    )  # fmt: skip
    return BACKEND.solve(as_system(atoms, **state), xc, settings, (FIELD,), guess)


def losses(density, levels, dipole, closed):
    """Scalar losses that see the density, the dipole, a gap, and several of them at once."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(density.shape[-1], density.shape[-1], generator=generator).double()
    total = density if closed else density.sum(0)
    gap = levels.reshape(-1, levels.shape[-1])[0]
    return {
        "dipole": (dipole * torch.tensor([1.0, -2.0, 3.0]).double()).sum() + (dipole**2).sum(),
        "density": (weight * total).sum() + 0.1 * (total**2).sum(),
        "gap": gap[5] - gap[2] if gap.numel() > 5 else gap[1] - gap[0],
    }


def directional(xc, direction, name, loss_name):
    """Derivative of a loss along a direction of the parameters, by finite differences."""
    parameters = list(xc.parameters())
    start = [p.detach().clone() for p in parameters]
    guess = solve(xc, name).density_matrix

    def value(step):
        with torch.no_grad():
            for p, p0, d in zip(parameters, start, direction, strict=True):
                p.copy_(p0 + step * d)
        solution = solve(xc, name, guess)
        if loss_name == "energy":
            return solution.energy
        out = differentiable(solution, xc)
        closed = solution.reference == "rks"
        levels = torch.from_numpy(np.array(solution.mo_energy))
        return float(losses(out.density_matrix, levels, out.dipole, closed)[loss_name].detach())

    slope = central_difference(value, 2e-3)
    with torch.no_grad():
        for p, p0 in zip(parameters, start, strict=True):
            p.copy_(p0)
    return slope


#: The rest of the cases takes minutes.
FAST = ("H2", "H2O")


def marked(names, fast):
    return [n if n in fast else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", marked(CASES, FAST))
@pytest.mark.parametrize("loss_name", ["energy", "dipole", "density", "gap"])
def test_adjoint_equals_finite_differences(name, loss_name):
    xc = functional(CASES[name][3])
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in xc.parameters()]
    solution = solve(xc, name)
    out = differentiable(solution, xc)
    closed = solution.reference == "rks"
    value = (
        out.energy
        if loss_name == "energy"
        else losses(out.density_matrix, out.orbital_energies, out.dipole, closed)[loss_name]
    )
    if loss_name == "gap" and solution.reference == "roks":
        with pytest.raises(InvalidInputError, match=r"orbital_energies: .* got 'roks'"):
            value.backward()
        return
    value.backward()
    found = sum(float((p.grad * d).sum()) for p, d in zip(xc.parameters(), direction, strict=True))
    expected = directional(xc, direction, name, loss_name)
    assert abs(expected) > 1e-4
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-7)


@pytest.mark.parametrize("loss_name", ["dipole", "gap"])
def test_adjoint_of_a_nonlocal_functional_equals_finite_differences(loss_name):
    xc = nonlocal_functional()
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in xc.parameters()]
    out = differentiable(solve(xc, "H2"), xc)
    losses(out.density_matrix, out.orbital_energies, out.dipole, True)[loss_name].backward()
    found = sum(float((p.grad * d).sum()) for p, d in zip(xc.parameters(), direction, strict=True))
    expected = directional(xc, direction, "H2", loss_name)
    assert abs(expected) > 1e-4
    assert found == pytest.approx(expected, rel=2e-5, abs=2e-7)


@pytest.mark.parametrize("name", marked(["H2", "H2O", "O2", "H2O-hybrid"], FAST[:1]))
def test_adjoint_equals_the_unrolled_scf(name):
    xc = functional(CASES[name][3])
    solution = solve(xc, name)
    mf = first_order(solution.host)
    mol, closed = mf.mol, solution.reference == "rks"
    core = mf.get_hcore() + FIELD.ao_operator(mol, solution.density_matrix)
    oracle = UnrolledSCF(mol, mf.grids, xc, mol.nelec, core)
    start = torch.from_numpy(np.array(solution.density_matrix))
    start = torch.stack([0.5 * start] * 2) if closed else start
    _, density, levels = oracle.run(start)
    out = differentiable(solution, xc)
    np.testing.assert_allclose(density.detach().sum(0), start.sum(0), rtol=0, atol=1e-7)
    with mol.with_common_origin((0, 0, 0)):
        operator = torch.from_numpy(mol.intor("int1e_r"))
    dipole = torch.from_numpy(mol.atom_charges() @ mol.atom_coords()) - torch.einsum(
        "xij,sji->x", operator, density
    )
    parameters = list(xc.parameters())
    level = levels[0] if closed else levels
    theirs = losses(density.sum(0) if closed else density, level, dipole, closed)
    ours = losses(out.density_matrix, out.orbital_energies, out.dipole, closed)
    for key, value in theirs.items():
        expected = torch.autograd.grad(value, parameters, retain_graph=True)
        found = torch.autograd.grad(ours[key], parameters, retain_graph=True)
        scale = max(float(g.abs().max()) for g in expected)
        assert scale > 1e-4
        for a, b in zip(found, expected, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5 * scale, rtol=1e-5)


def test_energy_gradient_needs_no_response_and_counts_every_point():
    xc = functional()
    solution = solve(xc, "H2O")
    explicit = energy_gradient(solution, xc)
    out = differentiable(solution, xc)
    out.energy.backward()
    for p, g in zip(xc.parameters(), explicit, strict=True):
        assert float(g.abs().max()) > 0
        torch.testing.assert_close(p.grad, g)


@pytest.mark.parametrize(
    ("atoms", "state"), [(water(), {}), (aminyl(), {"n_unpaired": 1})], ids=["rks", "uks"]
)
def test_response_on_a_coarser_grid_changes_a_derivative_by_percents(atoms, state):
    xc = functional()
    settings = KSSettings(
        basis="6-31g", grid_level=3, conv_tol=1e-10, conv_tol_grad=1e-7, stability="never"
    )
    solution = BACKEND.solve(as_system(atoms, **state), xc, settings)

    def derivative(level):
        out = differentiable(solution, xc, 1e-7, level)
        loss = (out.dipole**2).sum() + (out.density_matrix**2).sum()
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(xc.parameters()))])

    exact, same, coarse = (derivative(level) for level in (None, 3, 0))
    torch.testing.assert_close(same, exact, rtol=1e-6, atol=1e-6 * float(exact.abs().max()))
    off = float((coarse - exact).norm() / exact.norm())
    assert 1e-6 < off < 0.03
    assert solution.host.grids.level == 3


def test_a_grid_that_does_not_exist_is_refused():
    solution = solve(xc := functional(), "H2")
    with pytest.raises(InvalidInputError, match=r"response_level: expected .*, got 12"):
        differentiable(solution, xc, response_level=12)


def test_spherical_atom_with_zero_modes_has_a_derivative():
    # 2p^4: turning the hole costs nothing, so that the orbital Hessian is singular
    xc = functional()
    settings = KSSettings(basis="6-31g", conv_tol=1e-12, conv_tol_grad=1e-7, stability="never")
    solution = BACKEND.solve(as_system(Atoms("O"), n_unpaired=2), xc, settings)
    out = differentiable(solution, xc)
    mol = solution.host.mol
    extent = torch.from_numpy(mol.intor("int1e_r2"))
    (extent * out.density_matrix.sum(0)).sum().backward()
    found = float(xc.correlation_net.biases[-1].grad[0])
    start = xc.correlation_net.biases[-1].detach().clone()

    def value(step):
        with torch.no_grad():
            xc.correlation_net.biases[-1][0] = start[0] + step
        moved = BACKEND.solve(
            as_system(Atoms("O"), n_unpaired=2), xc, settings, guess=solution.density_matrix
        )
        return float(np.einsum("ij,sji->", mol.intor("int1e_r2"), moved.density_matrix))

    expected = central_difference(value, 5e-3)
    assert abs(expected) > 1e-4
    assert found == pytest.approx(expected, rel=1e-3)
