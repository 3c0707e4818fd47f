"""Commands for surface reactions: reaction paths and adsorption."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ase import Atoms

from ase_neuralxc.cli.files import (
    calculator_for,
    check_writable,
    describe,
    emit,
    progress_bar,
    read_structure,
    write_structures,
)
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.workflows import NEBResult, UnconvergedWarning
from ase_neuralxc.workflows import adsorption as adsorb_species
from ase_neuralxc.workflows import neb as find_path

OK = 0
UNCONVERGED = 1


def _maker(
    arguments: argparse.Namespace, atoms: Atoms, refused: Sequence[str]
) -> Callable[[], Any]:
    """A function that makes calculators, one per structure."""
    for name in refused:
        if hasattr(arguments, name):
            raise InvalidInputError(
                f"{name}: expected no such option for {arguments.command!r}, which computes "
                f"several structures, got {getattr(arguments, name)!r}"
            )
    return lambda: calculator_for(arguments, atoms)


def neb(arguments: argparse.Namespace) -> int:
    """`neuralxc neb`: path between two minima, barriers, saddle."""
    initial = read_structure(arguments.structure, arguments.index)
    final = read_structure(arguments.final, arguments.index)
    for path in (arguments.out, arguments.plot):
        check_writable(path)
    with progress_bar(arguments, "step") as progress, warnings.catch_warnings():
        # The table and the exit code say it.
        warnings.simplefilter("ignore", UnconvergedWarning)
        result = find_path(
            initial,
            final,
            _maker(arguments, initial, ("txt", "label")),
            progress,
            **{
                name: getattr(arguments, name)
                for name in (
                    "n_images",
                    "guess",
                    "climb",
                    "fmax",
                    "steps",
                    "optimizer",
                    "relax_ends",
                    "refine",
                    "verify",
                    "keep_order",
                    "directory",
                )
            },
        )
    if arguments.out is not None:
        write_structures(arguments.out, result.images)
    if arguments.plot is not None:
        result.plot(arguments.plot)
    emit(arguments, _path_summary(result), result.table())
    doubtful = arguments.verify and result.saddle is not None and not result.saddle.verified
    return OK if result.converged and not doubtful else UNCONVERGED


def _path_summary(result: NEBResult) -> dict[str, Any]:
    """A path for JSON output."""
    summary: dict[str, Any] = {
        "energies": result.energies,
        "path": result.fit.path,
        "barrier": result.barrier,
        "reverse_barrier": result.reverse_barrier,
        "reaction_energy": result.reaction_energy,
        "converged": result.converged,
        "n_steps": result.n_steps,
        "intermediates": result.intermediates,
        "saddle": None,
    }
    if (saddle := result.saddle) is not None:
        summary["saddle"] = {
            **describe(saddle.atoms),
            "method": saddle.method,
            "energy": saddle.energy,
            "fmax": saddle.fmax,
            "verified": saddle.verified,
            "imaginary_cm1": None if saddle.modes is None else saddle.imaginary,
        }
    return summary


def adsorb(arguments: argparse.Namespace) -> int:
    """`neuralxc adsorb`: adsorption structures and energies."""
    slab = read_structure(arguments.structure, arguments.index)
    adsorbate = arguments.adsorbate
    if Path(adsorbate).is_file():
        adsorbate = read_structure(adsorbate, "-1")
    for path in (arguments.out, arguments.plot):
        check_writable(path)
    make = _maker(arguments, slab, ("txt", "label", "charge", "multiplicity", "magmoms"))
    with progress_bar(arguments, "placement") as progress, warnings.catch_warnings():
        warnings.simplefilter("ignore", UnconvergedWarning)
        result = adsorb_species(
            slab,
            adsorbate,
            make,
            progress=progress,
            reference=arguments.gas,
            **{
                name: getattr(arguments, name)
                for name in (
                    "sites",
                    "tilts",
                    "azimuths",
                    "n_random",
                    "rattle",
                    "seed",
                    "relax_slab",
                    "fmax",
                    "steps",
                    "optimizer",
                    "directory",
                )
            },
        )
    ranked = result.ranked
    if arguments.out is not None and ranked:
        write_structures(arguments.out, [entry.atoms for entry in ranked])
    if arguments.plot is not None and ranked:
        result.plot(arguments.plot)
    summary = {
        "reference": result.reference,
        "coverage": result.coverage,
        "outcomes": result.outcomes,
        "structures": [
            {
                **describe(entry.atoms),
                "site": entry.site,
                "origin": entry.origin,
                "adsorption_energy": entry.energy,
            }
            for entry in ranked
        ],
    }
    emit(arguments, summary, result.table())
    done = all(entry.converged for entry in result.entries)
    return OK if done and ranked else UNCONVERGED
