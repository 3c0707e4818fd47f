"""Speed and memory of one potential, in the environment of its own package; called by mlip_speed.

    python mlip_speed_worker.py CONTENDER TASK

Prints one line of JSON. Times are processor seconds, peaks are resident sets. Imports nothing that
a peer's environment may lack.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Literal

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

R_MAX = 5.0
BATCH = 4
#: Training steps that are timed together: our optimiser has more to do in every tenth.
UPDATE = 10
Step = Callable[[], object]
#: Built by each contender: evaluation of a structure without and with its neighbour list, and a
#: training step on a batch.
Contender = tuple[Callable[[Atoms], tuple[Step, Step]], Callable[[Sequence[Atoms]], Step]]


def copper(repeats: tuple[int, int, int]) -> Atoms:
    """Displaced fcc copper, 4 atoms times the repeats."""
    atoms = bulk("Cu", cubic=True) * repeats
    atoms.rattle(0.05, seed=1)
    return atoms


def water(side: int = 4) -> Atoms:
    """side^3 molecules of random orientation at the density of liquid water."""
    length = side * (1.0 / 0.0334) ** (1.0 / 3.0)
    rng = np.random.default_rng(0)
    atoms = Atoms(cell=[length] * 3, pbc=True)
    for place in np.ndindex(side, side, side):
        single = molecule("H2O")
        single.rotate(rng.uniform(0, 360), rng.normal(size=3), center="COM")
        single.translate(np.array(place) * length / side + 0.1 * rng.normal(size=3))
        atoms += single
    return atoms


def numbers_of(atoms: Atoms) -> list[int]:
    return sorted(set(atoms.numbers.tolist()))


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    """What the peers train with."""
    weights = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(weights, lr=1e-5, fused=True)


def optimised(
    model: torch.nn.Module,
    forward: Callable[[], tuple[torch.Tensor, ...]],
    make: Callable[[torch.nn.Module], torch.optim.Optimizer] = adamw,
) -> Step:
    """A step of the optimiser on squared energies and forces."""
    optimizer = make(model)

    def step() -> None:
        energy, forces = forward()
        loss = 1e-6 * energy.square().mean() + forces.square().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def ours(elements: list[int], optimizer: Literal["soap", "adamw"] = "soap") -> Contender:
    """The default settings of this package, the optimiser as an option."""
    from mlip.data.graph import AtomGraph, collate
    from mlip.data.labelled import assemble
    from mlip.data.neighbours import neighbours
    from mlip.data.structure import Structure
    from mlip.model.potential import Potential
    from mlip.model.settings import ModelSettings
    from mlip.model.sphere_model import SphereModel
    from mlip.training.schedule import make_optimizer
    from mlip.training.settings import OptimizerSettings

    settings = ModelSettings(elements=tuple(elements), r_max=R_MAX, average_neighbours=42.0)
    potential = Potential(SphereModel(settings))

    def graph(atoms: Atoms) -> AtomGraph:
        found = neighbours(atoms.positions, atoms.cell.array, atoms.pbc, R_MAX)
        structure = Structure(
            numbers=atoms.numbers,
            positions=atoms.positions,
            cell=atoms.cell.array,
            pbc=atoms.pbc,
        )
        return assemble(structure, found.edge_index, found.shifts, 0).graph

    def evaluation(atoms: Atoms) -> tuple[Step, Step]:
        potential.eval().requires_grad_(False)
        ready = graph(atoms)
        return lambda: potential(ready), lambda: potential(graph(atoms))

    def training(batch: Sequence[Atoms]) -> Step:
        potential.train()
        ready = collate([graph(atoms) for atoms in batch])

        def forward() -> tuple[torch.Tensor, ...]:
            results = potential(ready)
            return results["energy"], results["forces"]

        chosen = OptimizerSettings(kind=optimizer, lr=1e-5)
        return optimised(potential, forward, lambda model: make_optimizer(model, chosen))

    return evaluation, training


def nequip(elements: list[int], **architecture: object) -> Contender:
    """NequIP 0.13 and later."""
    from ase.data import chemical_symbols
    from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
    from nequip.model import NequIPGNNModel, PresetNequIPGNNModel
    from nequip.utils.global_state import set_global_state

    set_global_state(allow_tf32=False)
    names = [chemical_symbols[z] for z in elements]
    build = PresetNequIPGNNModel if "preset" in architecture else NequIPGNNModel
    model = build(
        seed=0,
        model_dtype="float32",
        type_names=names,
        r_max=R_MAX,
        avg_num_neighbors=42.0,
        per_type_energy_scales=dict.fromkeys(names, 1.0),
        per_type_energy_shifts=dict.fromkeys(names, 0.0),
        **architecture,
    )

    def data(atoms: Atoms) -> dict[str, torch.Tensor]:
        found = compute_neighborlist_(from_ase(atoms), r_max=R_MAX)
        types = [names.index(symbol) for symbol in atoms.symbols]
        found[AtomicDataDict.ATOM_TYPE_KEY] = torch.tensor(types)
        return found

    def evaluation(atoms: Atoms) -> tuple[Step, Step]:
        model.eval().requires_grad_(False)
        ready = data(atoms)
        return lambda: model(dict(ready)), lambda: model(data(atoms))

    def training(batch: Sequence[Atoms]) -> Step:
        model.train()
        ready = AtomicDataDict.batched_from_list([data(atoms) for atoms in batch])

        def forward() -> tuple[torch.Tensor, ...]:
            out = model(dict(ready))
            return out[AtomicDataDict.TOTAL_ENERGY_KEY], out[AtomicDataDict.FORCE_KEY]

        return optimised(model, forward)

    return evaluation, training


def sevenn(elements: list[int]) -> Contender:
    """SevenNet's default settings with l = 2."""
    import sevenn._keys as keys
    from sevenn._const import DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from torch_geometric.data import Batch

    config = dict(DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG)
    config.update(
        {
            keys.LMAX: 2,
            keys.CUTOFF: R_MAX,
            keys.IS_PARITY: False,
            keys.NUM_SPECIES: len(elements),
            keys.TYPE_MAP: {z: index for index, z in enumerate(elements)},
            keys.SHIFT: 0.0,
            keys.SCALE: 1.0,
            keys.CONV_DENOMINATOR: 42.0**0.5,
        }
    )
    model = build_E3_equivariant_model(config)
    model.eval_type_map = torch.tensor(True)

    def data(atoms: Atoms) -> AtomGraphData:
        found = unlabeled_atoms_to_graph(atoms, R_MAX, with_shift=False)
        return AtomGraphData.from_numpy_dict(found)

    def evaluation(atoms: Atoms) -> tuple[Step, Step]:
        model.eval().requires_grad_(False)
        model.set_is_batch_data(False)
        ready = data(atoms)
        return lambda: model(ready.clone()), lambda: model(data(atoms))

    def training(batch: Sequence[Atoms]) -> Step:
        model.train()
        model.set_is_batch_data(True)
        ready = Batch.from_data_list([data(atoms) for atoms in batch])

        def forward() -> tuple[torch.Tensor, ...]:
            out = model(ready.clone())
            return out[keys.PRED_TOTAL_ENERGY], out[keys.PRED_FORCE]

        return optimised(model, forward)

    return evaluation, training


def mace(elements: list[int]) -> Contender:
    """MACE with its usual settings: 128x0e + 128x1o, edges to l = 3, correlation 3, two layers."""
    from e3nn import o3
    from mace.data import AtomicData, config_from_atoms
    from mace.modules import ScaleShiftMACE, interaction_classes
    from mace.tools import AtomicNumberTable
    from mace.tools.torch_geometric import Batch

    model = ScaleShiftMACE(
        r_max=R_MAX,
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps("128x0e + 128x1o"),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=42.0,
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
    )
    table = AtomicNumberTable(elements)

    def data(batch: Sequence[Atoms]) -> dict[str, torch.Tensor]:
        single = [
            AtomicData.from_config(config_from_atoms(a), z_table=table, cutoff=R_MAX) for a in batch
        ]
        return Batch.from_data_list(single).to_dict()

    def evaluation(atoms: Atoms) -> tuple[Step, Step]:
        model.eval().requires_grad_(False)
        ready = data([atoms])
        return lambda: model(dict(ready)), lambda: model(data([atoms]))

    def training(batch: Sequence[Atoms]) -> Step:
        model.train()
        ready = data(batch)

        def forward() -> tuple[torch.Tensor, ...]:
            out = model(dict(ready), training=True)
            return out["energy"], out["forces"]

        return optimised(model, forward)

    return evaluation, training


CONTENDERS: dict[str, Callable[[list[int]], Contender]] = {
    "ours": ours,
    "nequip S": lambda elements: nequip(elements, preset="S"),
    "nequip l=2": lambda elements: nequip(
        elements, l_max=2, num_layers=4, num_features=32, parity=False
    ),
    "sevenn l=2": sevenn,
    "mace": mace,
}


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def timed(step: Step, seconds: float = 3.0, together: int = 1) -> dict[str, float]:
    """Processor time of a step: five at least, then as many as fit, each the mean of `together`."""
    for _ in range(3):
        step()
    times: list[float] = []
    while len(times) < 5 or (sum(times) * together < seconds and len(times) < 100):
        start = time.process_time()
        for _ in range(together):
            step()
        times.append((time.process_time() - start) / together)
    return {"median_s": median(times), "min_s": min(times), "repeats": len(times)}


def batch() -> list[Atoms]:
    """Copper to train on."""
    images = [copper((2, 2, 2)) for _ in range(BATCH)]
    for seed, atoms in enumerate(images):
        atoms.rattle(0.05, seed=seed + 2)
    return images


def optimisers(rounds: int = 10) -> dict[str, float]:
    """Structures per second in training with either of our optimisers, which take turns."""
    images = batch()
    kinds: tuple[Literal["soap", "adamw"], ...] = ("soap", "adamw")
    steps = {kind: ours(numbers_of(images[0]), kind)[1](images) for kind in kinds}
    times: dict[str, list[float]] = {kind: [] for kind in kinds}
    for turn in range(-1, rounds):
        for kind in kinds if turn % 2 else reversed(kinds):
            start = time.process_time()
            for _ in range(UPDATE):
                steps[kind]()
            if turn >= 0:
                times[kind].append((time.process_time() - start) / UPDATE)
    return {f"{kind}_structures_per_s": BATCH / median(each) for kind, each in times.items()}


def main() -> None:
    name, task = sys.argv[1:]
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    if task == "optimisers":
        row = optimisers()
        before = peak_mb()
    elif task == "training":
        images = batch()
        _, training = CONTENDERS[name](numbers_of(images[0]))
        step = training(images)
        before = peak_mb()
        row = timed(step, seconds=6.0, together=UPDATE)
        row["structures_per_s"] = BATCH / row["median_s"]
    else:
        atoms = water() if task == "water" else copper(tuple(map(int, task.split("x"))))
        evaluation, _ = CONTENDERS[name](numbers_of(atoms))
        step, with_list = evaluation(atoms)
        before = peak_mb()
        row = timed(step)
        row["peak_mb"] = peak_mb()
        row["atoms"] = len(atoms)
        row["atom_steps_per_s"] = len(atoms) / row["median_s"]
        row["atom_steps_per_s_with_list"] = len(atoms) / timed(with_list)["median_s"]
    row["before_mb"] = before
    row.setdefault("peak_mb", peak_mb())
    sys.stdout.write(json.dumps({key: round(value, 6) for key, value in row.items()}) + "\n")


if __name__ == "__main__":
    main()
