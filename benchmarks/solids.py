"""Lattice constants and bulk moduli of cubic solids in GPAW: shipped functional, PBE, r2SCAN.

python benchmarks/solids.py run DATA --out RECORDS     (resumable: one record per calculation)
python benchmarks/solids.py cutoff DATA --out RECORDS  (six solids, PBE, at a higher cutoff)
python benchmarks/solids.py table DATA --out RECORDS   (results/solids.json, docs/solids.md)

DATA is `solids_exp.csv`: experimental lattice constants without zero-point expansion and bulk
moduli without phonons (Hao et al., PRB 85, 014111 (2012)), and PBE lattice constants of an
all-electron code (BAND). PAW data are those of PBE for every functional, here and in the cited
lattice constants of r2SCAN.
"""

from __future__ import annotations

import argparse
import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from ase import Atoms
from ase.build import bulk
from common import one_thread, save

DOCS = Path(__file__).parents[1] / "docs" / "solids.md"


@dataclass(frozen=True)
class Protocol:
    functionals: tuple[str, ...] = ("pbe", "nxc-s9", "r2scan")
    # name in DATA, cutoff in eV, k-points per direction, metal, moment per atom. Metals have Gamma
    # among them; elsewhere few k-points of high symmetry would make the number of plane waves jump
    solids: tuple[tuple[str, float, int, bool, float], ...] = (
        ("Si_diamond", 400.0, 6, False, 0.0),
        ("MgO_b1", 800.0, 4, False, 0.0),
        ("Cu_fcc", 500.0, 10, True, 0.0),
        ("NaCl_b1", 400.0, 4, False, 0.0),
        ("Al_fcc", 300.0, 10, True, 0.0),
        ("LiF_b1", 700.0, 4, False, 0.0),
        ("Na_bcc", 400.0, 8, True, 0.0),
        ("Pd_fcc", 350.0, 8, True, 0.0),
        ("C_diamond", 700.0, 4, False, 0.0),
        ("LiCl_b1", 400.0, 4, False, 0.0),
        ("Ag_fcc", 500.0, 8, True, 0.0),
        ("Ge_diamond", 350.0, 4, False, 0.0),
        ("GaAs_b3", 350.0, 4, False, 0.0),
        ("Fe_bcc", 400.0, 12, True, 2.2),
        ("SiC_b3", 700.0, 4, False, 0.0),
        ("BN_b3", 700.0, 4, False, 0.0),
        ("BP_b3", 600.0, 4, False, 0.0),
        ("AlN_b3", 700.0, 4, False, 0.0),
        ("AlP_b3", 400.0, 4, False, 0.0),
    )
    smearing_of_metals: float = 0.1
    points: int = 5
    strain: float = 0.05
    # a minimum that is not among the volumes: the lattice constant is changed by this part
    step: float = 0.015
    recentred_at_most: int = 3
    higher_cutoffs: tuple[tuple[str, float], ...] = (
        ("MgO_b1", 1000.0),
        ("Cu_fcc", 1000.0),
        ("LiF_b1", 1000.0),
        ("Pd_fcc", 500.0),
        ("Ge_diamond", 500.0),
        ("GaAs_b3", 500.0),
    )
    pbe_target_angstrom: float = 0.01
    # Mejia-Rodriguez and Trickey, PRB 102, 121109(R) (2020), VASP
    r2scan_cited: tuple[tuple[str, float], ...] = (
        ("C_diamond", 3.564),
        ("Si_diamond", 5.440),
        ("SiC_b3", 4.356),
        ("BN_b3", 3.614),
        ("BP_b3", 4.533),
        ("AlN_b3", 4.368),
        ("AlP_b3", 5.473),
        ("LiF_b1", 3.995),
        ("LiCl_b1", 5.111),
    )
    r2scan_target_angstrom: float = 0.02


STRUCTURES = {
    "b1": "rocksalt", "b3": "zincblende", "diamond": "diamond", "fcc": "fcc", "bcc": "bcc",
}  # fmt: skip
#: Primitive cells per conventional cell.
CELLS = {"bcc": 2}


def read_data(path: Path) -> dict[str, dict[str, str]]:
    """Rows of the table by name; lines that start with # are comments."""
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    return {row["name"]: row for row in csv.DictReader(lines)}


def crystal(name: str, edge: float, moment: float) -> Atoms:
    """Primitive cell of a solid with a conventional lattice constant in Angstrom."""
    formula, _, kind = name.partition("_")
    atoms = bulk(formula, STRUCTURES[kind], a=edge)
    if moment:
        atoms.set_initial_magnetic_moments([moment] * len(atoms))
    return atoms


def edge_of(name: str, volume: float) -> float:
    """Lattice constant from the volume of the primitive cell."""
    return float((volume * CELLS.get(name.partition("_")[2], 4)) ** (1 / 3))


def measure(
    name: str, xc: str, ecut: float, kpts: int, smearing: float | None, start: float,
    moment: float, protocol: Protocol,
) -> dict[str, Any]:  # fmt: skip
    """Equation of state, moved until the minimum is among the volumes."""
    from ase_neuralxc import NeuralXC
    from ase_neuralxc.errors import InvalidInputError
    from ase_neuralxc.workflows import eos

    edge = start
    for attempt in range(protocol.recentred_at_most + 1):
        calc = NeuralXC(
            xc, backend="gpaw", ecut=ecut, smearing=smearing, dispersion=None,
            kpts={"size": (kpts,) * 3, "gamma": True if smearing else None},
        )  # fmt: skip
        atoms = crystal(name, edge, moment)
        try:
            result = eos(atoms, calc, points=protocol.points, strain=protocol.strain)
        except InvalidInputError:  # the lowest energy is at an end
            if attempt == protocol.recentred_at_most:
                raise
            # by energies: the stress at a fixed cutoff has its zero elsewhere
            wider = crystal(name, edge * (1 + protocol.step), moment)
            outwards = calc.get_property("energy", wider) < calc.get_property("energy", atoms)
            edge *= 1 + (protocol.step if outwards else -protocol.step)
            continue
        break
    magmom = calc.results.get("magmom")
    return {
        "solid": name, "functional": xc, "ecut": ecut, "kpts": kpts, "recentred": attempt,
        "edge_angstrom": edge_of(name, result.volume), "bulk_modulus_gpa": result.bulk_modulus,
        "residual_ev": result.residual, "magmom": magmom if moment else None,
    }  # fmt: skip


def record(path: Path, work: Any) -> dict[str, Any]:
    """The record in a file, made first if it is missing."""
    if not path.exists():
        made = work()
        print(made, flush=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(made) + "\n", encoding="utf-8")
        temporary.replace(path)
    return dict(json.loads(path.read_text(encoding="utf-8")))


def run(
    data: dict[str, dict[str, str]], out: Path, protocol: Protocol, cutoffs: bool, only: str | None
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    higher = dict(protocol.higher_cutoffs)
    for name, ecut, kpts, metal, moment in protocol.solids:
        if (cutoffs and name not in higher) or only not in (None, name):
            continue
        for xc in ("pbe",) if cutoffs else protocol.functionals:
            column = "pbe_a0_A_BAND" if xc == "pbe" else "a0_exp_zpc_A"
            used = higher[name] if cutoffs else ecut
            record(
                out / f"{name}-{xc}-{used:g}.json",
                lambda name=name, xc=xc, used=used, kpts=kpts, metal=metal, moment=moment,
                column=column: measure(
                    name, xc, used, kpts, protocol.smearing_of_metals if metal else None,
                    float(data[name][column]), moment, protocol,
                ),
            )  # fmt: skip


def table(data: dict[str, dict[str, str]], out: Path, protocol: Protocol) -> None:
    """Gather the records that there are; a solid counts if every functional has it."""
    rows, lines = [], []
    cited = dict(protocol.r2scan_cited)
    for name, ecut, kpts, *_ in protocol.solids:
        paths = {xc: out / f"{name}-{xc}-{ecut:g}.json" for xc in protocol.functionals}
        if not all(path.exists() for path in paths.values()):
            continue
        found = {xc: json.loads(path.read_text(encoding="utf-8")) for xc, path in paths.items()}
        row = {
            "solid": name, "ecut": ecut, "kpts": kpts,
            "edge_experiment": float(data[name]["a0_exp_zpc_A"]),
            "edge_pbe_all_electron": float(data[name]["pbe_a0_A_BAND"]),
            "edge_r2scan_cited": cited.get(name),
            "modulus_experiment": float(data[name]["B0_exp_GPa"] or "nan"),
            "edge": {xc: r["edge_angstrom"] for xc, r in found.items()},
            "modulus": {xc: r["bulk_modulus_gpa"] for xc, r in found.items()},
            "magmom": {xc: r["magmom"] for xc, r in found.items() if r["magmom"] is not None},
        }  # fmt: skip
        rows.append(row)
        modulus = data[name]["B0_exp_GPa"] or "-"
        edges = " | ".join(f"{row['edge'][xc]:.3f}" for xc in protocol.functionals)
        moduli = " | ".join(f"{row['modulus'][xc]:.0f}" for xc in protocol.functionals)
        vasp = f"{cited[name]:.3f}" if name in cited else "-"
        lines.append(
            f"| {name.replace('_', ', ')} | {row['edge_experiment']:.3f} | "
            f"{row['edge_pbe_all_electron']:.3f} | {vasp} | {edges} | {modulus} | {moduli} |"
        )
    summary: dict[str, Any] = {"solids": len(rows)}
    for xc in protocol.functionals:
        edges = [r["edge"][xc] - r["edge_experiment"] for r in rows]
        moduli = [
            r["modulus"][xc] - r["modulus_experiment"]
            for r in rows
            if r["modulus_experiment"] == r["modulus_experiment"]
        ]
        summary[xc] = {
            "edge_mean_error": mean(edges),
            "edge_mean_absolute_error": mean(map(abs, edges)),
            "modulus_mean_error": mean(moduli),
            "modulus_mean_absolute_error": mean(map(abs, moduli)),
        }
    for title, xc, reference, target in (
        ("pbe_against_all_electron", "pbe", "edge_pbe_all_electron", protocol.pbe_target_angstrom),
        ("r2scan_against_cited", "r2scan", "edge_r2scan_cited", protocol.r2scan_target_angstrom),
    ):
        off = {r["solid"]: r["edge"][xc] - r[reference] for r in rows if r[reference] is not None}
        summary[title] = {
            "solids": len(off),
            "mean_absolute": mean(map(abs, off.values())),
            "largest": max(off.items(), key=lambda item: abs(item[1])),
            "within_target": sum(abs(x) <= target for x in off.values()),
        }
    extra = [
        json.loads((out / f"{name}-pbe-{cut:g}.json").read_text(encoding="utf-8"))
        for name, cut in protocol.higher_cutoffs
        if (out / f"{name}-pbe-{cut:g}.json").exists()
    ]
    save("solids", protocol, {"summary": summary, "rows": rows, "higher_cutoffs": extra})
    _write_docs(lines, summary, protocol)


def _write_docs(lines: list[str], summary: dict[str, Any], protocol: Protocol) -> None:
    """Replace what stands between the marks of the page by the new tables."""
    names = {"pbe": "PBE", "r2scan": "r2SCAN"}
    shown = [names.get(xc, xc) for xc in protocol.functionals]
    head = "| solid | a exp. | a PBE, BAND | a r2SCAN, VASP | " + " | ".join(
        f"a {n}" for n in shown
    )
    head += " | B exp. | " + " | ".join(f"B {n}" for n in shown) + " |"
    columns = ["functional", "a: mean error", "a: mean absolute", "B: mean error",
               "B: mean absolute"]  # fmt: skip
    errors = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for xc, name in zip(protocol.functionals, shown, strict=True):
        s = summary[xc]
        errors.append(
            f"| {name} | {s['edge_mean_error']:+.3f} | {s['edge_mean_absolute_error']:.3f} | "
            f"{s['modulus_mean_error']:+.1f} | {s['modulus_mean_absolute_error']:.1f} |"
        )
    rule = "|---" * (5 + 2 * len(shown)) + "|"
    body = "\n".join([head, rule, *lines, "", *errors])
    begin, end = "<!-- tables begin -->", "<!-- tables end -->"
    before, rest = DOCS.read_text(encoding="utf-8").split(begin)
    DOCS.write_text(f"{before}{begin}\n\n{body}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["run", "cutoff", "table"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", help="one solid by name: several processes can share the work")
    parser.add_argument("--functional", help="likewise one functional")
    given = parser.parse_args()
    one_thread()
    rows_by_name = read_data(given.data)
    if given.task == "table":
        table(rows_by_name, given.out, Protocol())
    else:
        protocol = Protocol()
        if given.functional is not None:
            protocol = replace(protocol, functionals=(given.functional,))
        run(rows_by_name, given.out, protocol, given.task == "cutoff", given.only)
