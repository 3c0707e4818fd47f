"""From atoms and a spin state to a PySCF molecule, with every check before the first integral."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from ase.data import atomic_numbers, chemical_symbols
from numpy.typing import NDArray
from pyscf import gto
from pyscf.lib.exceptions import BasisNotFoundError

from ase_neuralxc.backend.collinear import NO_MOMENT, collinear_moments
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.records import SpinState, units

#: Nuclei closer than this (Angstrom) are taken for an input error; H-H bonds are 0.74.
MINIMUM_DISTANCE = 0.25


@dataclass(frozen=True)
class System:
    """A molecule, slab or crystal in a spin state.

    Attributes:
        numbers: [n] atomic numbers.
        positions: [n, 3] in Angstrom.
        spin_state: charge, unpaired electrons and initial moments (mu_B, per atom).
        cell: [3, 3] lattice vectors as rows in Angstrom, or None for a molecule without a box.
        pbc: periodic directions.
    """

    numbers: NDArray
    positions: NDArray
    spin_state: SpinState
    cell: NDArray | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)

    def __post_init__(self) -> None:
        if len(self.numbers) == 0:
            raise InvalidInputError("atoms: expected at least one atom, got an empty Atoms object")
        if not np.isfinite(self.positions).all():
            bad = np.nonzero(~np.isfinite(self.positions).all(axis=1))[0]
            raise InvalidInputError(
                f"positions: expected finite numbers, got NaN or infinity for atoms {bad.tolist()}"
            )
        if self.periodic and (self.cell is None or abs(np.linalg.det(self.cell)) < 1e-6):
            raise InvalidInputError(
                f"cell: expected three independent lattice vectors for pbc = {list(self.pbc)}, got "
                f"{None if self.cell is None else np.asarray(self.cell).tolist()}"
            )
        # [n, n] per image of the neighbouring cells; an atom counts against its own images too
        distances = np.linalg.norm(
            self.positions[:, None, None] - self.positions[None, :, None] + self._images(), axis=-1
        )
        np.fill_diagonal(distances[:, :, 0], np.inf)
        if distances.min() < MINIMUM_DISTANCE:
            i, j, _ = np.unravel_index(distances.argmin(), distances.shape)
            raise InvalidInputError(
                f"positions: atoms {i} and {j} are {distances.min():.4f} Angstrom apart; expected "
                f"at least {MINIMUM_DISTANCE}"
            )

    @property
    def periodic(self) -> bool:
        """Whether any direction is periodic."""
        return any(self.pbc)

    def _images(self) -> NDArray:
        """Translations to the nearest cells, [m, 3] in Angstrom, the zero vector first."""
        steps = [(0, 1, -1) if periodic else (0,) for periodic in self.pbc]
        shifts = np.array(list(itertools.product(*steps)), dtype=float)
        return shifts @ (np.zeros((3, 3)) if self.cell is None else np.asarray(self.cell))

    @property
    def symbols(self) -> list[str]:
        """Chemical symbols, in the order of the atoms."""
        return [chemical_symbols[z] for z in self.numbers]


def resolve_spin(system: System) -> System:
    """Fill in the number of unpaired electrons where it was left open, and check its parity.

    Without a multiplicity it is the rounded sum of the initial moments, or else 0 or 1 by parity.
    A negative sum is turned over: the energy does not depend on the sign of all moments.

    Args:
        system: atoms and spin state.

    Returns:
        The same atoms with `n_unpaired` set.

    Raises:
        InvalidInputError: the electron count cannot have that many unpaired electrons.
    """
    state = system.spin_state
    electrons = int(system.numbers.sum()) - state.charge
    if electrons < 1:
        raise InvalidInputError(
            f"charge: {state.charge} leaves {electrons} electrons; expected at least 1"
        )
    moments = collinear_moments(state, len(system.numbers))
    if moments is not None and moments.sum() < 0:
        moments = -moments
    unpaired = state.n_unpaired
    if unpaired is None:
        if moments is not None and np.abs(moments).max() > NO_MOMENT:
            unpaired = round(float(moments.sum()))
            if (electrons - unpaired) % 2:
                # the nearest total with the right parity: 2.3 of two iron atoms means 4, not 5
                unpaired += 1 if moments.sum() > unpaired or unpaired == 0 else -1
        else:
            unpaired = electrons % 2
    if unpaired < 0 or unpaired > electrons or (electrons - unpaired) % 2:
        raise InvalidInputError(
            f"multiplicity: {unpaired + 1} is impossible with {electrons} electrons (charge "
            f"{state.charge}); expected an {'odd' if electrons % 2 == 0 else 'even'} number up to "
            f"{electrons + 1}"
        )
    magmoms = None if moments is None else tuple(float(m) for m in moments)
    return replace(system, spin_state=replace(state, n_unpaired=int(unpaired), magmoms=magmoms))


def resolve_reference(system: System, settings: KSSettings) -> str:
    """Choose "rks", "uks" or "roks" for a system whose spin is resolved."""
    state = system.spin_state
    moments = state.magmoms is not None and np.abs(state.magmoms).max() > 1e-8
    if settings.reference == "auto":
        return "uks" if state.n_unpaired or moments else "rks"
    if settings.reference == "rks" and state.n_unpaired:
        raise InvalidInputError(
            f"reference: 'rks' needs a closed shell, got {state.n_unpaired} unpaired electrons; "
            "use 'uks' or 'roks'"
        )
    return settings.reference


def build_mole(system: System, settings: KSSettings) -> gto.Mole:
    """Build the molecule: resolved spin, checked basis, core potentials where the basis has them.

    Args:
        system: its spin must be resolved (`resolve_spin`).
        settings: basis, core potentials, memory.

    Returns:
        The molecule, built.

    Raises:
        InvalidInputError: a basis or a core potential is missing for an element, or a basis made
            for a core potential is asked for without it.
    """
    elements = sorted(set(system.symbols), key=lambda s: atomic_numbers[s])
    basis = {e: for_element("basis", settings.basis, e) for e in elements}
    ecp = {}
    for element in elements:
        _check_basis(element, basis[element])
        potential = _core_potential(element, basis[element], settings.ecp)
        if potential is not None:
            ecp[element] = potential
    mol = gto.Mole()
    mol.atom = list(zip(system.symbols, system.positions / units.BOHR_ANGSTROM, strict=True))
    mol.unit = "Bohr"
    mol.basis = basis
    mol.ecp = ecp
    mol.charge = system.spin_state.charge
    mol.spin = system.spin_state.n_unpaired
    mol.verbose = 0
    mol.max_memory = settings.max_memory
    mol.build(parse_arg=False, dump_input=False)
    return mol


def for_element(argument: str, value: str | Mapping[str, str], element: str) -> str:
    """Entry of an element: one name for all, or a mapping with an optional "default"."""
    if isinstance(value, str):
        return value
    if element in value:
        return value[element]
    if "default" in value:
        return value["default"]
    raise InvalidInputError(
        f"{argument}: expected an entry for {element} (or 'default'), got {dict(value)}"
    )


def _check_basis(element: str, name: str) -> None:
    try:
        with warnings.catch_warnings():  # PySCF advertises a package when it finds nothing
            warnings.simplefilter("ignore")
            gto.basis.load(name, element)
    except (BasisNotFoundError, RuntimeError, KeyError) as error:
        raise InvalidInputError(
            f"basis: expected a basis that has {element}, got {name!r} which has none"
        ) from error


def _core_potential(
    element: str, basis: str, requested: str | Mapping[str, str] | None
) -> str | None:
    """Name of the core potential of an element, or None for all-electron."""
    belongs = _has_ecp(basis, element)
    if requested is None or requested == "none":
        if belongs:
            raise InvalidInputError(
                f"ecp: basis {basis!r} is made for a core potential on {element}, got ecp=None; "
                "use ecp='auto' or an all-electron basis"
            )
        return None
    if requested == "auto":
        return basis if belongs else None
    if not isinstance(requested, str) and element not in requested:
        return basis if belongs else None
    name = requested if isinstance(requested, str) else requested[element]
    if not _has_ecp(name, element):
        if isinstance(requested, str) and not belongs:
            return None  # one name for all elements: light ones simply have no core potential
        raise InvalidInputError(
            f"ecp: expected a core potential that has {element}, got {name!r} which has none"
        )
    return name


def _has_ecp(name: str, element: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bool(gto.basis.load_ecp(name, element))
    except (BasisNotFoundError, RuntimeError, KeyError):  # RuntimeError: not even a name
        return False
