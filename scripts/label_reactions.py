"""Compute reference energies of reactions by a composite of coupled cluster and MP2.

Reads JSON lines of species and reactions, whose reference values are ignored, computes the species
(`ase_neuralxc/training/composite.py` says how), smallest first, and writes the reactions whose
species are all there and have one reference determinant, with their reference values. Stop and
repeat the command at any time.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

# Before NumPy is loaded: parallel work is done by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase_neuralxc.campaign import Campaign
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.process import guarded
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.records.units import KCALMOL_HARTREE
from ase_neuralxc.training.composite import FAMILIES, CompositeTask
from ase_neuralxc.training.planning import count_basis_functions
from ase_neuralxc.training.reactions import ReactionSet, Species, read_reactions


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="JSON lines of species and reactions")
    parser.add_argument("--directory", required=True, type=Path, help="folder of the energies")
    parser.add_argument("--out", required=True, type=Path, help="JSON lines with reference values")
    parser.add_argument(
        "--family", choices=FAMILIES, default="cc", help="basis sets: def2 has heavy elements"
    )
    parser.add_argument(
        "--max-basis-functions", type=int, help="in the basis of coupled cluster; leave out larger"
    )
    parser.add_argument("--max-t1", default=0.045, type=float, help="largest T1 diagnostic")
    parser.add_argument("--workers", default=1, type=int, help="processes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    data = read_reactions(arguments.data)
    task = CompositeTask(FAMILIES[arguments.family])
    counts: dict[str, int] = {}
    sizes = {
        name: count_basis_functions(species, task.family.small, counts)
        for name, species in data.species.items()
    }
    limit = arguments.max_basis_functions
    kept = [name for name in sizes if limit is None or sizes[name] <= limit]
    if not kept:
        raise InvalidInputError(
            f"data: expected species of at most {limit} basis functions in {task.family.small} in "
            f"{str(arguments.data)!r}, got {len(sizes)} species, the smallest of "
            f"{min(sizes.values(), default=0)}"
        )
    tasks = [data.species[name] for name in sorted(kept, key=lambda name: sizes[name])]
    campaign = Campaign(arguments.directory, task.identity)
    summary = campaign.run(
        tasks,
        task,
        workers=arguments.workers,
        retries=1,
        progress=not arguments.quiet,
    )
    print(f"computed {summary.n_done}, there before {summary.n_skipped}, failed {summary.n_failed}")
    names = {s.content_hash: s.name for s in tasks}
    for key, failure in summary.failures.items():
        print(f"  {names[key]} ({key}): {failure.reasons[-1]}")
    done = campaign.store.done()
    results = {s.name: campaign.load(s.content_hash) for s in tasks if s.content_hash in done}
    good = {name for name, result in results.items() if result["t1"] <= arguments.max_t1}
    rows = [meta(data, task.identity, arguments.max_t1)]
    rows += [species_row(data.species[name]) for name in sorted(good)]
    for reaction in data.reactions:
        if good.issuperset(reaction.species):
            energies = [results[name]["energy"] for name in reaction.species]
            total = sum(c * e for c, e in zip(reaction.coefficients, energies, strict=True))
            rows.append(
                {
                    "type": "reaction",
                    "id": reaction.name,
                    "species": reaction.species,
                    "coeffs": reaction.coefficients,
                    "ref": round(total / KCALMOL_HARTREE, 4),
                }
            )
    atomic_write(arguments.out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    n_reactions = len(rows) - 1 - len(good)
    print(f"{n_reactions} of {len(data.reactions)} reactions: {arguments.out}")
    return 0 if summary.n_failed == 0 else 1


def meta(data: ReactionSet, method: str, max_t1: float) -> dict:
    """The first line of the file."""
    return {
        **data.meta,
        "theory_level": f"{method}; T1 diagnostics up to {max_t1}",
        "ref_kind": "electronic energy differences, ref = sum(coeffs*E)",
        "units": {"positions": "angstrom", "ref": "kcal/mol"},
    }


def species_row(species: Species) -> dict:
    """A species as a line of the file."""
    return {
        "type": "species",
        "name": species.name,
        "charge": species.charge,
        "multiplicity": species.multiplicity,
        "symbols": species.symbols,
        "positions": species.positions,
    }


if __name__ == "__main__":
    raise SystemExit(guarded("label_reactions", main))
