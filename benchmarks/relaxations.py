"""Forty relaxations from rattled starts, PBE in plane waves: does any end silently wrong?

python benchmarks/relaxations.py WORK     (resumable: one record per start in WORK)

A relaxation converges, raises, or says that it did not converge. One that converges is wrong if its
energy is neither that of the known minimum (relaxed from the ideal structure) nor that of a
minimum: then the forces at a second, fresh calculation are not small.
"""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms
from common import one_thread, save


@dataclass(frozen=True)
class Protocol:
    functional: str = "pbe"
    # name, cutoff in eV, k-points, smearing in eV
    systems: tuple[tuple[Any, ...], ...] = (
        ("Si2", 200.0, (3, 3, 3), None),
        ("Al3H slab", 150.0, (2, 2, 1), 0.3),
        ("MgO", 300.0, (2, 2, 2), None),
        ("Fe2", 250.0, (2, 2, 2), 0.3),
    )
    starts: int = 10
    rattle_angstrom: float = 0.08
    fmax: float = 0.03
    steps: int = 60
    # two energies are the same within this, per cell
    same_ev: float = 2e-3


def ideal(name: str) -> Atoms:
    """The structure before it is rattled."""
    if name == "MgO":
        return bulk("MgO", "rocksalt", a=4.25)
    if name == "Al3H slab":
        atoms = fcc111("Al", (1, 1, 3), vacuum=4.5)
        add_adsorbate(atoms, "H", 1.0, "fcc")
        atoms.center(vacuum=4.5, axis=2)
        atoms.set_constraint(FixAtoms([0]))
        return atoms
    return bulk("Si", a=5.47) if name == "Si2" else bulk("Fe", cubic=True)


def attempt(atoms: Atoms, case: tuple[Any, ...], protocol: Protocol) -> dict[str, Any]:
    """Relax, and look at the end with a calculator that knows nothing of the way."""
    from ase_neuralxc import NeuralXC
    from ase_neuralxc.errors import NeuralXCError
    from ase_neuralxc.workflows import UnconvergedWarning, relax

    _, ecut, kpts, smearing = case

    def calculator() -> Any:
        # with Gamma: other even grids lack the symmetry of the lattice, and a rattled crystal,
        # which keeps none, then has another energy than the ideal one
        return NeuralXC(
            protocol.functional, backend="gpaw", ecut=ecut, smearing=smearing,
            kpts={"size": kpts, "gamma": True},
        )  # fmt: skip

    atoms.calc = calculator()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnconvergedWarning)
            result = relax(atoms, fmax=protocol.fmax, steps=protocol.steps)
    except NeuralXCError as error:
        return {"outcome": "raised", "message": str(error)[:200]}
    final = result.atoms.copy()
    final.calc = calculator()
    energy = float(final.get_potential_energy())
    return {
        "outcome": "converged" if result.converged else "reported as not converged",
        "steps": result.n_steps,
        "energy": energy,
        "difference_to_fresh": energy - result.energy,
        "fresh_fmax": float(np.linalg.norm(final.get_forces(), axis=1).max()),
        "magmom": float(final.calc.results["magmom"]),
    }


def main() -> None:
    one_thread()
    protocol, work, table, rows = Protocol(), Path(sys.argv[1]), {}, []
    work.mkdir(parents=True, exist_ok=True)
    for case in protocol.systems:
        name = case[0]
        for start in range(-1, protocol.starts):  # -1: not rattled, the known minimum
            path = work / f"{name.replace(' ', '-')}-{start}.json"
            if not path.exists():
                atoms = ideal(name)
                if start >= 0:
                    atoms.rattle(protocol.rattle_angstrom, seed=start)
                row = {"system": name, "start": start, **attempt(atoms, case, protocol)}
                path.write_text(json.dumps(row) + "\n", encoding="utf-8")
                print(row, flush=True)
            row = json.loads(path.read_text(encoding="utf-8"))
            if start < 0:
                known = row
                counts = {"known_energy": row["energy"], "converged": 0, "raised": 0,
                          "reported as not converged": 0, "elsewhere": 0, "wrong": 0}  # fmt: skip
            else:
                counts[row["outcome"]] += 1
                if row["outcome"] == "converged":
                    row["above_known"] = row["energy"] - known["energy"]
                    if row["fresh_fmax"] > 2 * protocol.fmax:
                        counts["wrong"] += 1
                    elif abs(row["above_known"]) > protocol.same_ev:
                        counts["elsewhere"] += 1
            rows.append(row)
        table[name] = counts
        save("relaxations", protocol, {"table": table, "rows": rows})


if __name__ == "__main__":
    main()
