"""The potential as a model of torch-sim (extra `torchsim`): many systems at once, in tensors.

import torch_sim
from mlip.torchsim import TorchSimModel
torch_sim.optimize(system=images, model=TorchSimModel("model.pt"), optimizer=...)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError, MissingDependencyError
from mlip.data.graph import UNKNOWN_FLAG, AtomGraph
from mlip.data.labelled import fidelity_index
from mlip.data.neighbours import SkinNeighbours
from mlip.evaluation import Committee
from mlip.training.checkpoint import load_potential

try:
    from torch_sim.models.interface import ModelInterface
    from torch_sim.state import SimState
except ImportError as error:
    raise MissingDependencyError(
        f"mlip.torchsim needs torch-sim: pip install 'ase-neuralxc[torchsim]' ({error})"
    ) from error


class TorchSimModel(ModelInterface):
    """A trained potential, or a committee of several, behind torch-sim's interface.

    States of torch-sim have neither charge nor moments: what a model knows of the charge is taken
    as unknown, and a model with moments as an input is refused.

    Args:
        model: file of a model or folder of its run; several are averaged.
        device: torch device.
        dtype: "float32" or "float64"; that of the training if None.
        fidelity: level of theory, for models that know several.
        stress: compute the stress, which needs periodic systems.
        skin: in Angstrom, of the neighbour lists.

    Raises:
        InvalidInputError: a model with moments as an input, models whose energies do not compare,
            or an unknown fidelity.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path],
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        fidelity: str | None = None,
        stress: bool = True,
        skin: float = 0.5,
    ) -> None:
        super().__init__()
        paths = [Path(p) for p in ([model] if isinstance(model, str | Path) else model)]
        files = [path / "model.pt" if path.is_dir() else path for path in paths]
        loaded = [load_potential(path, device, dtype) for path in files]
        self.committee = Committee(tuple(p for p, _ in loaded), tuple(c for _, c in loaded))
        settings = self.committee.potentials[0].model.settings
        if settings.moments != "none":
            raise InvalidInputError(
                f"model: expected one without moments as an input (states of torch-sim have none), "
                f"got moments={settings.moments!r}"
            )
        self._level = fidelity_index(fidelity or "", settings.fidelities, "TorchSimModel")
        self._device = torch.device(device)
        self._dtype = next(self.committee.potentials[0].parameters()).dtype
        self._compute_forces, self._compute_stress = True, stress
        self._skin = skin
        self._lists: list[SkinNeighbours] = []

    @property
    def compute_stress(self) -> bool:
        """Whether `forward` gives the stress."""
        return self._compute_stress

    @compute_stress.setter
    def compute_stress(self, wanted: bool) -> None:
        self._compute_stress = wanted

    @property
    def compute_forces(self) -> bool:
        """Whether `forward` gives forces: always, they come with the energy."""
        return self._compute_forces

    @compute_forces.setter
    def compute_forces(self, wanted: bool) -> None:
        self._compute_forces = wanted

    def forward(self, state: SimState | dict[str, Tensor], **kwargs: Any) -> dict[str, Tensor]:
        """Energies, forces and stress of all systems of a state.

        Args:
            state: of torch-sim, or the dictionary of one.
            **kwargs: of the interface, of which this model knows none.

        Returns:
            "energy" [systems] in eV, "forces" [atoms, 3] in eV/Angstrom, "stress" [systems, 3, 3]
            in eV/Angstrom^3 if asked, in the precision of the model.

        Raises:
            InvalidInputError: an unknown element, a stress without a cell, or an argument.
        """
        if kwargs:
            raise InvalidInputError(f"forward: expected a state and nothing else, got {kwargs}")
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        self.committee.check_elements(state.atomic_numbers.unique().tolist())
        out = self.committee.compute(self._graph(state), self._compute_stress)
        names = ["energy", *["forces"] * self._compute_forces, *["stress"] * self._compute_stress]
        return {name: out[name].detach().to(self._dtype) for name in names}

    def _graph(self, state: SimState) -> AtomGraph:
        n_graphs, floats = state.n_systems, torch.float64
        counts = torch.bincount(state.system_idx, minlength=n_graphs)
        first = (counts.cumsum(0) - counts).tolist()
        cells = state.row_vector_cell.to(self._device, floats)
        while len(self._lists) < n_graphs:
            self._lists.append(SkinNeighbours(self.committee.r_max, self._skin, self._device))
        positions = state.positions.to(self._device, floats)
        pbc = np.broadcast_to(np.asarray(state.pbc), 3)
        on_host, boxes = positions.cpu().numpy(), cells.cpu().numpy()
        edges, shifts = [], []
        for k, (start, count) in enumerate(zip(first, counts.tolist(), strict=True)):
            here = on_host[start : start + count]
            pairs, cross = self._lists[k].update(here, boxes[k], pbc)
            edges.append(pairs + start)
            shifts.append(cross)
        unknown = positions.new_full((n_graphs,), torch.nan)
        return AtomGraph(
            numbers=state.atomic_numbers.to(self._device, torch.long),
            positions=positions,
            cell=cells,
            edge_index=torch.cat(edges, dim=1),
            shifts=torch.cat(shifts),
            batch=state.system_idx.to(self._device, torch.long),
            n_graphs=n_graphs,
            charge=unknown,
            n_unpaired=unknown,
            spin_polarised=torch.full_like(counts, UNKNOWN_FLAG).to(self._device),
            fidelity=torch.full_like(counts, self._level).to(self._device),
        )
