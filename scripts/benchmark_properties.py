"""Bond lengths and static polarisabilities of functionals against reference values.

python scripts/benchmark_properties.py r2scan my.safetensors --out properties \\
    --polarizabilities HR46.jsonl --bonds w4-17_ccsdt_bond_lengths.csv --geometries W4-17.jsonl

Every molecule is one task; stop and repeat the command at any time, it goes on where it was. Only
molecules with at most --max-basis-functions are computed, and only what all functionals have is
counted.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

# Before NumPy is loaded: parallel work is done by processes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from ase_neuralxc.backend.libxc import find_functional
from ase_neuralxc.campaign import Campaign
from ase_neuralxc.errors import InvalidInputError, NeuralXCError
from ase_neuralxc.process import guarded
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.training.planning import count_basis_functions
from ase_neuralxc.training.reactions import Species, read_reactions
from ase_neuralxc.validation.properties import (
    GeometryTask,
    PolarizabilityTask,
    PropertySettings,
    bond_errors,
    polarizability_errors,
    read_bonds,
    read_polarizabilities,
)


def parse() -> argparse.Namespace:
    defaults = PropertySettings()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("functional", nargs="+", help="names, checkpoints, or libxc:NAME")
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--polarizabilities", type=Path, help="JSON lines")
    parser.add_argument("--bonds", type=Path, help="CSV of bond lengths")
    parser.add_argument("--geometries", type=Path, help="JSON lines with the molecules of --bonds")
    parser.add_argument("--basis", default=defaults.basis)
    parser.add_argument("--grid-level", default=defaults.grid_level, type=int)
    parser.add_argument("--max-basis-functions", default=150, type=int)
    parser.add_argument("--workers", default=1, type=int)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def compute(
    kind: type[PolarizabilityTask], species: list[Species], settings: PropertySettings, args: Any
) -> dict[str, dict[str, Any]]:
    """Results of all functionals, by name and content hash; those of all functionals only."""
    counts: dict[str, int] = {}
    sizes = {s.content_hash: count_basis_functions(s, settings.basis, counts) for s in species}
    chosen = [s for s in species if sizes[s.content_hash] <= args.max_basis_functions]
    chosen.sort(key=lambda s: sizes[s.content_hash])
    if not chosen:
        raise InvalidInputError(
            f"max_basis_functions: expected molecules that are that small, got none of "
            f"{len(species)} with {args.max_basis_functions}"
        )
    names = {s.content_hash: s.name for s in chosen}
    found = {}
    for xc in args.functional:
        functional = find_functional(xc)
        identity = settings.identity(kind.kind, functional)
        folder = f"{kind.kind}-{functional.name.replace(':', '-')}-{identity[-8:]}"
        campaign = Campaign(args.out / folder, identity)
        print(
            f"{kind.kind}, {functional.name}: {len(names)} molecules", file=sys.stderr, flush=True
        )
        summary = campaign.run(
            chosen, kind(xc, settings), workers=args.workers, retries=1, progress=not args.quiet
        )
        for key, failure in summary.failures.items():
            print(f"  {functional.name}, {names[key]}: {failure.reasons[-1]}")
        found[functional.name] = {k: v for k, v in campaign.results() if k in names}
    common = set.intersection(*(set(results) for results in found.values()))
    if not common:
        raise NeuralXCError(f"{kind.kind}: no molecule has a result for every functional")
    return {name: {k: results[k] for k in sorted(common)} for name, results in found.items()}


def record(
    species: list[Species], found: dict[str, dict[str, Any]], errors: dict[str, list[float]]
) -> dict[str, Any]:
    """What stays: the molecules that were counted, and all errors."""
    counted = set(next(iter(found.values())))
    molecules = sorted(s.name for s in species if s.content_hash in counted)
    return {"molecules": molecules, "errors": errors}


def summarise(title: str, unit: str, errors: dict[str, list[float]]) -> str:
    lines = [f"{title} / {unit}", "", "| functional | n | MAE | MSE | largest |"]
    lines.append("| --- | ---: | ---: | ---: | ---: |")
    for name, values in errors.items():
        e = np.array(values)
        worst = e[np.abs(e).argmax()]
        lines.append(
            f"| {name} | {e.size} | {np.abs(e).mean():.4f} | {e.mean():.4f} | {worst:.4f} |"
        )
    return "\n".join(lines)


def main() -> int:
    args = parse()
    if args.polarizabilities is None and args.bonds is None:
        raise InvalidInputError("expected --polarizabilities or --bonds, got neither")
    if (args.bonds is None) != (args.geometries is None):
        raise InvalidInputError("expected --bonds and --geometries together")
    args.out.mkdir(parents=True, exist_ok=True)
    settings = PropertySettings(basis=args.basis, grid_level=args.grid_level)
    protocol = {**asdict(settings), "max_basis_functions": args.max_basis_functions}
    parts, values = [], {"protocol": protocol}
    if args.polarizabilities is not None:
        references = read_polarizabilities(args.polarizabilities)
        species = [r.species for r in references]
        found = compute(PolarizabilityTask, species, settings, args)
        errors = {name: polarizability_errors(references, r) for name, r in found.items()}
        parts.append(summarise("Components of static polarisabilities", "per cent", errors))
        values["polarizabilities"] = record(species, found, errors)
    if args.bonds is not None:
        bonds = read_bonds(args.bonds, read_reactions(args.geometries))
        species = list({b.species.content_hash: b.species for b in bonds}.values())
        found = compute(GeometryTask, species, settings, args)
        errors = {name: bond_errors(bonds, r) for name, r in found.items()}
        parts.append(summarise("Bond lengths", "Angstrom", errors))
        values["bonds"] = record(species, found, errors)
    text = "\n\n".join(parts) + "\n"
    print(text)
    atomic_write(args.out / "properties.md", text.encode())
    atomic_write(args.out / "properties.json", json.dumps(values, indent=1).encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(guarded("benchmark_properties", main))
