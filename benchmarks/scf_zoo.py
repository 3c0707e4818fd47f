"""Hard cases for the self-consistent field: does it converge, is it stable, is it the lowest?

Every case of `zoo_structures.py` is solved with default strategies, and again from several starts
that are nothing like the default: other guesses, other moments, a random kick to the converged
orbitals, second order first, instabilities always followed. The lowest of all is the reference.
The final state is checked with the full grid: orbital gradient and lowest eigenvalue of the
orbital Hessian.

Resumable: one file per case in the folder given by --out; run again to go on. At the end the
table goes to docs/scf_zoo.md and the numbers to benchmarks/results/scf_zoo.json; --report writes
both from what there is.

    OMP_NUM_THREADS=1 python benchmarks/scf_zoo.py [--out FOLDER] [--only NAME ...] [--report]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import one_thread, save
from numpy.typing import NDArray
from zoo_structures import CASES, Case

from ase_neuralxc.backend.guess import polarised_atoms
from ase_neuralxc.backend.ladder import Annealing, DirectMinimisation, SecondOrder
from ase_neuralxc.backend.molecular import MolecularBackend
from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.solution import KSSolution, SCFAttempt
from ase_neuralxc.backend.stability import lowest_mode
from ase_neuralxc.backend.system import System
from ase_neuralxc.campaign import Campaign, task_key
from ase_neuralxc.errors import SCFNotConverged
from ase_neuralxc.functional import load_functional
from ase_neuralxc.records import SpinState

TABLE = Path(__file__).parents[1] / "docs" / "scf_zoo.md"
#: Groups whose converged orbitals are not kicked, to save time.
METALS = ("3d dimer", "3d oxide or halide", "cluster")
#: Strategies of the starts that the default is compared with.
OTHER_LADDER = (DirectMinimisation(), SecondOrder(), Annealing())


@dataclass(frozen=True)
class Protocol:
    """What is computed and judged.

    Attributes:
        xc: functional.
        basis: of all cases that do not state another.
        grid_level: of all cases that do not state another.
        conv_tol: Hartree.
        starts_conv_tol: of the other starts, whose energies need three digits less.
        close: a case counts as lowest within this of the best start (Hartree).
        unstable: an eigenvalue of the orbital Hessian below this is an instability (Hartree).
        kick: random rotation of converged orbitals (radian, per pair of valence orbitals).
    """

    xc: str = "r2scan"
    basis: str = "def2-svp"
    grid_level: int = 1
    conv_tol: float = 1e-9
    starts_conv_tol: float = 1e-7
    close: float = 1e-3
    unstable: float = -1e-3
    kick: float = 0.25


PROTOCOL = Protocol()


def system_of(case: Case) -> System:
    atoms = case.atoms()
    state = SpinState(
        charge=case.charge, n_unpaired=case.multiplicity - 1, magmoms=case.moments or None
    )
    return System(atoms.numbers, atoms.positions, state)


def settings_of(case: Case) -> KSSettings:
    base = KSSettings(
        basis=PROTOCOL.basis, grid_level=PROTOCOL.grid_level, conv_tol=PROTOCOL.conv_tol
    )
    return replace(base, **case.settings)


def other_starts(case: Case, solution: KSSolution) -> Iterator[tuple[str, NDArray]]:
    """Density matrices unlike the default guess, by name."""
    mf, mol, open_shell = solution.host, solution.host.mol, solution.reference != "rks"

    def spins(density: NDArray) -> NDArray:
        total = density[0] + density[1] if np.ndim(density) == 3 else density
        return np.stack([0.5 * total, 0.5 * total]) if open_shell else np.asarray(total)

    if case.large:
        yield "vsap", spins(mf.init_guess_by_vsap(mol))
        return
    yield "minao", spins(mf.get_init_guess(mol, "minao"))
    if open_shell:
        moments = np.asarray(case.moments or (0.0,) * mol.natm, dtype=float)
        yield "other moments", polarised_atoms(mol, np.roll(0.5 * moments + 0.3, 1))
    else:
        yield "atom", spins(mf.get_init_guess(mol, "atom"))
    if case.group not in METALS:
        yield "kicked", kicked(mf)


def kicked(mf: Any) -> NDArray:
    """The converged density after a random rotation of the orbitals near the gap."""
    rng = np.random.default_rng(7)
    newton = mf.copy().newton()
    _, _, diagonal = newton.gen_g_hop(mf.mo_coeff, mf.mo_occ, mf.get_fock(dm=mf.make_rdm1()))
    step = PROTOCOL.kick * rng.standard_normal(diagonal.size) * (diagonal < 1.0)
    rotation = newton.update_rotate_matrix(step, mf.mo_occ)
    orbitals = newton.rotate_mo(np.asarray(mf.mo_coeff), rotation)
    return np.asarray(mf.make_rdm1(orbitals, mf.mo_occ))


def attempts(history: tuple[SCFAttempt, ...]) -> list[dict[str, Any]]:
    return [asdict(attempt) for attempt in history]


def solve_case(task: dict[str, Any], attempt: int) -> dict[str, Any]:
    """Solve one case by default, then from the other starts (a task of the campaign)."""
    case = next(c for c in CASES if c.name == task["name"])
    functional, system, settings = load_functional(PROTOCOL.xc), system_of(case), settings_of(case)
    start = time.process_time()
    try:
        solution = MolecularBackend().solve(system, functional, settings)
    except SCFNotConverged as error:
        return {"converged": False, "history": attempts(error.history)}
    seconds = time.process_time() - start
    mf = solution.host
    start = time.process_time()
    mode = lowest_mode(mf, grid_level=None)
    check_seconds = time.process_time() - start
    others = MolecularBackend(ladder=OTHER_LADDER)
    thorough = replace(
        settings, stability="always", conv_tol=PROTOCOL.starts_conv_tol, max_cycle=100
    )
    energies: dict[str, float | None] = {}
    start = time.process_time()
    for name, guess in other_starts(case, solution):
        try:
            energies[name] = others.solve(system, functional, thorough, guess=guess).energy
        except SCFNotConverged:
            energies[name] = None
    return {
        "converged": True,
        "reference": solution.reference,
        "energy": solution.energy,
        "spin_square": float(mf.spin_square()[0]) if solution.reference != "rks" else 0.0,
        "gradient_norm": float(np.linalg.norm(mf.get_grad(mf.mo_coeff, mf.mo_occ))),
        "gradient_tolerance": settings.gradient_tolerance,
        "lowest_eigenvalue": mode.eigenvalue,
        "seconds": seconds,
        "check_seconds": check_seconds,
        "others_seconds": time.process_time() - start,
        "starts": energies,
        "history": attempts(solution.history),
    }


def task_of(case: Case) -> dict[str, Any]:
    """All that the result of a case depends on: a changed case is another task."""
    atoms = case.atoms()
    return {
        "name": case.name,
        "symbols": atoms.get_chemical_symbols(),
        "positions": np.round(atoms.positions, 6).tolist(),
        "charge": case.charge,
        "multiplicity": case.multiplicity,
        "moments": [float(m) for m in case.moments],
        "settings": case.settings,
        "protocol": asdict(PROTOCOL),
    }


def judge(record: dict[str, Any]) -> dict[str, Any]:
    """Add what follows from the numbers of a case."""
    if not record["converged"]:
        return record
    found = [e for e in record["starts"].values() if e is not None]
    above = record["energy"] - min([record["energy"], *found])
    return record | {
        "above_best": above,
        "lowest": above <= PROTOCOL.close,
        "tolerance_met": record["gradient_norm"] <= 3.0 * record["gradient_tolerance"],
        "stable": record["lowest_eigenvalue"] >= PROTOCOL.unstable,
    }


def winner(history: list[dict[str, Any]]) -> str:
    """The strategy that converged first, and how many instabilities were tried after it."""
    first = next(a["strategy"] for a in history if a["converged"] and a["strategy"] != "stability")
    tried = sum(a["strategy"] == "stability" for a in history)
    return first + (f" + {tried} stability" if tried else "")


def summary(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    judged = list(records.values())
    done = [r for r in judged if r["converged"]]
    return {
        "cases": len(judged),
        "converged": len(done),
        "within_close_of_best": sum(r["lowest"] for r in done),
        "tolerance_met": sum(r["tolerance_met"] for r in done),
        "stable": sum(r["stable"] for r in done),
        "cpu_minutes_default": round(sum(r["seconds"] for r in done) / 60, 1),
        "cpu_minutes_all": round(
            sum(r["seconds"] + r["check_seconds"] + r["others_seconds"] for r in done) / 60, 1
        ),
    }


def write_table(records: dict[str, dict[str, Any]], path: Path) -> None:
    """The readable table, in Markdown."""
    total = summary(records)
    missing = [case.name for case in CASES if case.name not in records]
    lines = [
        "# Hard cases for the self-consistent field",
        "",
        f"Written by `benchmarks/scf_zoo.py`: {PROTOCOL.xc}, {PROTOCOL.basis}, grid level "
        f"{PROTOCOL.grid_level}, `conv_tol` {PROTOCOL.conv_tol:g}, everything else as the "
        "calculator does it by default. Complexes have density fitting, and 6-31g on the ligands.",
        "",
        "*Above best* is the energy relative to the lowest of this and of the other starts: "
        "`minao`; other moments, or `atom` for closed shells; a random kick to the converged "
        "orbitals, except for metals; only `vsap` for complexes. They are solved by direct "
        "minimisation or second order, and every instability is followed. *Eigenvalue* is the "
        "lowest one of the orbital Hessian of the final state on the full grid; rotations of "
        "degenerate orbitals have zero, up to the orientation of the grid.",
        "",
        f"{total['converged']} of {total['cases']} converge; {total['within_close_of_best']} are "
        f"within {1000 * PROTOCOL.close:.0f} mHa of the best start; {total['tolerance_met']} meet "
        f"the tolerance of the gradient; {total['stable']} are internally stable (no eigenvalue "
        f"below {PROTOCOL.unstable:g} Ha).",
        *([f"Not computed: {', '.join(missing)}."] if missing else []),
        "",
        "| case | charge | 2S+1 | ref. | strategy | attempts | cycles | CPU s | E / Ha "
        "| above best / mHa | starts | gradient | eigenvalue / Ha |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    group = ""
    for case in CASES:
        if case.name not in records:
            continue
        if case.group != group:
            group = case.group
            lines.append(f"| **{group}** |" + " |" * 12)
        lines.append(_row(case, records[case.name]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _row(case: Case, record: dict[str, Any]) -> str:
    history = record["history"]
    cycles = sum(a["cycles"] for a in history)
    head = f"| {case.name} | {case.charge:+d} | {case.multiplicity} "
    if not record["converged"]:
        return head + f"| | not converged | {len(history)} | {cycles} | | | | | | |"
    above = 1000 * record["above_best"]
    converged = sum(e is not None for e in record["starts"].values())
    return head + (
        f"| {record['reference']} | {winner(history)} | {len(history)} | {cycles} "
        f"| {record['seconds']:.1f} | {record['energy']:.6f} "
        f"| {above if above > 5e-4 else 0.0:.3f} | {converged}/{len(record['starts'])} "
        f"| {record['gradient_norm']:.0e} | {record['lowest_eigenvalue']:.4f} |"
    )


def main(report: Callable[[str], None] = print) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", default="out/scf_zoo", help="folder of the results by case")
    parser.add_argument("--only", nargs="*", help="names of cases to compute; prints their rows")
    parser.add_argument(
        "--report", action="store_true", help="compute nothing, write what is done so far"
    )
    arguments = parser.parse_args()
    one_thread()
    cases = [c for c in CASES if not arguments.only or c.name in arguments.only]
    tasks = {c.name: task_of(c) for c in cases}
    campaign = Campaign(arguments.out, identity="scf-zoo")
    if not arguments.report:
        outcome = campaign.run(tasks.values(), solve_case, retries=0)
        for failure in outcome.failures.values():
            report(f"failed: {failure.reasons[-1]}")
    done = dict(campaign.results())
    keys = {name: task_key(task) for name, task in tasks.items()}
    records = {name: judge(done[key]) for name, key in keys.items() if key in done}
    if arguments.only:
        for case in cases:
            if case.name in records:
                report(_row(case, records[case.name]))
        return
    missing = [name for name in keys if name not in records]
    results = {"summary": summary(records), "not_computed": missing, "cases": records}
    save("scf_zoo", PROTOCOL, results)
    write_table(records, TABLE)


if __name__ == "__main__":
    main()
