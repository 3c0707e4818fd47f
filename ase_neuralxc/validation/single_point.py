"""The self-consistent energy of a species: the task that `scripts/benchmark_xc.py` runs."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from pyscf.dft.gen_grid import Grids

from ase_neuralxc.backend.libxc import LibxcFunctional, find_functional
from ase_neuralxc.backend.molecular import first_order
from ase_neuralxc.backend.settings import KSSettings, check_grid_level
from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.fidelity import convergence_record
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.records.canonical import digest
from ase_neuralxc.training.precompute import check_grids
from ase_neuralxc.training.reactions import Species
from ase_neuralxc.training.solve import solve_species

#: Version of what is computed and stored; part of the identity of a folder.
_VERSION = 1


@dataclass(frozen=True)
class SinglePointSettings:
    """How the energies of species are computed; every functional alike.

    Attributes:
        basis: basis set.
        density_fit: expand the density in an auxiliary basis.
        scf_grid_level: grid of the SCF. A coarser one than `grid_level` moves energies by
            microhartree (see `training.precompute`) and makes the SCF three times faster.
        grid_level: grid of the energy.
        conv_tol: of the SCF, in Hartree; its square root for the orbital gradient.
        max_cycle: cycles of each strategy of the SCF.
    """

    basis: str = "def2-tzvpp"
    density_fit: bool = True
    scf_grid_level: int = 1
    grid_level: int = 3
    conv_tol: float = 1e-7
    max_cycle: int = 50

    def __post_init__(self) -> None:
        for name in ("scf_grid_level", "grid_level"):
            check_grid_level(name, getattr(self, name))

    def identity(self, functional: Any) -> str:
        """What a folder of energies depends on: settings, weights of the functional, version.

        Args:
            functional: of torch or libxc.

        Returns:
            A line of text.
        """
        weights = functional_hash(functional) if hasattr(functional, "state_dict") else ""
        content = {**asdict(self), "xc": functional.name, "weights": weights}
        return f"energies {_VERSION} {functional.name}/{self.basis} {digest(content)}"


class SinglePointTask:
    """The task function: SCF, energy on the fine grid. Travels as its settings.

    Args:
        xc: functional as `find_functional` takes it: a name, a path, one of libxc.
        settings: of the calculations.
    """

    def __init__(self, xc: str | LibxcFunctional, settings: SinglePointSettings) -> None:
        self.xc, self.settings = xc, settings
        self._functional: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        return SinglePointTask, (self.xc, self.settings)

    def __call__(self, species: Species, attempt: int = 0) -> dict[str, Any]:
        """Compute one species.

        Args:
            species: what to compute.
            attempt: number of failed attempts before; later ones get three times the cycles, on
                the fine grid.

        Returns:
            JSON values: "energy" in Hartree, without dispersion; "dipole" in e*Bohr; "levels",
            the highest occupied and lowest empty orbital energy in Hartree; "scf", how it
            converged; "seconds".

        Raises:
            NeuralXCError: the SCF did not converge, or its grid is too coarse.
        """
        start = time.perf_counter()
        if self._functional is None:
            self._functional = find_functional(self.xc)
        settings = self.settings
        level = settings.grid_level if attempt else settings.scf_grid_level
        solution = solve_species(
            species,
            self._functional,
            KSSettings(
                basis=settings.basis,
                density_fit=settings.density_fit,
                grid_level=level,
                conv_tol=settings.conv_tol,
                max_cycle=settings.max_cycle * (3 if attempt else 1),
            ),
        )
        energy = solution.energy
        if level != settings.grid_level:
            energy = energy_on_grid(solution, settings.grid_level)
            xc = solution.energies["xc"]
            check_grids(species, xc, xc + energy - solution.energy)
        mf = first_order(solution.host)
        dipole = mf.dip_moment(mf.mol, solution.density_matrix, "AU", verbose=0)
        return {
            "name": species.name,
            "energy": energy,
            "dipole": np.asarray(dipole).tolist(),
            "levels": _frontier_levels(solution),
            "scf": {**convergence_record(solution), "task_attempt": attempt},
            "n_basis_functions": solution.sizes["n_basis_functions"],
            "seconds": time.perf_counter() - start,
        }


def energy_on_grid(solution: KSSolution, level: int) -> float:
    """Energy of a converged density on another grid.

    Args:
        solution: a converged molecule, with its host object.
        level: PySCF's level of the grid.

    Returns:
        Total energy in Hartree.
    """
    mf = first_order(solution.host).copy()
    mf._numint = mf._numint.copy()  # keeps orbitals on the grid
    grids = Grids(mf.mol)
    grids.level = level
    mf.grids = grids.build(with_non0tab=True)
    return float(mf.energy_tot(mf.make_rdm1(solution.mo_coeff, solution.mo_occ)))


def _frontier_levels(solution: KSSolution) -> list[float | None]:
    levels = np.atleast_2d(solution.mo_energy)
    occupied = np.broadcast_to(np.atleast_2d(solution.mo_occ) > 0, levels.shape)
    empty = levels[~occupied]
    return [float(levels[occupied].max()), float(empty.min()) if empty.size else None]
