"""The commands of `neuralxc`, each from parsed arguments to an exit code."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ase_neuralxc.cli.crystals import elastic, eos, phonons
from ase_neuralxc.cli.files import (
    attach,
    check_writable,
    describe,
    emit,
    progress_bar,
    read_structure,
    read_structures,
    write_structures,
)
from ase_neuralxc.cli.label import label
from ase_neuralxc.cli.reactions import adsorb, neb
from ase_neuralxc.workflows import UnconvergedWarning
from ase_neuralxc.workflows import md as run_dynamics
from ase_neuralxc.workflows import relax as relax_atoms
from ase_neuralxc.workflows import vibrations as vibrate_atoms
from ase_neuralxc.workflows.common import max_force, snapshot

OK = 0
UNCONVERGED = 1


def energy(arguments: argparse.Namespace) -> int:
    """`neuralxc energy`: single points."""
    images = read_structures(arguments.structure, arguments.index)
    check_writable(arguments.out)
    rows, records, done = [], [], []
    with progress_bar(arguments, "structure") as progress:
        for number, atoms in enumerate(images):
            attach(arguments, atoms)
            value = atoms.get_potential_energy()
            dipole = atoms.get_dipole_moment()
            record: dict[str, Any] = {**describe(atoms), "energy": value, "dipole": dipole}
            row = f"{number:5d} {atoms.get_chemical_formula():16} {value:18.8f}"
            row += f" {np.linalg.norm(dipole):12.6f}"
            if arguments.forces:
                record["forces"] = atoms.get_forces()
                row += f" {max_force(record['forces']):12.6f}"
            record.update(
                {key: atoms.calc.results[key] for key in ("charges", "magmom", "magmoms")}
            )
            rows.append(row)
            records.append(record)
            done.append(snapshot(atoms))
            # A density and its host per structure would fill the memory on a long file.
            atoms.calc = None
            progress(number + 1, len(images), atoms.get_chemical_formula())
    if arguments.out is not None:
        write_structures(arguments.out, done)
    header = f"{'frame':>5} {'formula':16} {'energy / eV':>18} {'dipole / eA':>12}"
    header += f" {'fmax / eV/A':>12}" if arguments.forces else ""
    emit(arguments, {"structures": records}, "\n".join([header, *rows]))
    return OK


def relax(arguments: argparse.Namespace) -> int:
    """`neuralxc relax`: relaxation of positions and, if asked, cell."""
    atoms = read_structure(arguments.structure, arguments.index)
    for path in (arguments.out, arguments.plot):
        check_writable(path)
    attach(arguments, atoms)
    with progress_bar(arguments, "step") as progress, warnings.catch_warnings():
        # The table and the exit code say it.
        warnings.simplefilter("ignore", UnconvergedWarning)
        result = relax_atoms(
            atoms,
            progress=progress,
            **{
                name: getattr(arguments, name)
                for name in (
                    "fmax",
                    "steps",
                    "optimizer",
                    "trajectory",
                    "restart",
                    "cell",
                    "pressure",
                    "keep_symmetry",
                )
            },
        )
    if arguments.out is not None:
        write_structures(arguments.out, [result.atoms])
    if arguments.plot is not None:
        result.plot(arguments.plot)
    summary = {
        **describe(result.atoms),
        "converged": result.converged,
        "n_steps": result.n_steps,
        "energy": result.energy,
        "fmax": result.fmax,
        "energies": result.energies,
        "forces": result.atoms.get_forces(),
    }
    emit(arguments, summary, result.table())
    return OK if result.converged else UNCONVERGED


def md(arguments: argparse.Namespace) -> int:
    """`neuralxc md`: molecular dynamics."""
    atoms = read_structure(arguments.structure, arguments.index)
    for path in (arguments.out, arguments.plot, arguments.analysis):
        check_writable(path)
    attach(arguments, atoms)
    with progress_bar(arguments, "step") as progress:
        result = run_dynamics(
            atoms,
            progress=progress,
            **{
                name: getattr(arguments, name)
                for name in (
                    "ensemble",
                    "timestep",
                    "steps",
                    "interval",
                    "temperature",
                    "pressure",
                    "cell",
                    "seed",
                    "trajectory",
                    "restart",
                )
            },
        )
    if arguments.out is not None:
        write_structures(arguments.out, result.frames)
    if arguments.plot is not None:
        result.plot(arguments.plot)
    if arguments.analysis is not None:
        result.plot_analysis(arguments.analysis)
    summary = {
        **describe(result.frames[-1]),
        "times": result.times,
        "potential": result.potential,
        "kinetic": result.kinetic,
        "temperatures": result.temperatures,
        "drift": result.drift,
        "msd": result.msd(),
    }
    emit(arguments, summary, result.table())
    return OK


def vib(arguments: argparse.Namespace) -> int:
    """`neuralxc vib`: vibrational modes."""
    atoms = read_structure(arguments.structure, arguments.index)
    check_writable(arguments.plot)
    calc = attach(arguments, atoms)
    with progress_bar(arguments, "displacement") as progress:
        result = vibrate_atoms(
            atoms,
            progress=progress,
            delta=arguments.delta,
            nfree=arguments.nfree,
            directory=arguments.directory,
        )
    table = [result.table()]
    summary: dict[str, Any] = {
        **describe(result.atoms),
        "energy": result.potential_energy,
        "frequencies_cm1": result.frequencies,
        "intensities_km_mol": result.intensities,
        "zero_point_energy": result.zero_point_energy,
        "fmax": result.fmax,
    }
    if arguments.temperature is not None:
        # All displacements may have come from the cache: only then is there no solution to ask.
        unpaired = calc.get_property("magmom", atoms)
        thermo = result.thermochemistry(
            arguments.temperature,
            arguments.pressure,
            multiplicity=round(unpaired) + 1,
            symmetry_number=arguments.symmetry_number,
        )
        summary["thermochemistry"] = vars(thermo)
        table.append(thermo.table())
    if arguments.plot is not None:
        result.plot(arguments.plot)
    emit(arguments, summary, "\n".join(table))
    return OK


def td(arguments: argparse.Namespace) -> int:
    """`neuralxc td`: vertical excitations."""
    from ase_neuralxc.response.excitations import excitations

    atoms = read_structure(arguments.structure, arguments.index)
    calc = attach(arguments, atoms)
    with progress_bar(arguments, "stage") as progress:
        ground = atoms.get_potential_energy()
        progress(1, 2, "ground state")
        result = excitations(
            calc,
            atoms,
            n_states=arguments.states,
            tda=not arguments.full,
            triplets=arguments.triplets,
        )
        progress(2, 2, "excitations")
    summary = {
        **describe(atoms),
        "energy": ground,
        "excitation_energies": result.energies,
        "oscillator_strengths": result.oscillator_strengths,
    }
    emit(arguments, summary, f"ground state: {ground:.8f} eV\n{result.table()}")
    return OK


def excite(arguments: argparse.Namespace) -> int:
    """`neuralxc excite`: one excited state by a constrained transition."""
    from ase_neuralxc.excited.transition import TransitionConstraint

    atoms = read_structure(arguments.structure, arguments.index)
    moves = arguments.move or [("HOMO", "LUMO", 1.0)]
    excitation = TransitionConstraint(moves, arguments.state)
    with progress_bar(arguments, "state") as progress:
        attach(arguments, atoms).set(excitation=excitation)
        energy = atoms.get_potential_energy()
        progress(1, 1, excitation.name)
    results = atoms.calc.results
    summary = {
        **describe(atoms),
        "state": excitation.name,
        "energy": energy,
        "excitation_energy": results["excitation_energy"],
        "dipole": results["dipole"],
    }
    table = [
        f"{excitation.name} (T-CDFT)",
        f"ground state      {energy - results['excitation_energy']:18.8f} eV",
        f"excited state     {energy:18.8f} eV",
        f"excitation energy {results['excitation_energy']:18.8f} eV",
        f"dipole            {np.linalg.norm(results['dipole']):18.8f} e*Angstrom",
    ]
    emit(arguments, summary, "\n".join(table))
    return OK


COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "energy": energy,
    "relax": relax,
    "md": md,
    "elastic": elastic,
    "eos": eos,
    "phonons": phonons,
    "vib": vib,
    "td": td,
    "excite": excite,
    "neb": neb,
    "adsorb": adsorb,
    "label": label,
}
