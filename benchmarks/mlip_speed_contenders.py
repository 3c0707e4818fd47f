"""The potentials that mlip_speed compares, each built with the package of its own.

Packages are imported by the potential that needs them: the others may not be there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from ase import Atoms

R_MAX = 5.0
Step = Callable[[], object]
#: Built by each contender: evaluation of a structure without and with its neighbour list, and a
#: training step on a batch.
Contender = tuple[Callable[[Atoms], tuple[Step, Step]], Callable[[Sequence[Atoms]], Step]]


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
