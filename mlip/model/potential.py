"""From a model's atomic energies to everything an atomistic simulation asks for.

One wrapper for all architectures. The energy depends on the geometry through the edge vectors v
alone, so that a single derivative g = dE/dv gives both forces (each edge pulls at its two ends) and
stress ((1/V) sum v g, the derivative with respect to a strain of all edges).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ase_neuralxc.errors import InvalidInputError
from mlip.data.graph import AtomGraph
from mlip.model.allocator import keep_freed_memory
from mlip.model.protocol import SpinAwareModel
from mlip.model.species import SpeciesIndex
from mlip.model.zbl import ZBL


@dataclass(frozen=True)
class Wanted:
    """What to compute beside the energy.

    Attributes:
        forces: forces.
        stress: stress, of structures with a cell of non-zero volume.
        magnetic_forces: -dE/dm, of models with moments as an input.
        uncertainty: spread of the ensemble of readouts, of the energy and, with `forces`, of the
            forces (one more derivative per readout, on shared features).
        features: invariants from which the readouts make the energies.
    """

    forces: bool = True
    stress: bool = False
    magnetic_forces: bool = False
    uncertainty: bool = False
    features: bool = False


class Potential(nn.Module):
    """A model with the reference energies of its elements.

    In training mode the results carry gradients with respect to the weights, forces included.

    Args:
        model: atomic energies.
        reference_energies: [fidelities or 1, elements] energy of each isolated atom in eV, in the
            order of `model.settings`; zeros if None.

    Raises:
        InvalidInputError: reference energies of another shape.
    """

    reference_energies: Tensor

    def __init__(
        self,
        model: SpinAwareModel,
        reference_energies: Tensor | Sequence[Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        keep_freed_memory()
        self.model = model
        settings = model.settings
        shape = (max(len(settings.fidelities), 1), len(settings.elements))
        if reference_energies is None:
            reference_energies = torch.zeros(shape)
        table = torch.as_tensor(reference_energies, dtype=torch.float64)
        if tuple(table.shape) != shape:
            raise InvalidInputError(
                f"reference_energies: expected shape {list(shape)} (fidelities, elements), got "
                f"{list(table.shape)}"
            )
        self.register_buffer("reference_energies", table)
        self.species = SpeciesIndex(settings.elements)
        self.zbl = ZBL(settings.elements) if settings.zbl else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        # Energies of atoms reach 1e6 eV: rounded to float32 they would be off by 0.1 eV.
        table = self.reference_energies
        super()._apply(fn, recurse)
        self.reference_energies = table.to(self.reference_energies.device)
        return self

    def forward(self, graph: AtomGraph, wanted: Wanted | None = None) -> dict[str, Tensor]:
        """Compute.

        Args:
            graph: the batch, positions in any precision; the model works in that of its weights.
            wanted: what to compute, forces if None.

        Returns:
            "energy" [g] (float64) and "energies" [n] in eV; as wanted "forces" [n, 3] in
            eV/Angstrom, "stress" [g, 3, 3] in eV/Angstrom^3, "magnetic_forces" [n] or [n, 3] in
            eV/mu_B and, of vector moments, "torques" [n, 3] m x (-dE/dm) in eV,
            "energy_uncertainty" [g] and "forces_uncertainty" [n] (standard deviations
            over the readouts; of the length of the force error); "member_energy" [g, members] of
            the readouts; "features" [n, f]; "magmoms" if the model predicts moments.

        Raises:
            InvalidInputError: input the model cannot use (elements, fidelity, moments, cell).
        """
        wanted = wanted or Wanted()
        self._check(graph, wanted)
        dtype = next(self.parameters()).dtype
        vectors = graph.edge_vectors().to(dtype)
        magmoms = graph.magmoms
        leaves = []
        if wanted.forces or wanted.stress:
            leaves.append(vectors := vectors.detach().requires_grad_())
        if wanted.magnetic_forces:
            assert magmoms is not None
            leaves.append(magmoms := magmoms.detach().to(dtype).requires_grad_())
        with torch.set_grad_enabled(self.training or bool(leaves)):
            out, totals = self._energies(graph, vectors, magmoms)
            results = dict(out)
            if not wanted.features:
                del results["features"]
            if leaves:
                keep = self.training or wanted.uncertainty
                results |= self._derivatives(graph, wanted, totals.mean(1).sum(), leaves, keep)
            if wanted.uncertainty:
                results |= self._uncertainty(graph, wanted, totals, vectors, results)
        if self.training:
            return results
        return {name: value.detach() for name, value in results.items()}

    def _energies(
        self, graph: AtomGraph, vectors: Tensor, magmoms: Tensor | None
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Results without derivatives, and the [g, members] energies without references."""
        out = self.model(graph, vectors, magmoms)
        species = self.species(graph.numbers)
        energies, members = out["energies"].double(), out["member_energies"].double()
        if self.zbl is not None:
            distances = vectors.square().sum(1).sqrt()
            repulsion = self.zbl(distances, *graph.edge_index, species).double()
            energies, members = energies + repulsion, members + repulsion[:, None]
        table = self.reference_energies
        level = graph.fidelity.index_select(0, graph.batch)
        reference = table.view(-1).index_select(0, level * table.shape[1] + species)
        totals = members.new_zeros(graph.n_graphs, members.shape[1])
        totals = totals.index_add(0, graph.batch, members)
        offset = reference.new_zeros(graph.n_graphs).index_add(0, graph.batch, reference)
        results = {
            "energies": energies + reference,
            "energy": totals.mean(1) + offset,
            "member_energy": totals + offset[:, None],
            "features": out["features"],
        }
        if "magmoms" in out:
            results["magmoms"] = out["magmoms"]
        return results, totals

    def _derivatives(
        self, graph: AtomGraph, wanted: Wanted, energy: Tensor, leaves: list[Tensor], keep: bool
    ) -> dict[str, Tensor]:
        gradients = list(
            torch.autograd.grad(energy, leaves, create_graph=self.training, retain_graph=keep)
        )
        results = {}
        if wanted.magnetic_forces:
            results["magnetic_forces"] = field = -gradients.pop()
            if field.ndim == 2:
                results["torques"] = torch.linalg.cross(leaves[-1], field)
        if wanted.forces:
            results["forces"] = pull(graph, gradients[0])
        if wanted.stress:
            pairs = leaves[0][:, :, None] * gradients[0][:, None, :]
            of_edge = graph.batch.index_select(0, graph.edge_index[1])
            virial = pairs.new_zeros(graph.n_graphs, 3, 3).index_add(0, of_edge, pairs)
            volume = torch.linalg.det(graph.cell).abs().to(pairs.dtype)
            results["stress"] = (virial + virial.mT) / 2 / volume[:, None, None]
        return results

    def _uncertainty(
        self,
        graph: AtomGraph,
        wanted: Wanted,
        totals: Tensor,
        vectors: Tensor,
        results: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        spread = {"energy_uncertainty": totals.std(1, unbiased=True)}
        if wanted.forces:
            members = totals.shape[1]
            square = torch.zeros_like(results["forces"][:, 0])
            for member in range(members):
                (gradient,) = torch.autograd.grad(
                    totals[:, member].sum(), vectors, retain_graph=True
                )
                difference = pull(graph, gradient) - results["forces"].detach()
                square = square + difference.square().sum(1)
            spread["forces_uncertainty"] = (square / (members - 1)).sqrt()
        return spread

    def _check(self, graph: AtomGraph, wanted: Wanted) -> None:
        settings = self.model.settings
        known = max(len(settings.fidelities), 1)
        if bool(((graph.fidelity < 0) | (graph.fidelity >= known)).any()):
            raise InvalidInputError(
                f"fidelity: expected indices below {known} (the model's list of fidelities), got "
                f"{graph.fidelity.tolist()}"
            )
        if wanted.stress and bool((torch.linalg.det(graph.cell).abs() < 1e-12).any()):
            raise InvalidInputError(
                "stress: expected three lattice vectors, got a cell of no volume"
            )
        if wanted.magnetic_forces and (settings.moments == "none" or graph.magmoms is None):
            raise InvalidInputError(
                f"magnetic_forces: expected moments as an input, got a model with "
                f"moments={settings.moments!r} and "
                f"{'no moments' if graph.magmoms is None else 'moments'}"
            )
        if wanted.uncertainty and settings.ensemble < 2:
            raise InvalidInputError(
                f"uncertainty: expected a model with several readouts, got "
                f"ensemble={settings.ensemble}"
            )


def pull(graph: AtomGraph, gradients: Tensor) -> Tensor:
    """Forces on atoms of the derivatives of the energy with respect to edge vectors.

    Args:
        graph: the batch.
        gradients: [e, 3] dE/dv, v = r_sender - r_receiver.

    Returns:
        [n, 3].
    """
    sender, receiver = graph.edge_index
    forces = gradients.new_zeros(graph.n_atoms, 3).index_add(0, receiver, gradients)
    return forces.index_add(0, sender, -gradients)
