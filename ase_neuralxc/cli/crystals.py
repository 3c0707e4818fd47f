"""Commands for crystals: equation of state, elastic constants, phonons."""

from __future__ import annotations

import argparse

import numpy as np

from ase_neuralxc.cli.files import (
    attach,
    check_writable,
    describe,
    emit,
    progress_bar,
    read_structure,
    write_structures,
)
from ase_neuralxc.workflows import elastic as elastic_constants
from ase_neuralxc.workflows import eos as equation_of_state
from ase_neuralxc.workflows import phonons as crystal_phonons

OK = 0
IMAGINARY_MODES = 1
UNSTABLE = 1


def eos(arguments: argparse.Namespace) -> int:
    """`neuralxc eos`: equation of state."""
    atoms = read_structure(arguments.structure, arguments.index)
    for path in (arguments.out, arguments.plot):
        check_writable(path)
    attach(arguments, atoms)
    with progress_bar(arguments, "volume") as progress:
        result = equation_of_state(
            atoms,
            progress=progress,
            points=arguments.points,
            strain=arguments.strain,
            equation=arguments.equation,
        )
    if arguments.out is not None:
        write_structures(arguments.out, [result.atoms])
    if arguments.plot is not None:
        result.plot(arguments.plot)
    summary = {
        **describe(result.atoms),
        "cell": np.array(result.atoms.cell),
        "volumes": result.volumes,
        "energies": result.energies,
        "volume": result.volume,
        "bulk_modulus": result.bulk_modulus,
    }
    emit(arguments, summary, result.table())
    return OK


def elastic(arguments: argparse.Namespace) -> int:
    """`neuralxc elastic`: elastic constants and moduli."""
    atoms = read_structure(arguments.structure, arguments.index)
    check_writable(arguments.plot)
    attach(arguments, atoms)
    with progress_bar(arguments, "strain") as progress:
        result = elastic_constants(
            atoms,
            progress=progress,
            strain=arguments.strain,
            relax_ions=not arguments.clamped,
            fmax=arguments.fmax,
            directory=arguments.directory,
        )
    if arguments.plot is not None:
        result.plot(arguments.plot)
    summary = {
        **describe(atoms),
        "stiffness_gpa": result.stiffness,
        "bulk_moduli_gpa": result.bulk_moduli,
        "shear_moduli_gpa": result.shear_moduli,
        "pressure_gpa": result.pressure,
        "residual_gpa": result.residual,
        "stable": result.stable,
    }
    emit(arguments, summary, result.table())
    return OK if result.stable else UNSTABLE


def phonons(arguments: argparse.Namespace) -> int:
    """`neuralxc phonons`: bands, density of states, thermal properties."""
    atoms = read_structure(arguments.structure, arguments.index)
    check_writable(arguments.plot)
    attach(arguments, atoms)
    with progress_bar(arguments, "displacement") as progress:
        result = crystal_phonons(
            atoms,
            progress=progress,
            supercell=arguments.supercell,
            distance=arguments.distance,
            mesh=arguments.mesh,
            directory=arguments.directory,
        )
    if arguments.plot is not None:
        result.plot(arguments.plot)
    summary = {
        **describe(atoms),
        "labels": result.labels,
        "distances": result.distances,
        "frequencies_thz": result.bands,
        "temperatures": result.temperatures,
        "heat_capacities": result.heat_capacities,
        "lowest_thz": result.lowest[0],
        "stable": result.stable,
    }
    emit(arguments, summary, result.table())
    return OK if result.stable else IMAGINARY_MODES
