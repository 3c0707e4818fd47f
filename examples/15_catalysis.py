"""From a clean slab to the energy diagram of an adsorbate: label, train, place, rank, move, refine.

    python examples/15_catalysis.py                                    # EMT labels, a minute or two
    python examples/15_catalysis.py --labeller dft --metal Al            # PBE on GPAW, minutes
    python examples/15_catalysis.py --labeller dft --metal Ni --adsorbate CO   # spin-polarised

A potential learns from a few dozen labels, relaxes many placements and finds the way from one site
to the next; DFT refines minima and saddle. Killed? Labels and models are kept: run it again.
"""

import argparse
import math
import warnings
from pathlib import Path

from ase.build import fcc111, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms

from ase_neuralxc import NeuralXC
from ase_neuralxc.settings import build_settings
from ase_neuralxc.workflows import adsorption, batch_relaxer, neb, vibrations
from mlip import MLIP, page
from mlip.active import refine, run_loop
from mlip.active.labeller import as_source, label_all
from mlip.active.loop_config import LoopConfig
from mlip.calculator import CloseContactWarning

#: PBE lattice constant (Angstrom) and initial moment of an atom (mu_B).
METALS = {"Al": (4.04, 0.0), "Cu": (3.63, 0.0), "Ni": (3.52, 0.7), "Pd": (3.94, 0.0)}
#: The species of the gas that make up an adsorbate.
ADSORBATES = {"O": {"O2": 0.5}, "H": {"H2": 0.5}, "CO": {"CO": 1.0}}
DFT = {"xc": "pbe", "backend": "gpaw", "ecut": 350.0, "smearing": 0.2}
LOOP = {
    "starts": "",
    "rounds": 2,
    "committee": 2,
    "selection": {"budget": 8, "uncertain_above": 0.01},
    "training": {
        "epochs": 100,
        "validate_every": 20,
        "batch": {"structures": 4},
        "data": {"valid_fraction": 0.1},
        "model": {"r_max": 5.0, "channels": 8, "hidden": 16, "l_max": 2},
        "loss": {"uncertainty": 0.01},
    },
}


def clean_slab(metal, size):
    """Three layers, of which the upper one moves."""
    constant, moment = METALS[metal]
    slab = fcc111(metal, (size, size, 3), a=constant, vacuum=5.0, periodic=True)
    slab.set_constraint(FixAtoms(mask=slab.get_tags() > 1))
    if moment:
        slab.set_initial_magnetic_moments([moment] * len(slab))
    return slab


def gas_phase(reference, dft, folder):
    """Species of the reference with their energies at the level of the labels."""
    records = label_all([molecule(name) for name in reference], as_source(dft), folder)
    species = {}
    for name, record in zip(reference, records, strict=True):
        species[name] = atoms = record.to_atoms()
        atoms.calc = SinglePointCalculator(atoms, energy=record.energy)
    return species


def adsorption_energies(report, bare, gas_energy):
    """Text: adsorption energies of the points of a refinement, by DFT and by the potential."""
    (clean,) = bare.points
    lines = [f"{'E_ads / eV':28} {'DFT':>8} {'potential':>10} {'expected error':>15}"]
    for point in report.points:
        potential = point.potential_energy - clean.potential_energy - gas_energy
        dft = float("nan")
        if point.dft_energy is not None and clean.dft_energy is not None:
            dft = point.dft_energy - clean.dft_energy - gas_energy
        expected = math.hypot(point.uncertainty, clean.uncertainty)
        lines.append(f"{point.name:28} {dft:8.3f} {potential:10.3f} {expected:15.3f}")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labeller", choices=("emt", "dft"), default="emt")
    parser.add_argument("--metal", choices=tuple(METALS), default="Cu")
    parser.add_argument("--adsorbate", choices=tuple(ADSORBATES), default="O")
    parser.add_argument("--size", type=int, choices=(1, 2), default=1, help="1/size^2 monolayers")
    parser.add_argument("--out", type=Path, default=Path("catalysis"), help="folder")
    arguments = parser.parse_args()
    out = arguments.out
    warnings.simplefilter("ignore", CloseContactWarning)
    slab = clean_slab(arguments.metal, arguments.size)
    adsorbate, reference = arguments.adsorbate, ADSORBATES[arguments.adsorbate]
    n_kpts = 4 // arguments.size
    dft = NeuralXC(**DFT, kpts=(n_kpts, n_kpts, 1)) if arguments.labeller == "dft" else EMT()

    # 1. labels and a potential: placements anywhere, then where the potential takes others
    placed = {"names": [adsorbate], "count": 14}
    settings = {
        **LOOP,
        "out": str(out / "loop"),
        "initial": {"adsorbates": placed, "rattle": {"count": 2, "amplitudes": [0.02, 0.08]}},
        "explore": {"adsorbates": {**placed, "count": 12, "steps": 30}},
    }
    learned = run_loop(build_settings(LoopConfig, settings), starts=[slab], dft=dft)
    potential = MLIP(learned.models)

    # 2. many placements, relaxed in batches, and the sites where they end
    gas = gas_phase(reference, dft, out / "gas")
    gas_energy = sum(n * gas[name].get_potential_energy() for name, n in reference.items())
    together = batch_relaxer(potential.evaluate, fmax=0.02)
    found = adsorption(
        slab, adsorbate, potential, relax_many=together, gas=gas, reference=reference,
        fmax=0.02, n_random=60, rattle=0.05,
    )  # fmt: skip
    print(found.table())

    # 3. the way between the two best sites
    start, end = found.path_ends(1, 2)
    for atoms, entry in zip((start, end), found.ranked, strict=False):
        atoms.info["name"] = entry.site
    vibrating = range(len(slab), len(start))
    path = neb(
        start, end, potential, evaluate=potential.evaluate, n_images=5, relax_ends=False,
        refine="dimer", vibrating=vibrating,
    )  # fmt: skip
    path.saddle.atoms.info["name"] = "saddle"
    print(path.table())

    # 4. DFT at minima, saddle and the clean slab
    options = {"dft": dft, "potential": potential, "stands_below": 0.05, "fmax": 0.05}
    bare = refine([found.slab], budget=4, directory=out / "refine-slab", **options)
    report = refine([start, path.saddle, end], budget=14, directory=out / "refine", **options)
    energies = adsorption_energies(report, bare, gas_energy)
    print(report.table(), energies, sep="\n")

    # 5. vibrations of the adsorbate at its best site
    modes = vibrations(start, potential, indices=list(vibrating))
    print(modes.table())

    # 6. everything on one page
    pictures = {
        "sites": found.plot(out / "sites.png"),
        "path of the potential": path.plot(out / "path.png"),
        "energies, refined": report.diagram(out / "diagram.png"),
    }
    blocks = [page.paragraph(f"{dft!r}")]
    for title, picture in pictures.items():
        blocks += [page.heading(title), page.picture(picture, title)]
    results = (found, report, bare, path, modes, learned)
    blocks += [page.preformatted(text) for text in (energies, *(r.table() for r in results))]
    page.write_html(out / "report.html", f"{adsorbate} on {arguments.metal}(111)", blocks)
    print(f"{out / 'report.html'} written")


if __name__ == "__main__":
    main()
