"""A homogeneous electric field, H = H0 - mu . F, as an energy term."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ElectricField:
    """Interaction of electrons and nuclei with a homogeneous field; origin at the coordinates'.

    Attributes:
        field: three components in atomic units (Hartree / (e Bohr)).
    """

    field: tuple[float, float, float]
    name: str = "electric field"

    def energy(self, mol: Any, density_matrix: NDArray) -> float:
        """-mu . F in Hartree, with the dipole of electrons and nuclei."""
        operator = self.ao_operator(mol, density_matrix)
        electrons = np.einsum("ij,ji->", operator, _total(density_matrix))
        nuclei = -np.einsum("a,ax,x->", mol.atom_charges(), mol.atom_coords(), self.field)
        return float(electrons + nuclei)

    def ao_operator(self, mol: Any, density_matrix: NDArray) -> NDArray:
        """+r . F between atomic orbitals, [nao, nao] (electrons have charge -1)."""
        with mol.with_common_origin((0, 0, 0)):
            return np.einsum("x,xij->ij", np.asarray(self.field), mol.intor_symmetric("int1e_r"))

    def forces(self, mol: Any, density_matrix: NDArray) -> NDArray:
        """Explicit forces, [n_atoms, 3] in Hartree/Bohr."""
        forces = mol.atom_charges()[:, None] * np.asarray(self.field)[None]
        with mol.with_common_origin((0, 0, 0)):
            # <i| r_x |nabla_y j>; the derivative with respect to the centre of j is minus nabla
            integrals = mol.intor("int1e_irp", comp=9).reshape(3, 3, mol.nao, mol.nao)
        density = _total(density_matrix)
        moved = np.einsum("x,xyij->yij", np.asarray(self.field), integrals)
        for atom, (_, _, start, stop) in enumerate(mol.aoslice_by_atom()):
            block = moved[:, :, start:stop]
            forces[atom] += 2 * np.einsum("yij,ij->y", block, density[:, start:stop])
        return forces


def _total(density_matrix: NDArray) -> NDArray:
    return density_matrix if density_matrix.ndim == 2 else density_matrix.sum(axis=0)
