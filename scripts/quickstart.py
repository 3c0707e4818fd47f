"""The closed loop on a small molecule: label, train, explore, ask again, refine.

Ammonia turns inside out over a planar saddle. Some dozens of DFT labels train a potential of its
own; the potential finds the minima and the barrier between them, DFT refines these points, and
everything ends in one page, quickstart/report.html. Killed? Run it again: it goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from ase import Atoms
from ase.build import molecule
from tqdm import tqdm

from ase_neuralxc import NeuralXC
from ase_neuralxc.process import guarded
from ase_neuralxc.settings import build_settings
from ase_neuralxc.workflows import neb, relax
from mlip import MLIP, page
from mlip.active import refine, run_loop
from mlip.active.loop_config import LoopConfig
from mlip.calculator import CloseContactWarning

SETTINGS = {
    "rounds": 2,
    "initial": {"rattle": {"count": 4, "amplitudes": [0.04, 0.1]}},
    "explore": {
        "md": {"temperatures": [400, 800], "steps": 300, "interval": 10},
        "path": {"images": 7, "steps": 10},
    },
    "selection": {"budget": 8, "uncertain_above": 0.02},
    "training": {
        "epochs": 150,
        "validate_every": 20,
        "data": {"valid_fraction": 0.15},
        "model": {"r_max": 4.5, "channels": 16, "hidden": 32, "l_max": 3},
        "loss": {"uncertainty": 0.01},
    },
}


def pyramids() -> list[Atoms]:
    """Ammonia and its mirror image, which it becomes by inversion."""
    first = molecule("NH3")
    second = first.copy()
    second.positions[:, 2] *= -1.0
    return [first, second]


def show(text: str) -> None:
    with tqdm.external_write_mode():
        print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="quickstart", type=Path, help="folder")
    parser.add_argument("--workers", default=2, type=int, help="processes that label")
    arguments = parser.parse_args()
    started = time.perf_counter()
    dft = NeuralXC(basis="def2-svp", density_fit=True)

    # 1. explore, select, label, train
    loop = {"starts": "", "out": str(arguments.out / "loop"), "workers": arguments.workers}
    config = build_settings(LoopConfig, {**SETTINGS, **loop})
    with tqdm(file=sys.stderr, unit="epoch", leave=False) as bar:

        def report(done: int, total: int, message: str) -> None:
            bar.total = total
            bar.set_postfix_str(message, refresh=False)
            bar.update(done - bar.n)

        learned = run_loop(config, show, report, starts=pyramids(), dft=dft)

    # 2. minima and the barrier between them, on the potential
    calc = MLIP(learned.models)
    warnings.simplefilter("ignore", CloseContactWarning)
    minima = []
    for atoms, name in zip(pyramids(), ("pyramid", "mirror image"), strict=True):
        minimum = relax(atoms, calc, fmax=0.005).atoms
        minimum.info["name"] = name
        minima.append(minimum)
    path = neb(*minima, calc, n_images=7, relax_ends=False, keep_order=True, refine="dimer")
    show(path.table())

    # 3. DFT at the points that matter
    path.saddle.atoms.info["name"] = "planar"
    refined = refine(
        [minima[0], path.saddle, minima[1]],
        dft=dft,
        potential=calc,
        budget=12,
        stands_below=0.03,
        reference="pyramid",
        directory=arguments.out / "refine",
        append_to=arguments.out / "refined.extxyz",
    )
    show(refined.table())

    # 4. everything on one page
    seconds = time.perf_counter() - started
    pictures = [
        (path.plot(arguments.out / "path.png"), "path of the potential"),
        (refined.diagram(arguments.out / "diagram.png"), "energies, refined with DFT"),
        (arguments.out / "loop" / "report.png", "errors and labels by round"),
    ]
    blocks = [page.paragraph(f"{dft!r}, {seconds:.0f} s.")]
    for picture, title in pictures:
        blocks += [page.heading(title), page.picture(picture, title)]
    blocks += [page.preformatted(text) for text in (refined.table(), path.table(), learned.table())]
    page.write_html(arguments.out / "report.html", "Ammonia: label, train, refine", blocks)
    show(f"\n{arguments.out / 'report.html'} written after {seconds:.0f} s")
    return 0 if all(point.verdict == "stands" for point in refined.points) else 1


if __name__ == "__main__":
    raise SystemExit(guarded("quickstart", main))
