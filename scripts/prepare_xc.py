"""Compute and store the densities of reference species, from which functionals are trained.

Files of reactions (JSON lines), or folders of them, are worked off in the order in which they are
given. Every species becomes one file; stop and repeat the command at any time, it goes on where it
was. The same folder may take several data sets: species that they share are computed once.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

# Before NumPy is loaded: parallel work is done by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase_neuralxc.campaign import Campaign
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.process import guarded
from ase_neuralxc.training.planning import Plan, count_basis_functions, plan
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import find_reactions, select_reactions
from ase_neuralxc.training.stored import DensityCodec

#: Kept grid points per atom at level 3 and bytes per point and channel, for the estimate.
POINTS_PER_ATOM, BYTES_PER_POINT = 10_000, 28


def parse() -> argparse.Namespace:
    defaults = PrepareSettings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="JSON-lines files, or folders of them")
    parser.add_argument("--out", required=True, type=Path, help="folder of the densities")
    parser.add_argument("--xc", default=defaults.xc, help="starting functional, semi-local")
    parser.add_argument("--basis", default=defaults.basis)
    parser.add_argument("--grid-level", default=defaults.grid_level, type=int, help="of features")
    parser.add_argument(
        "--scf-grid-level",
        default=defaults.scf_grid_level,
        type=int,
        help="of the SCF; 3 for functionals that were trained",
    )
    parser.add_argument("--max-basis-functions", type=int, help="leave out larger species")
    parser.add_argument("--workers", default=1, type=int, help="processes")
    parser.add_argument("--retries", default=1, type=int, help="attempts after a failure")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be computed")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def describe(work: Plan, basis: str, sizes: list[int]) -> str:
    points = sum(POINTS_PER_ATOM * len(s.symbols) for s in work.species)
    channels = sum(
        POINTS_PER_ATOM * len(s.symbols) * (1 if s.multiplicity == 1 else 2) for s in work.species
    )
    return (
        f"{len(work.species)} species of {work.n_reactions} reactions in {basis}, up to "
        f"{max(sizes, default=0)} basis functions; about {points / 1e6:.0f} million grid points, "
        f"{(channels * 20 + points * 24) / 1e9:.1f} GB\n"
        f"left out: {work.n_left_out} reactions with {len(work.too_large)} species that are larger"
    )


def main() -> int:
    arguments = parse()
    settings = PrepareSettings(
        xc=arguments.xc,
        basis=arguments.basis,
        grid_level=arguments.grid_level,
        scf_grid_level=arguments.scf_grid_level,
    )
    counts: dict[str, int] = {}

    def size(species):
        return count_basis_functions(species, settings.basis, counts)

    stages = [select_reactions(find_reactions([path]), settings.basis) for path in arguments.data]
    work = plan(stages, size, arguments.max_basis_functions)
    print(describe(work, settings.basis, [size(s) for s in work.species]), flush=True)
    if not work.species:
        raise InvalidInputError(
            f"data, max_basis_functions: expected reactions in {settings.basis} within a limit of "
            f"{arguments.max_basis_functions}, got none in {', '.join(map(str, arguments.data))}"
        )
    if arguments.dry_run:
        return 0
    campaign = Campaign(arguments.out, settings.identity, DensityCodec())
    summary = campaign.run(
        work.species,
        DensityTask(settings),
        workers=arguments.workers,
        retries=arguments.retries,
        progress=not arguments.quiet,
    )
    print(f"computed {summary.n_done}, there before {summary.n_skipped}, failed {summary.n_failed}")
    names = {s.content_hash: s.name for s in work.species}
    for key, failure in summary.failures.items():
        print(f"  {names[key]} ({key}): {failure.reasons[-1]}")
    return 0 if summary.n_failed == 0 else 1


if __name__ == "__main__":
    raise SystemExit(guarded("prepare_xc", main))
