"""Adsorption structures and energies: place, relax, sort out, rank, refine."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows.adsorption_reference import (
    boxed,
    known_gas,
    reference_energy,
    reference_species,
)
from ase_neuralxc.workflows.adsorption_result import AdsorptionEntry, AdsorptionResult
from ase_neuralxc.workflows.batch import RelaxMany
from ase_neuralxc.workflows.cache import calculation_identity, claim_directory
from ase_neuralxc.workflows.common import (
    Progress,
    calculator_maker,
    max_force,
    require_positive,
    resolve_settings,
)
from ase_neuralxc.workflows.outcome import (
    ADSORBED,
    FAILED,
    Surface,
    classify,
    duplicates,
    nearest_site,
)
from ase_neuralxc.workflows.placements import (
    Placement,
    as_adsorbate,
    orientations,
    random_placements,
    site_placements,
)
from ase_neuralxc.workflows.relax import UnconvergedWarning
from ase_neuralxc.workflows.relaxations import (
    FAILURES,
    Relaxer,
    computed,
    require_same_level,
)
from ase_neuralxc.workflows.sites import coverage

__all__ = ["AdsorptionEntry", "AdsorptionResult", "AdsorptionSettings", "adsorption"]


@dataclass(frozen=True)
class AdsorptionSettings:
    """Where to place, how to relax, what counts as the same.

    Attributes:
        sites: beginnings of the names of sites ("top", "hollow-3", "bridge CuCu"); None means all.
        anchors: atoms of the adsorbate that point to the slab; None: all but hydrogen.
        tilts: angles in degrees of the adsorbate against the normal.
        azimuths: angles about the normal at each site.
        n_random: placements anywhere, in any orientation.
        rattle: standard deviation in Angstrom of random shifts of the adsorbate's atoms: without
            any, a start of high symmetry stays one, and may end on a saddle (a bridge, say).
        seed: of random placements and shifts.
        scale: of the sums of covalent radii at which an adsorbate touches the slab.
        relax_slab: relax the clean slab first.
        fmax: largest force at convergence in eV/Angstrom.
        steps: largest number of steps of a relaxation.
        optimizer: name in `ase.optimize`.
        reference: gas-phase species (names of `ase.collections.g2`) and their coefficients, which
            must add up to the adsorbate: {"H2": 0.5} for H. None: the adsorbate itself.
        gas_vacuum: space around a gas-phase species in Angstrom.
        n_best: distinct structures that get a single point of the second calculator.
        moved: a slab atom that moves further than this in Angstrom is a reconstruction.
        tolerance: largest distance in Angstrom between atoms of equivalent structures ...
        energy_tolerance: ... and largest difference of their energies in eV.
        symprec: tolerance of the slab's symmetry in Angstrom.
        directory: relaxed structures; a run that was killed continues from it. None keeps none.
    """

    sites: Sequence[str] | None = None
    anchors: Sequence[int] | None = None
    tilts: Sequence[float] = (0.0,)
    azimuths: int = 1
    n_random: int = 0
    rattle: float = 0.0
    seed: int = 0
    scale: float = 1.0
    relax_slab: bool = True
    fmax: float = 0.05
    steps: int = 300
    optimizer: str = "BFGS"
    reference: Mapping[str, float] | None = None
    gas_vacuum: float = 10.0
    n_best: int = 5
    moved: float = 1.2
    tolerance: float = 0.3
    energy_tolerance: float = 0.02
    symprec: float = 0.05
    directory: str | Path | None = None

    def __post_init__(self) -> None:
        for name in (
            "scale",
            "fmax",
            "gas_vacuum",
            "moved",
            "tolerance",
            "energy_tolerance",
            "symprec",
        ):
            require_positive(name, getattr(self, name))
        if not 0 <= self.rattle < 1:
            raise InvalidInputError(f"rattle: expected 0 to 1 A, got {self.rattle!r}")
        for name, least in (("azimuths", 1), ("n_random", 0), ("steps", 0), ("n_best", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidInputError(f"{name}: expected an integer >= {least}, got {value!r}")


def adsorption(
    slab: Atoms,
    adsorbate: str | Atoms,
    calc: Any | None = None,
    *,
    single_point: Any | None = None,
    relax_many: RelaxMany | None = None,
    gas: Mapping[str, Atoms] | None = None,
    progress: Progress | None = None,
    **keywords: Any,
) -> AdsorptionResult:
    """Find how a species adsorbs on a slab, and how strongly.

    Every reference energy is computed here, with the calculator of the slab, unless `gas` has it:
    mixing in an energy from elsewhere is the usual way to a wrong adsorption energy.

    Args:
        slab: clean slab, periodic along its first two cell vectors, upper side of interest up;
            its constraints and initial moments are kept; it is not changed.
        adsorbate: a structure, a symbol ("O") or a name in `ase.collections.g2` ("CO"). Initial
            moments hold for the gas phase only.
        calc: an ASE calculator, or a function that makes one for each structure; None uses the one
            attached to `slab`.
        single_point: a second calculator, or a function that makes one: energies of the `n_best`
            structures, of the slab and of the gas at the geometries of the first.
        relax_many: relaxes all placements in one call, as a batched potential can
            (`batch_relaxer(potential.evaluate)`); it must be the same potential as `calc`.
        gas: species of the reference with energies that were computed before, by name: labels for
            a potential that was trained on slabs alone. They must be of the level of theory that
            the potential was trained on.
        progress: called after each relaxation with (done, total, message).
        **keywords: fields of `AdsorptionSettings`.

    Returns:
        All placements with what became of them; `ranked` lists the distinct adsorbed ones.

    Raises:
        InvalidInputError: not a slab, an unknown adsorbate, site or setting, a reference that does
            not add up to the adsorbate, a gas without energy or not in the reference, energies of
            different levels of theory, or a directory of another calculation.
    """
    settings = resolve_settings(AdsorptionSettings, keywords)
    make, _ = calculator_maker(calc, slab)
    molecule = as_adsorbate(adsorbate)
    species = reference_species(molecule, settings.reference)
    known = known_gas(gas or {}, species)
    directory = None if settings.directory is None else Path(settings.directory)
    if directory is not None:
        claim_directory(directory, _identity(slab, molecule, make(), settings))
    relaxer = Relaxer(
        make, settings.fmax, settings.steps, settings.optimizer, directory, relax_many
    )
    if settings.relax_slab:
        clean = relaxer.reference(slab, "slab")
    else:
        clean = relaxer.one(slab, "slab-as-given", steps=0)
    species_energies = {
        name: known[name]
        if name in known
        else relaxer.reference(boxed(atoms, slab, settings.gas_vacuum), name)
        for name, (atoms, _) in species.items()
    }
    reference = {name: coefficient for name, (_, coefficient) in species.items()}
    base = reference_energy(clean, species_energies, reference)
    surface = Surface.of(clean, settings.symprec)
    placements = _placements(surface, molecule, settings)
    finished = relaxer.all(
        [placement.atoms for placement in placements],
        [placement.origin for placement in placements],
        progress,
    )
    entries = _entries(placements, finished, surface, molecule, base, settings)
    if single_point is not None:
        entries = _refined(
            entries, clean, species_energies, reference, single_point, settings.n_best
        )
    if left := sum(not entry.converged for entry in entries if not entry.reason):
        warnings.warn(
            f"{left} of {len(entries)} relaxations on {slab.get_chemical_formula()} not converged",
            UnconvergedWarning,
            stacklevel=2,
        )
    return AdsorptionResult(
        tuple(entries), clean, species_energies, reference, coverage(clean), settings
    )


def _identity(slab: Atoms, molecule: Atoms, calc: Any, settings: AdsorptionSettings) -> dict:
    """What relaxed structures in a directory depend on; placements are told apart by content."""
    return calculation_identity(
        slab,
        calc,
        adsorbate=[molecule.numbers.tolist(), molecule.positions.tolist()],
        fmax=settings.fmax,
        gas_vacuum=settings.gas_vacuum,
    )


def _placements(surface: Surface, molecule: Atoms, settings: AdsorptionSettings) -> list[Placement]:
    """All structures to relax."""
    clean, sites = surface.clean, surface.sites
    if settings.sites is not None:
        wanted = tuple(settings.sites)
        chosen = [site for site in sites if site.name.startswith(wanted)]
        if not chosen and wanted:
            raise InvalidInputError(
                f"sites: expected beginnings of {sorted({s.name for s in sites})}, got "
                f"{list(wanted)}"
            )
        sites = chosen
    turned = orientations(molecule, settings.anchors, settings.tilts, settings.azimuths)
    made = site_placements(clean, sites, turned, settings.scale)
    made += random_placements(clean, molecule, settings.n_random, settings.seed, settings.scale)
    if not made:
        raise InvalidInputError("sites: expected at least one site or n_random > 0, got none")
    if settings.rattle:
        rng = np.random.default_rng((settings.seed, 1))
        for placement in made:
            shifts = rng.normal(scale=settings.rattle, size=(len(molecule), 3))
            placement.atoms.positions[len(clean) :] += shifts
    return made


def _entries(
    placements: Sequence[Placement],
    finished: Sequence[Atoms | str],
    surface: Surface,
    molecule: Atoms,
    base: float,
    settings: AdsorptionSettings,
) -> list[AdsorptionEntry]:
    """Entries with outcome, site and, for those adsorbed, what they repeat."""
    entries = []
    for placement, atoms in zip(placements, finished, strict=True):
        start, origin = placement.atoms, placement.origin
        if isinstance(atoms, str):
            entries.append(AdsorptionEntry(start, origin, "", FAILED, None, False, reason=atoms))
            continue
        require_same_level(surface.clean, atoms)
        outcome = classify(atoms, surface.clean, molecule, settings.moved)
        where = nearest_site(atoms, surface) if outcome == ADSORBED else ""
        energy = float(atoms.get_potential_energy()) - base
        converged = max_force(atoms.get_forces()) < settings.fmax
        entries.append(AdsorptionEntry(atoms, origin, where, outcome, energy, converged))
    ranked = [k for k, e in enumerate(entries) if e.outcome == ADSORBED and e.converged]
    repeats = duplicates(
        [entries[k].atoms for k in ranked],
        surface,
        settings.tolerance,
        settings.energy_tolerance,
    )
    for k, other in zip(ranked, repeats, strict=True):
        if other is not None:
            entries[k] = replace(entries[k], duplicate_of=ranked[other])
    return entries


def _refined(
    entries: Sequence[AdsorptionEntry],
    clean: Atoms,
    gas: Mapping[str, Atoms],
    reference: Mapping[str, float],
    single_point: Any,
    n_best: int,
) -> list[AdsorptionEntry]:
    """Adsorption energies of a second calculator for the strongest entries."""
    make, _ = calculator_maker(single_point, clean)
    bare = computed(clean, make())
    species = {name: computed(atoms, make()) for name, atoms in gas.items()}
    base = reference_energy(bare, species, reference)
    distinct = [(entry.energy, k) for k, entry in enumerate(entries) if entry.distinct]
    refined = list(entries)
    for _, k in sorted(distinct)[:n_best]:
        try:
            atoms = computed(entries[k].atoms, make())
        except FAILURES as error:
            refined[k] = replace(entries[k], reason=f"{type(error).__name__}: {error}")
            continue
        require_same_level(bare, atoms)
        refined[k] = replace(entries[k], refined=float(atoms.get_potential_energy()) - base)
    return refined
