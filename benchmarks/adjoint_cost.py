"""The adjoint of a loss of density and dipole against the SCF that it differentiates.

Both start from nothing but the molecule and the converged solution: the SCF from its guess with
all integrals, the adjoint with the set-up of the orbital Hessian, the solution of the Z-vector
equations and the derivative with respect to all weights of the network. "coarse" solves the adjoint
equations on a coarser grid, and says by how much that changes the derivative.
"""

from __future__ import annotations

from dataclasses import dataclass

from ase.build import molecule
from common import compare, interleave, one_thread, save


@dataclass(frozen=True)
class Case:
    molecule: str
    basis: str
    n_unpaired: int
    repeats: int
    density_fit: bool


@dataclass(frozen=True)
class Protocol:
    cases: tuple[Case, ...] = (
        Case("H2O", "def2-svp", 0, repeats=3, density_fit=True),
        Case("H2O", "def2-tzvp", 0, repeats=2, density_fit=True),
        Case("CH3", "def2-svp", 1, repeats=2, density_fit=True),
        Case("O2", "def2-svp", 2, repeats=2, density_fit=True),
        Case("CH3CH2OH", "def2-svp", 0, repeats=1, density_fit=True),
    )
    grid_level: int = 3
    conv_tol: float = 1e-9
    conv_tol_grad: float = 1e-6
    adjoint_tolerance: float = 1e-5
    coarse_level: int = 1
    width: int = 64
    depth: int = 3
    seed: int = 0
    target: float = 0.5


def main() -> None:
    one_thread()
    import torch

    from ase_neuralxc.backend.molecular import MolecularBackend
    from ase_neuralxc.backend.settings import KSSettings
    from ase_neuralxc.backend.system import System
    from ase_neuralxc.functional.neural import NeuralSemilocal
    from ase_neuralxc.records import SpinState
    from ase_neuralxc.response.adjoint import differentiable
    from ase_neuralxc.response.orbital_hessian import OrbitalHessian

    protocol = Protocol()
    backend = MolecularBackend()
    functional = NeuralSemilocal(width=protocol.width, depth=protocol.depth, seed=protocol.seed)
    results = []
    for case in protocol.cases:
        atoms = molecule(case.molecule)
        system = System(atoms.numbers, atoms.positions, SpinState(n_unpaired=case.n_unpaired))
        settings = KSSettings(
            basis=case.basis, density_fit=case.density_fit, grid_level=protocol.grid_level,
            conv_tol=protocol.conv_tol, conv_tol_grad=protocol.conv_tol_grad, stability="never",
        )  # fmt: skip
        solution = backend.solve(system, functional, settings)
        products: list[int] = []
        original = OrbitalHessian.solve

        def counted(self, *arguments, products=products, original=original, **keywords):
            found = original(self, *arguments, **keywords)
            products.append(self.products)
            return found

        def scf(system=system, settings=settings):
            return {"cycles": backend.solve(system, functional, settings).cycles}

        gradients: dict[str, torch.Tensor] = {}

        def adjoint(
            name="adjoint", level=None, solution=solution, products=products, gradients=gradients
        ):
            out = differentiable(solution, functional, protocol.adjoint_tolerance, level)
            weight = torch.linspace(-1.0, 1.0, out.density_matrix.shape[-1], dtype=torch.float64)
            loss = (out.dipole**2).sum() + (weight * out.density_matrix**2).sum()
            functional.zero_grad()
            loss.backward()
            parts = [p.grad.flatten() for p in functional.parameters() if p.grad is not None]
            gradients[name] = torch.cat(parts).double()
            return {"products": products[-1]}

        OrbitalHessian.solve = counted
        runs = {
            "scf": scf,
            "adjoint": adjoint,
            "coarse": lambda adjoint=adjoint: adjoint("coarse", protocol.coarse_level),
        }
        try:
            timings = interleave(runs, case.repeats)
        finally:
            OrbitalHessian.solve = original
        fit = "density fit" if case.density_fit else "exact Coulomb"
        results.append(
            {
                "case": f"{case.molecule} {case.basis}, {solution.reference}, {fit}",
                "target": protocol.target,
                "coarse_gradient_off": float(
                    (gradients["coarse"] - gradients["adjoint"]).norm()
                    / gradients["adjoint"].norm()
                ),
                **compare(timings, "scf"),
            }
        )
    save("adjoint_cost", protocol, results)


if __name__ == "__main__":
    main()
