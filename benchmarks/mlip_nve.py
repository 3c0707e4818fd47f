"""Drift of the total energy in molecular dynamics with trained potentials.

    OMP_NUM_THREADS=1 python benchmarks/mlip_nve.py --work FOLDER

Two small potentials with the default architecture, trained on labels that anybody can make again:
copper from ASE's EMT, water from a flexible force field (bonds and angles of SPC/Fw, its
Lennard-Jones and charges with a smooth cutoff). Then 256 copper atoms and 64 waters at constant
energy for 10 ps, in float32 and in float64. The drift is the slope of the total energy; the
fluctuation about the line is that of the integrator. Everything resumes with the same command.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from common import one_thread, save
from mlip_speed_worker import water

from ase_neuralxc.records.files import atomic_write
from ase_neuralxc.workflows import md, relax
from mlip import MLIP
from mlip.training.config import build_config
from mlip.training.run import resume, train
from mlip.training.trainer import STATE_FILE


@dataclass(frozen=True)
class Protocol:
    picoseconds: float = 10.0
    timestep_fs: tuple[tuple[str, float], ...] = (("copper", 4.0), ("water", 1.0))
    temperature_k: float = 300.0
    equilibration_steps: int = 500
    # training frames from dynamics at these multiples of the temperature, 50 fs apart
    heat: tuple[float, ...] = (1.0, 1.5, 2.0)
    frames_each: int = 20
    epochs: int = 40
    zbl: bool = True
    target_mev_per_atom_ps: float = 0.1


class FlexibleWater(Calculator):
    """Molecules O, H, H in this order, periodic; SPC/Fw with interactions that end at `cutoff`."""

    implemented_properties = ["energy", "free_energy", "forces"]
    #: eV and Angstrom: bond, angle, Lennard-Jones of oxygen, charge of oxygen, e^2 / (4 pi eps0).
    bond, length, angle, theta = 45.93, 1.012, 3.291, np.deg2rad(113.24)
    epsilon, sigma, charge, coulomb = 0.006739, 3.1655, -0.82, 14.3996
    cutoff = 5.0

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes):
        super().calculate(atoms, properties, system_changes)
        positions = torch.tensor(self.atoms.positions, requires_grad=True)
        energy = self.energy(positions, torch.tensor(self.atoms.cell.lengths()))
        (gradient,) = torch.autograd.grad(energy, positions)
        value = float(energy.detach())
        self.results = {"energy": value, "free_energy": value, "forces": -gradient.numpy()}

    def energy(self, positions: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
        molecules = positions.view(-1, 3, 3)
        arms = molecules[:, 1:] - molecules[:, :1]
        lengths = arms.norm(dim=2)
        cosine = (arms[:, 0] * arms[:, 1]).sum(1) / lengths.prod(1)
        inside = self.bond * (lengths - self.length).square().sum() / 2
        inside = inside + self.angle * (torch.acos(cosine) - self.theta).square().sum() / 2
        n = len(positions)
        first, second = torch.triu_indices(n, n, 1)
        apart = first // 3 != second // 3
        first, second = first[apart], second[apart]
        vectors = positions[second] - positions[first]
        vectors = vectors - box * torch.round(vectors / box)
        square = vectors.square().sum(1)
        near = square < self.cutoff**2
        first, second, r = first[near], second[near], square[near].sqrt()
        charges = positions.new_full((n,), -self.charge / 2)
        charges[::3] = self.charge
        pairs = self.coulomb * charges[first] * charges[second] / r
        oxygens = (first % 3 == 0) & (second % 3 == 0)
        sixth = (self.sigma / r) ** 6
        pairs = pairs + torch.where(oxygens, 4 * self.epsilon * (sixth**2 - sixth), 0.0)
        # smooth to the second derivative, so that the labels are those of a conservative model
        x = r / self.cutoff
        return inside + (pairs * (1 - x**3 * (10 - x * (15 - 6 * x)))).sum()


def start(system: str) -> tuple[Atoms, Calculator]:
    if system == "copper":
        return bulk("Cu", cubic=True) * (2, 2, 2), EMT()
    return water(), FlexibleWater()


def labelled(system: str, protocol: Protocol) -> tuple[list[Atoms], Atoms]:
    """Frames of a trajectory with the reference, and the start of the runs.

    Copper is labelled in cells of 32 atoms.
    """
    atoms, reference = start(system)
    atoms = relax(atoms, reference, fmax=0.5, steps=200).atoms
    settings = {"ensemble": "nvt", "friction": 0.02, "timestep": 1.0, "seed": 1}
    frames = []
    settings |= {"interval": 50, "steps": protocol.equilibration_steps + 50 * protocol.frames_each}
    for factor in protocol.heat:
        run = md(atoms, reference, temperature=factor * protocol.temperature_k, **settings)
        frames += run.frames[-protocol.frames_each :]
        atoms = run.frames[-1].copy()  # dynamics moves the atoms that it is given
    for frame in frames:
        frame.calc = reference
        results = {"energy": frame.get_potential_energy(), "forces": frame.get_forces()}
        frame.calc = SinglePointCalculator(frame, **results)
    begin = frames[protocol.frames_each - 1].copy()
    if system == "copper":
        begin = begin * (2, 2, 2)
        del begin.arrays["momenta"]  # images of an atom are to move on their own: drawn anew
    return frames, begin


def model(system: str, work: Path, protocol: Protocol) -> tuple[Path, Atoms]:
    """The potential of a system and the start of its runs."""
    data, first = work / "labels.xyz", work / "start.xyz"
    if not first.exists():
        frames, begin = labelled(system, protocol)
        ase.io.write(data, frames, format="extxyz")
        begin.calc = None
        ase.io.write(first, begin, format="extxyz")
    run = work / "run"
    if (run / "model.pt").exists():
        path = run / "model.pt"
    elif (run / STATE_FILE).exists():
        path = resume(run)
    else:
        config = {
            "out": str(run),
            "epochs": protocol.epochs,
            "batch": {"structures": 1},
            "data": {"train": [str(data)]},
            "model": {"zbl": protocol.zbl},
        }
        path = train(build_config(config))
    return path, ase.io.read(first)


def drift(path: Path, atoms: Atoms, timestep: float, dtype: str, file: Path, protocol: Protocol):
    """Slope and scatter of the total energy per atom."""
    steps = round(1000.0 * protocol.picoseconds / timestep)
    run = md(
        atoms,
        MLIP(path, dtype=dtype),
        ensemble="nve",
        timestep=timestep,
        steps=steps,
        interval=steps // 500,
        temperature=protocol.temperature_k,
        trajectory=file,
        restart=True,
    )
    energies = np.array([frame.get_total_energy() for frame in run.frames]) / len(atoms)
    times = np.linspace(0.0, protocol.picoseconds, len(energies))
    slope, offset = np.polyfit(times, energies, 1)
    left = energies - slope * times - offset
    return {
        "drift_mev_per_atom_ps": float(1000.0 * slope),
        "fluctuation_mev_per_atom": float(1000.0 * left.std()),
        "mean_temperature_k": float(np.mean([frame.get_temperature() for frame in run.frames])),
        "steps": steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder of models and runs")
    parser.add_argument("--only", nargs="*", default=[], help="for example copper-float32")
    arguments = parser.parse_args()
    one_thread()
    protocol = Protocol()
    stored = arguments.work / "results.json"
    results: dict[str, Any] = json.loads(stored.read_text()) if stored.exists() else {}
    for dtype in ("float32", "float64"):
        for system, timestep in protocol.timestep_fs:
            name, work = f"{system}-{dtype}", arguments.work / system
            if name in results or (arguments.only and name not in arguments.only):
                continue
            work.mkdir(parents=True, exist_ok=True)
            path, atoms = model(system, work, protocol)
            file = work / f"{dtype}.traj"
            results[name] = drift(path, atoms, timestep, dtype, file, protocol)
            atomic_write(stored, json.dumps(results).encode())
    save("mlip_nve", protocol, results)


if __name__ == "__main__":
    main()
