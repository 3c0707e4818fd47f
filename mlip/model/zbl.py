"""Screened nuclear repulsion of Ziegler, Biersack and Littmark (1985), for atoms that collide.

Training data rarely hold distances at which nuclei repel; without a bound from physics a potential
extrapolates there, and dynamics at high temperature can fall into the hole it leaves.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from ase.data import covalent_radii
from torch import Tensor, nn

from mlip.model.radial import cutoff

#: e^2 / (4 pi eps0) in eV Angstrom (CODATA 2018) and the Bohr radius in Angstrom.
COULOMB, BOHR = 14.399645478425668, 0.529177210903
_COEFFICIENTS = (0.18175, 0.50986, 0.28022, 0.02817)
_EXPONENTS = (3.1998, 0.94229, 0.4029, 0.20162)


class ZBL(nn.Module):
    """Pair repulsion that vanishes with two derivatives at the sum of the covalent radii.

    Args:
        elements: atomic numbers the model knows; only their order matters.
    """

    numbers: Tensor
    radii: Tensor

    def __init__(self, elements: Sequence[int]) -> None:
        super().__init__()
        numbers = torch.tensor(list(elements), dtype=torch.get_default_dtype())
        radii = torch.tensor([covalent_radii[z] for z in elements], dtype=numbers.dtype)
        self.register_buffer("numbers", numbers, persistent=False)
        self.register_buffer("radii", radii, persistent=False)

    def forward(
        self, distances: Tensor, sender: Tensor, receiver: Tensor, species: Tensor
    ) -> Tensor:
        """Energies of the atoms.

        Args:
            distances: [e] in Angstrom.
            sender: [e] atoms.
            receiver: [e] atoms.
            species: [n] index of each atom's element.

        Returns:
            [n] in eV; each pair is shared equally.
        """
        kinds = [species.index_select(0, atoms) for atoms in (sender, receiver)]
        z1, z2 = (self.numbers.index_select(0, kind) for kind in kinds)
        r1, r2 = (self.radii.index_select(0, kind) for kind in kinds)
        reduced = distances * (z1**0.23 + z2**0.23) / (0.88534 * BOHR)
        screening = torch.zeros_like(reduced)
        for coefficient, exponent in zip(_COEFFICIENTS, _EXPONENTS, strict=True):
            screening = screening + coefficient * torch.exp(-exponent * reduced)
        pair = COULOMB * z1 * z2 / distances * screening * cutoff(distances / (r1 + r2))
        return torch.zeros_like(species, dtype=pair.dtype).index_add(0, receiver, 0.5 * pair)
