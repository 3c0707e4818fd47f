"""A barrier from potential + refinement against a climbing-image NEB on DFT itself.

The inversion of ammonia. The potential comes from a loop like that of `scripts/quickstart.py`,
smaller and at a cheap level of DFT; the reference is a NEB of this package with every
force from DFT, its saddle sharpened with the dimer method. Every DFT calculation is counted, those
of the training apart. Resumable: out/refined_barrier.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from common import one_thread, save

from ase_neuralxc import NeuralXC
from ase_neuralxc.campaign import Campaign, task_key
from ase_neuralxc.settings import build_settings
from ase_neuralxc.workflows import neb, relax
from mlip import MLIP
from mlip.active import refine, run_loop
from mlip.active.loop_config import LoopConfig
from mlip.calculator import CloseContactWarning

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
from quickstart import SETTINGS, pyramids

FOLDER = Path("out/refined_barrier")


@dataclass(frozen=True)
class Protocol:
    dft: dict[str, Any] = field(
        default_factory=lambda: {
            "xc": "libxc:lda,vwn",
            "basis": "sto-3g",
            "density_fit": True,
            "grid_level": 1,
        }
    )
    loop: dict[str, Any] = field(
        default_factory=lambda: {
            **SETTINGS,
            "rounds": 1,
            "training": {
                **SETTINGS["training"],
                "epochs": 60,
                "model": {"r_max": 4.5, "channels": 8, "hidden": 16, "l_max": 2},
            },
        }
    )
    n_images: int = 5
    band_fmax: float = 0.05
    ends_fmax: float = 0.02
    saddle_fmax: float = 0.02


class Counting(NeuralXC):
    """NeuralXC that counts its self-consistent fields."""

    count = 0

    def _solve(self) -> None:
        Counting.count += 1
        super()._solve()


def reference(task: dict[str, Any], attempt: int) -> dict[str, Any]:
    """The NEB on DFT, from the same starts."""
    protocol = replace(Protocol(), **task)
    Counting.count = 0
    ends: list[Atoms] = []
    for atoms in pyramids():
        atoms.calc = Counting(**protocol.dft)
        ends.append(relax(atoms, fmax=protocol.ends_fmax).atoms)
    calls = {"ends": Counting.count}
    result = neb(
        *ends,
        lambda: Counting(**protocol.dft),
        n_images=protocol.n_images,
        fmax=protocol.band_fmax,
        relax_ends=False,
        keep_order=True,
        refine="dimer",
        refine_fmax=protocol.saddle_fmax,
        verify=False,
    )
    calls["path and saddle"] = Counting.count - calls["ends"]
    return {
        "barrier": result.barrier,
        "reaction_energy": result.reaction_energy,
        "converged": bool(result.converged),
        "calls": calls,
    }


def refined(protocol: Protocol) -> dict[str, Any]:
    """Potential and refinement."""
    dft = NeuralXC(**protocol.dft)
    settings = {**protocol.loop, "starts": "", "out": str(FOLDER / "loop")}
    learned = run_loop(build_settings(LoopConfig, settings), starts=pyramids(), dft=dft)
    calc = MLIP(learned.models)
    warnings.simplefilter("ignore", CloseContactWarning)
    minima = []
    for atoms, name in zip(pyramids(), ("first", "second"), strict=True):
        minimum = relax(atoms, calc, fmax=0.005).atoms
        minimum.info["name"] = name
        minima.append(minimum)
    path = neb(*minima, calc, n_images=7, relax_ends=False, keep_order=True, refine="dimer")
    path.saddle.atoms.info["name"] = "saddle"
    results: dict[str, Any] = {"labels": learned.rows[-1].labels}
    for title, potential in (("single points", None), ("moved", calc)):
        report = refine(
            [*minima, path.saddle],
            dft=dft,
            potential=potential,
            budget=30,
            stands_below=protocol.saddle_fmax,
            fmax=protocol.saddle_fmax,
            reference="first",
        )
        relative = report.relative()
        results[title] = {
            "barrier_potential": relative["saddle"][0],
            "barrier": relative["saddle"][1],
            "reaction_energy": relative["second"][1],
            "calls": report.n_dft,
            "largest_dft_forces": [round(float(p.dft_fmax or np.nan), 4) for p in report.points],
        }
    return results


def main() -> None:
    one_thread()
    protocol = Protocol()
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = refined(protocol)
    task = {"dft": protocol.dft}
    campaign = Campaign(FOLDER / "reference", identity=f"{asdict(protocol)}")
    campaign.run([task], reference, retries=0)
    known = campaign.load(task_key(task))
    calls = sum(known["calls"].values())
    for title in ("single points", "moved"):
        row = found[title]
        row["barrier_error_eV"] = round(row["barrier"] - known["barrier"], 4)
        row["calls_by_reference"] = round(row["calls"] / calls, 4)
    save("refined_barrier", protocol, {"reference": known, "refined": found})


if __name__ == "__main__":
    main()
