"""How the densities of species are computed, and what a folder of them depends on."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ase_neuralxc.backend.libxc import LibxcFunctional, find_functional
from ase_neuralxc.backend.settings import check_grid_level
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.functional import functional_hash
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.records.canonical import digest

#: Version of what is computed and stored; part of the identity of a folder.
_VERSION = 2


@dataclass(frozen=True)
class PrepareSettings:
    """How the densities of species are computed.

    Attributes:
        xc: starting functional: a name or path as `load_functional` takes it, or "libxc:NAME".
        basis: basis set.
        density_fit: expand the density in an auxiliary basis.
        scf_grid_level: grid of the SCF.
        grid_level: grid of the stored features and energies.
        conv_tol: of the SCF, in Hartree; its square root for the orbital gradient.
        max_cycle: cycles of each strategy of the SCF.
        dispersion: dispersion energies to store, "method:damping".
    """

    xc: str = "r2scan"
    basis: str = "def2-tzvpp"
    density_fit: bool = True
    scf_grid_level: int = 1
    grid_level: int = 3
    conv_tol: float = 1e-7
    max_cycle: int = 50
    dispersion: tuple[str, ...] = ("d3bj:r2scan", "d4:r2scan")

    def __post_init__(self) -> None:
        for name in ("scf_grid_level", "grid_level"):
            check_grid_level(name, getattr(self, name))

    def functional(self) -> Any:
        """The starting functional.

        Returns:
            A semi-local functional, or one of libxc.

        Raises:
            InvalidInputError: unknown, or not semi-local.
        """
        functional = find_functional(self.xc)
        if not isinstance(functional, SemilocalFunctional | LibxcFunctional):
            raise InvalidInputError(f"xc: expected a semi-local functional, got {self.xc!r}")
        return functional

    @property
    def identity(self) -> str:
        """What a folder of densities depends on: settings, weights of the functional, version."""
        functional = self.functional()
        weights = getattr(functional, "state_dict", None)
        content = {
            **asdict(self),
            "xc": functional.name,
            "weights": "" if weights is None else functional_hash(functional),
        }
        return f"densities {_VERSION} {functional.name}/{self.basis} {digest(content)}"
