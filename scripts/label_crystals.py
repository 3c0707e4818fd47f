"""Labels of crystals: energies of four volumes with the functional that training starts from.

Writes a file of reactions for `train_xc.py`, from one volume to a smaller and two larger ones,
and the densities of all volumes into a folder of prepared densities. A functional that is trained
on them keeps the pressure of r2SCAN in metals, semiconductors and salts, where molecules say
nothing. Stop and repeat the command at any time. Needs GPAW.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from ase.build import bulk

from ase_neuralxc.backend.gpaw.xc import load_gpaw
from ase_neuralxc.campaign import Campaign
from ase_neuralxc.process import guarded
from ase_neuralxc.records import units
from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.training.precompute import DensityTask
from ase_neuralxc.training.prepare_settings import PrepareSettings
from ase_neuralxc.training.reactions import Species
from ase_neuralxc.training.stored import DensityCodec, density_path, open_density

#: Formula, structure, lattice constant in Angstrom, and unpaired electrons of a magnet; none of
#: `benchmarks/solids.py`.
CRYSTALS: tuple[tuple[str, str, float] | tuple[str, str, float, int], ...] = (
    ("Li", "bcc", 3.45), ("K", "bcc", 5.21), ("Rb", "bcc", 5.58), ("Ca", "fcc", 5.56),
    ("Sr", "fcc", 6.04), ("Ba", "bcc", 5.00), ("V", "bcc", 3.02), ("Nb", "bcc", 3.29),
    ("Ta", "bcc", 3.30), ("Mo", "bcc", 3.14), ("W", "bcc", 3.16), ("Rh", "fcc", 3.79),
    ("Ir", "fcc", 3.83), ("Pt", "fcc", 3.91), ("Au", "fcc", 4.06), ("Pb", "fcc", 4.91),
    ("Mg", "fcc", 4.52), ("Be", "fcc", 3.16), ("Zr", "bcc", 3.57), ("Ru", "fcc", 3.80),
    ("Re", "fcc", 3.91), ("Rh", "bcc", 3.02), ("Pt", "bcc", 3.13),
    ("Zn", "fcc", 3.90), ("Ni", "fcc", 3.51, 1), ("Co", "fcc", 3.53, 2),
    ("Co", "bcc", 2.82, 2), ("Fe", "fcc", 3.64, 3), ("Sn", "diamond", 6.48),
    ("LiH", "rocksalt", 3.98), ("NaH", "rocksalt", 4.86), ("PdH", "rocksalt", 4.09),
    ("NaF", "rocksalt", 4.57), ("KF", "rocksalt", 5.34), ("KCl", "rocksalt", 6.25),
    ("LiBr", "rocksalt", 5.47), ("MgS", "rocksalt", 5.19), ("MgSe", "rocksalt", 5.44),
    ("CaO", "rocksalt", 4.78), ("TiC", "rocksalt", 4.32), ("NbC", "rocksalt", 4.46),
    ("VN", "rocksalt", 4.12), ("TiN", "rocksalt", 4.23), ("ZrN", "rocksalt", 4.58),
    ("AlAs", "zincblende", 5.65), ("GaN", "zincblende", 4.52), ("GaP", "zincblende", 5.44),
    ("GaSb", "zincblende", 6.12), ("InP", "zincblende", 5.86), ("InAs", "zincblende", 6.08),
    ("ZnS", "zincblende", 5.40), ("CuCl", "zincblende", 5.40), ("BAs", "zincblende", 4.76),
    ("BeS", "zincblende", 4.86), ("CsCl", "cesiumchloride", 4.12),
    ("AlNi", "cesiumchloride", 2.88), ("TiNi", "cesiumchloride", 3.00),
    ("AgMg", "cesiumchloride", 3.30), ("CuZn", "cesiumchloride", 2.94),
    ("AlPd", "cesiumchloride", 3.05), ("PdIn", "cesiumchloride", 3.27),
)  # fmt: skip
#: For a file of their own, to choose between functionals.
HELD_OUT: tuple[tuple[str, str, float], ...] = (
    ("Cs", "bcc", 6.15), ("Ti", "fcc", 4.11), ("Os", "fcc", 3.84), ("Au", "bcc", 3.26),
    ("Cd", "fcc", 4.42), ("CuPd", "cesiumchloride", 2.98), ("PdZn", "cesiumchloride", 3.04),
    ("NaBr", "rocksalt", 5.93), ("HfC", "rocksalt", 4.63), ("ZnSe", "zincblende", 5.66),
)  # fmt: skip
#: Changes of the lattice constant, of which the first is where reactions begin.
STRAINS = (0.0, -0.02, 0.02, 0.04)


def crystal(strain: float, formula: str, structure: str, edge: float, unpaired: int = 0) -> Species:
    """Primitive cell at one volume."""
    atoms = bulk(formula, structure, a=edge * (1 + strain))
    return Species(
        name=f"{formula} {structure} {100 * strain:+.0f}%",
        symbols=tuple(atoms.get_chemical_symbols()),
        positions=tuple(map(tuple, atoms.positions.tolist())),
        multiplicity=unpaired + 1,
        cell=tuple(map(tuple, atoms.cell.tolist())),
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSON-lines file to write")
    parser.add_argument("--held-out", type=Path, help="another, for crystals not to train on")
    parser.add_argument("--densities", required=True, type=Path, help="folder of densities")
    parser.add_argument("--workers", default=1, type=int, help="processes")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    load_gpaw()  # without it nothing would come of the hours to follow
    settings = PrepareSettings()
    files = {arguments.file: CRYSTALS}
    if arguments.held_out:
        files[arguments.held_out] = HELD_OUT
    parts = {
        file: [[crystal(strain, *c) for strain in STRAINS] for c in chosen]
        for file, chosen in files.items()
    }
    campaign = Campaign(arguments.densities, settings.identity, DensityCodec())
    summary = campaign.run(
        [species for crystals in parts.values() for volumes in crystals for species in volumes],
        DensityTask(settings),
        workers=arguments.workers,
        retries=0,
        progress=not arguments.quiet,
    )
    for file, crystals in parts.items():
        write(file, crystals, arguments.densities, settings.xc)
    print(f"computed {summary.n_done}, there before {summary.n_skipped}, failed {summary.n_failed}")
    for failure in summary.failures.values():
        print(f"  {failure.reasons[-1]}")
    return 0 if summary.n_failed == 0 else 1


def write(file: Path, crystals: list[list[Species]], densities: Path, xc: str) -> None:
    """Labels of the crystals all volumes of which are there."""
    lines: list[dict[str, object]] = [{
        "type": "meta", "set": file.stem, "source": "scripts/label_crystals.py",
        "method": f"{xc}, plane waves and PAW in GPAW", "unit": "kcal/mol",
    }]  # fmt: skip
    for volumes in crystals:
        paths = [density_path(densities, species) for species in volumes]
        if all(path.exists() for path in paths):
            lines += labels(volumes, [open_density(path).total_energy for path in paths])
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(file, "".join(json.dumps(line) + "\n" for line in lines).encode())


def labels(volumes: list[Species], energies: list[float]) -> list[dict[str, object]]:
    """Lines of the volumes of a crystal, and of the reactions from the first to each other one."""
    lines: list[dict[str, object]] = [
        {
            "type": "species", "name": s.name, "charge": 0, "multiplicity": s.multiplicity,
            "symbols": s.symbols, "positions": s.positions, "cell": s.cell,
        }
        for s in volumes
    ]  # fmt: skip
    for species, energy in zip(volumes[1:], energies[1:], strict=True):
        lines.append({
            "type": "reaction", "id": f"{volumes[0].name} -> {species.name}",
            "species": [volumes[0].name, species.name], "coeffs": [-1, 1],
            "ref": round((energy - energies[0]) / units.KCALMOL_HARTREE, 4),
        })  # fmt: skip
    return lines


if __name__ == "__main__":
    raise SystemExit(guarded("label_crystals", main))
