"""GPAW's self-consistent field: strategies in order, and calculations that continue others."""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ase_neuralxc.backend.gpaw.density import pack_density, unpack_density
from ase_neuralxc.backend.gpaw.settings import GPAWSettings
from ase_neuralxc.backend.gpaw.structure import Structure
from ase_neuralxc.backend.gpaw.xc import Stages, load_gpaw
from ase_neuralxc.backend.solution import SCFAttempt
from ase_neuralxc.errors import InvalidInputError, SCFNotConverged
from ase_neuralxc.records import units


@dataclass(frozen=True)
class GPAWStrategy:
    """One way to run GPAW's self-consistent field.

    Attributes:
        name: name in the history.
        mixer: GPAW's description of the density mixer.
        eigensolver: GPAW's description of the eigensolver.
    """

    name: str
    mixer: Mapping[str, Any] = field(default_factory=dict)
    eigensolver: Mapping[str, Any] = field(default_factory=dict)


#: GPAW's default (multisecant mixing) first, with a larger first step than its own 0.05, from which
#: the second is extrapolated too far; then Pulay mixing with smaller steps and a heavier weight of
#: long waves, against charge sloshing, and a more thorough eigensolver.
LADDER = (
    GPAWStrategy("msr1", {"name": "msr1", "beta": 0.2}),
    GPAWStrategy("pulay", {"name": "pulay", "beta": 0.05, "nmaxold": 8, "weight": 50.0}),
    GPAWStrategy(
        "slow",
        {"name": "pulay", "beta": 0.02, "nmaxold": 12, "weight": 100.0},
        {"name": "davidson", "niter": 4},
    ),
)


#: Change of the density (electrons per electron) from which a magnet is converged with the
#: functional itself, instead of the base that stands in for it before.
NEAR = 1e-2

#: Iterations of the orbitals alone, before a density from elsewhere may change.
ORBITAL_STEPS = 4


@dataclass
class GPAWRun:
    """A converged calculation, the `host` of a solution; a later one may take it over.

    Attributes:
        dft: GPAW's `DFT`, or None once another calculation has taken it over.
        structure: what it solved.
        settings: how.
        functional: with which functional.
        parameters: GPAW's parameters.
        terms: energy terms that were added.
    """

    dft: Any
    structure: Structure
    settings: GPAWSettings
    functional: Any
    parameters: dict[str, Any] = field(repr=False)
    terms: tuple[Any, ...] = ()

    def active(self) -> Any:
        """GPAW's object.

        Returns:
            The `DFT` of this structure.

        Raises:
            InvalidInputError: it has moved on to another structure.
        """
        if self.dft is None:
            raise InvalidInputError(
                "solution: its GPAW calculation has been continued for another structure; solve "
                "again before asking for derivatives"
            )
        return self.dft

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray:
        """The density as one array, which another calculation takes as its start."""
        return np.asarray(pack_density(self.active().density), dtype=dtype)


def solve_structure(
    structure: Structure,
    settings: GPAWSettings,
    functional: Any,
    xc: Any,
    previous: GPAWRun | NDArray | None = None,
    ladder: Sequence[GPAWStrategy] = LADDER,
) -> tuple[GPAWRun, tuple[SCFAttempt, ...]]:
    """Converge the density.

    Args:
        structure: what to solve.
        settings: cutoff, tolerances.
        functional: the functional, to be recognised by a later calculation.
        xc: the functional as GPAW takes it.
        previous: a calculation to continue where that is possible (it loses its GPAW object), or
            a packed density.
        ladder: strategies, cheapest first.

    Returns:
        The calculation and the history.

    Raises:
        InvalidInputError: no PAW data for an element, or atoms that GPAW finds too close.
        SCFNotConverged: no strategy converged, with the history.
    """
    gpaw = load_gpaw()
    history: list[SCFAttempt] = []
    with _quiet():
        if previous is not None:
            parameters = _parameters(structure, settings, xc, ladder[0])
            if isinstance(previous, GPAWRun):
                dft = _continued(gpaw, previous, structure, settings, functional, parameters)
            else:
                dft = _with_density(_fresh(gpaw, structure, parameters), previous)
            if dft is not None and _converge(gpaw, dft, "continued", history):
                return GPAWRun(dft, structure, settings, functional, parameters), tuple(history)
        for strategy in ladder:
            parameters = _parameters(structure, settings, xc, strategy)
            dft = _fresh(gpaw, structure, parameters)
            # learned functionals can be nearly indifferent to a moment, with minima along it: the
            # base leads to a low one, in fewer and cheaper cycles. Should it not get there, the
            # strategies after the first do without
            magnet = structure.reference == "uks" and strategy is ladder[0]
            stages = getattr(xc, "evaluate", None) if magnet else None
            if _converge(gpaw, dft, strategy.name, history, stages):
                return GPAWRun(dft, structure, settings, functional, parameters), tuple(history)
    tried = "; ".join(f"{a.strategy}: {a.cycles} cycles, E = {a.energy:.6f} Ha" for a in history)
    raise SCFNotConverged(f"the SCF did not converge with any strategy ({tried})", history)


def _parameters(
    structure: Structure, settings: GPAWSettings, xc: Any, strategy: GPAWStrategy
) -> dict[str, Any]:
    """GPAW's parameters by name."""
    gpaw = load_gpaw()
    occupations: dict[str, Any] = {"name": "fermi-dirac", "width": settings.smearing or 0.0}
    if structure.fixed_moment:
        occupations["fixmagmom"] = True
    parameters: dict[str, Any] = {
        "mode": {"name": "pw", "ecut": settings.ecut},
        "xc": xc,
        "kpts": structure.kpoints.scaled,
        "charge": float(structure.system.spin_state.charge),
        "occupations": occupations,
        "spinpol": structure.reference == "uks",
        "setups": settings.setups if isinstance(settings.setups, str) else dict(settings.setups),
        "convergence": {
            "energy": gpaw.Energy(settings.conv_tol * units.HARTREE_EV, relative=False),
            "density": settings.conv_tol_density,
            "eigenstates": settings.conv_tol_eigenstates,
        },
        "maxiter": settings.max_cycle,
        "mixer": dict(strategy.mixer),
        "eigensolver": dict(strategy.eigensolver),
        "nbands": settings.nbands,
        "parallel": {"gpu": False},
    }
    if not settings.symmetry:
        parameters["symmetry"] = "off"
    if settings.dipole_layer and structure.system.periodic:
        parameters["poissonsolver"] = {"dipolelayer": True}
    return parameters


def _fresh(gpaw: ModuleType, structure: Structure, parameters: Mapping[str, Any]) -> Any:
    """A calculation that starts from superposed atoms."""
    log = quiet_log(gpaw)
    try:
        return gpaw.DFT.from_parameters(
            structure.atoms, gpaw.Parameters(**parameters), log.comm, log, converge=False
        )
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"setups: expected PAW data of {parameters['setups']!r} for each of "
            f"{sorted(set(structure.system.symbols))}, but GPAW found none: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    except gpaw.AtomsTooClose as error:
        raise InvalidInputError(f"positions: refused by GPAW: {error}") from error


def _continued(
    gpaw: ModuleType,
    previous: GPAWRun,
    structure: Structure,
    settings: GPAWSettings,
    functional: Any,
    parameters: Mapping[str, Any],
) -> Any:
    """Take over the density and what else fits of a calculation; None where little does."""
    old, new = previous.structure, structure
    same = (
        previous.dft is not None
        and previous.functional == functional
        and previous.settings == settings
        and np.array_equal(old.system.numbers, new.system.numbers)
        and old.system.pbc == new.system.pbc
        and (old.reference, old.fixed_moment) == (new.reference, new.fixed_moment)
        and old.system.spin_state == new.system.spin_state
        and old.kpoints == new.kpoints
    )
    if not same:
        return None
    dft, previous.dft = previous.dft, None
    try:
        if not np.array_equal(old.atoms.cell, new.atoms.cell):
            return _strained(gpaw, dft, new, parameters)
        # asked first: GPAW finds a broken symmetry when half of its objects have moved already
        dft.ibzwfs.ibz.symmetries.check_positions(new.atoms.get_scaled_positions())
        return dft.move_atoms(new.atoms)
    except gpaw.ReuseWaveFunctionsError:
        return None
    except gpaw.SymmetryBrokenError:
        return _with_density(_fresh(gpaw, new, parameters), pack_density(dft.density))
    except gpaw.AtomsTooClose as error:
        raise InvalidInputError(f"positions: refused by GPAW: {error}") from error


def _strained(gpaw: ModuleType, dft: Any, new: Structure, parameters: Mapping[str, Any]) -> Any:
    """Carry orbitals and density to another cell, or None where the grid changes its size."""
    tau, volume = dft.density.taut_sR, dft.density.nt_sR.desc.volume
    out = dft.new(new.atoms, gpaw.Parameters(**parameters), dft.log)
    if tau is None:
        return out
    # GPAW starts from tau = 0, far from any solution; that of the old cell scales with its density
    if out.density.taut_sR.data.shape != tau.data.shape:
        return None
    out.density.taut_sR.data[:] = tau.data * (volume / out.density.nt_sR.desc.volume) ** (5 / 3)
    out.potential, out.energies, _ = out.pot_calc.calculate(out.density, out.ibzwfs)
    return out


def _with_density(fresh: Any, packed: NDArray) -> Any:
    """Start from a packed density instead of superposed atoms, if it fits."""
    if unpack_density(fresh.density, packed, fresh.pot_calc.charge):
        fresh.potential, fresh.energies, _ = fresh.pot_calc.calculate(fresh.density, fresh.ibzwfs)
        # a density made of the first, rough orbitals would be worse than the one that was given
        fresh.scf_loop.update_density_and_potential = False
        fresh.converge(steps=ORBITAL_STEPS)
        fresh.scf_loop.update_density_and_potential = True
    return fresh


def _approach(dft: Any, stages: Stages) -> int:
    """Cycles with the functional that stands in until the density is near, and their number."""
    stages.far = True
    try:
        dft.potential, dft.energies, _ = dft.pot_calc.calculate(dft.density, dft.ibzwfs)
        for context in dft.iconverge():
            if context.dens.error < NEAR * context.wfs.nvalence:
                break
    finally:
        stages.far = False
    dft.potential, dft.energies, _ = dft.pot_calc.calculate(dft.density, dft.ibzwfs)
    return int(dft.scf_loop.niter)


def _converge(
    gpaw: ModuleType, dft: Any, strategy: str, history: list[SCFAttempt], stages: Any = None
) -> bool:
    """Run the SCF, put the attempt on record, and tell whether it converged."""
    start, last, converged, before = time.perf_counter(), None, True, 0
    try:
        if isinstance(stages, Stages):
            before = _approach(dft, stages)
        for context in dft.iconverge():
            last = context
    except (gpaw.KohnShamConvergenceError, np.linalg.LinAlgError):
        converged = False
    except ValueError as error:
        if "NaN" not in str(error):
            raise
        converged = False
    residual = np.inf if last is None else last.wfs.eigensolver.error
    history.append(
        SCFAttempt(
            strategy=strategy,
            converged=converged,
            cycles=before + int(dft.scf_loop.niter),
            energy=float("nan") if last is None else float(last.energies.total_extrapolated),
            gradient_norm=float(np.sqrt(residual)),
            seconds=time.perf_counter() - start,
        )
    )
    return converged


def quiet_log(gpaw: ModuleType) -> Any:
    """A log of GPAW that goes nowhere."""
    return gpaw.Logger(_Silence(), None)


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        # it is told how many threads there are, not asked
        warnings.filterwarnings("ignore", message="Using OMP_NUM_THREADS>1")
        # libxc's Fermi-hole bound on sigma cannot be switched off in distributions' builds
        warnings.filterwarnings("ignore", message="libxc should be compiled with --disable-fhc")
        yield


class _Silence(io.TextIOBase):
    """A stream for GPAW's log that keeps nothing and holds no file."""

    def write(self, text: str) -> int:
        return len(text)
