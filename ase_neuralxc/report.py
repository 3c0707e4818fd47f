"""The readable log of a calculation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any

import numpy as np

from ase_neuralxc.backend.solution import KSSolution
from ase_neuralxc.records import units


def write_report(
    stream: IO[str], solution: KSSolution, results: Mapping[str, Any], title: str
) -> None:
    """Write the SCF history, the itemised energy and the results.

    Args:
        stream: text stream.
        solution: a converged solution.
        results: the calculator's results, in ASE units.
        title: first line.
    """
    sizes = [
        f"{n} {name.removeprefix('n_').replace('_', ' ')}" for name, n in solution.sizes.items()
    ]
    lines = [title, "  " + ", ".join([solution.reference.upper(), *sizes])]
    for attempt in solution.history:
        state = "converged" if attempt.converged else "not converged"
        lines.append(
            f"  {attempt.strategy:<12} {attempt.cycles:4d} cycles  {attempt.energy:18.10f} Ha  "
            f"|g| = {attempt.gradient_norm:.1e}  {attempt.seconds:8.2f} s  {state}"
        )
    for name, value in solution.energies.items():
        lines.append(f"  {name:<24} {value:20.10f} Ha {value * units.HARTREE_EV:20.8f} eV")
    if "forces" in results:
        largest = np.linalg.norm(results["forces"], axis=1).max()
        lines.append(f"  largest force            {largest:20.10f} eV/A")
    stream.write("\n".join(lines) + "\n")
    stream.flush()
