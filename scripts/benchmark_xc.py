"""Errors of functionals over reaction sets, self-consistently or on stored densities.

python scripts/benchmark_xc.py r2scan+d4 my.safetensors+recommended --data DATA... --out bench
python scripts/benchmark_xc.py pbe r2scan my.safetensors --data DATA... --stored DENSITIES --out b

A functional is a name, a checkpoint or libxc:NAME, with an optional +DISPERSION: d4 or d3bj, with
:NAME for the damping of another functional, or "recommended": what a checkpoint's card says. Only
reactions whose species all have at most --max-basis-functions are computed, with --larger-than N
of these what a list that ended at N has left out; the list does not depend on the functionals.
Stop and repeat the command at any time: it goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Before NumPy is loaded: parallel work is done by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase_neuralxc.backend.libxc import PREFIX, LibxcFunctional, find_functional
from ase_neuralxc.campaign import Campaign
from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.process import guarded
from ase_neuralxc.recommended import with_dispersion
from ase_neuralxc.terms.dispersion import Dispersion
from ase_neuralxc.training.planning import count_basis_functions, plan
from ase_neuralxc.training.reactions import (
    ReactionSet,
    Species,
    find_reactions,
    select_reactions,
    unique_species,
)
from ase_neuralxc.validation.comparison import Column, Comparison, SCFSummary
from ase_neuralxc.validation.energies import (
    dispersion_energies,
    stored_energies,
    with_larger_species,
    without_species,
)
from ase_neuralxc.validation.report import markdown, write_report
from ase_neuralxc.validation.single_point import SinglePointSettings, SinglePointTask


@dataclass(frozen=True)
class Request:
    """One column of the table."""

    label: str
    xc: str
    functional: Any
    dispersion: Dispersion | None

    @property
    def source(self) -> str | LibxcFunctional:
        """What stands for the functional in another process."""
        return self.functional if isinstance(self.functional, LibxcFunctional) else self.xc


def parse() -> argparse.Namespace:
    defaults = SinglePointSettings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("functional", nargs="+", help="NAME or FILE, with +DISPERSION or without")
    parser.add_argument("--data", nargs="+", required=True, type=Path, help="reaction files")
    parser.add_argument("--out", required=True, type=Path, help="folder of energies and report")
    parser.add_argument("--stored", type=Path, help="folder of prepared densities to use instead")
    parser.add_argument("--subsets", nargs="+", help="names of the sets (default: all)")
    parser.add_argument("--basis", default=defaults.basis)
    parser.add_argument("--grid-level", default=defaults.grid_level, type=int, help="of energies")
    parser.add_argument("--scf-grid-level", default=defaults.scf_grid_level, type=int)
    parser.add_argument("--no-density-fit", action="store_true", help="exact Coulomb integrals")
    parser.add_argument("--max-basis-functions", type=int, help="leave out larger species")
    parser.add_argument(
        "--larger-than",
        type=int,
        metavar="N",
        help="go on from a list: leave out reactions whose species all have at most N functions",
    )
    parser.add_argument("--workers", default=1, type=int, help="processes")
    parser.add_argument("--report-only", action="store_true", help="of what is there by now")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def request(spec: str) -> Request:
    xc, plus, dispersion = spec.rpartition("+")
    if not plus:
        xc, dispersion = spec, ""
    functional, term = with_dispersion(find_functional(xc), dispersion or None)
    label = functional.name.removeprefix(PREFIX)
    return Request(label if term is None else f"{label}+{term.name}", xc, functional, term)


def _plain(name: str) -> str:
    """For a folder."""
    return name.replace(":", "-").replace(" ", "-")


def choose(sets: list[ReactionSet], names: list[str] | None) -> list[ReactionSet]:
    if names is None:
        return sets
    known = {one.name: one for one in sets}
    for name in names:
        if name not in known:
            raise unknown_name("subset", name, known)
    return [known[name] for name in names]


def single_points(
    wanted: Request, tasks: list[Species], settings: SinglePointSettings, arguments: Any
) -> tuple[dict[str, float], SCFSummary]:
    """Energies of one functional, those that are missing computed, and how its SCFs went."""
    identity = settings.identity(wanted.functional)
    folder = arguments.out / f"{_plain(wanted.functional.name)}-{identity[-8:]}"
    campaign = Campaign(folder, identity)
    if not arguments.report_only:
        print(f"{wanted.functional.name}: {len(tasks)} species", file=sys.stderr, flush=True)
        campaign.run(
            tasks,
            SinglePointTask(wanted.source, settings),
            workers=arguments.workers,
            retries=1,
            progress=not arguments.quiet,
        )
    names = {s.content_hash: s.name for s in tasks}
    results = {key: value for key, value in campaign.results() if key in names}
    failures = {
        names[key]: failure.reasons[-1]
        for key, failure in campaign.failures().items()
        if key in names
    }
    energies = {key: value["energy"] for key, value in results.items()}
    return energies, SCFSummary.of(results.values(), failures)


def compare(arguments: argparse.Namespace) -> Comparison:
    wanted = [request(spec) for spec in arguments.functional]
    sets = choose(find_reactions(arguments.data), arguments.subsets)
    settings = SinglePointSettings(
        basis=arguments.basis,
        density_fit=not arguments.no_density_fit,
        scf_grid_level=arguments.scf_grid_level,
        grid_level=arguments.grid_level,
    )
    counts: dict[str, int] = {}

    def size(species: Species) -> int:
        return count_basis_functions(species, settings.basis, counts)

    smallest, largest = arguments.larger_than, arguments.max_basis_functions
    usable = select_reactions(sets, settings.basis)
    if smallest is not None:
        usable = with_larger_species(usable, size, smallest)
    work = plan([usable], size, largest)
    if not work.species:
        raise InvalidInputError(
            f"max_basis_functions, larger_than: expected limits with reactions between them, got "
            f"{largest} and {smallest}: none of the sets has one"
        )
    listed = without_species(usable, work.too_large)
    species = unique_species(listed)
    tasks = [s for _, s in sorted(zip(work.costs, work.species, strict=True), key=lambda p: p[0])]
    base: dict[str | LibxcFunctional, tuple[dict[str, float], SCFSummary | None]] = {}
    columns = []
    for one in wanted:
        if one.source not in base:
            if arguments.stored is None:
                base[one.source] = single_points(one, tasks, settings, arguments)
            else:
                base[one.source] = on_densities(one, species, arguments.stored), None
        energies, scf = base[one.source]
        if one.dispersion is not None:
            extra = dispersion_energies(one.dispersion, species, list(energies))
            energies = {key: value + extra[key] for key, value in energies.items()}
        columns.append(Column(one.label, energies, scf))
    protocol = asdict(settings) if arguments.stored is None else {"densities": "as stored"}
    protocol["max_basis_functions"] = largest
    if smallest is not None:
        protocol["larger_than"] = smallest
    return Comparison(sets, listed, columns, protocol)


def on_densities(one: Request, species: dict[str, Species], folder: Path) -> dict[str, float]:
    if not isinstance(one.functional, SemilocalFunctional):
        raise InvalidInputError(
            f"stored: expected semi-local functionals of torch, got {one.functional.name!r}"
        )
    return stored_energies(one.functional, species, folder)


def main() -> int:
    arguments = parse()
    arguments.out.mkdir(parents=True, exist_ok=True)
    comparison = compare(arguments)
    path = write_report(comparison, arguments.out)
    print(markdown(comparison))
    print(f"{path}, with report.json and report.png beside it")
    return 0 if not any(c.scf and c.scf.failures for c in comparison.columns) else 1


if __name__ == "__main__":
    raise SystemExit(guarded("benchmark_xc", main))
