"""What a model must offer to be wrapped by `mlip.model.potential.Potential`."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from mlip.data.graph import AtomGraph
from mlip.model.settings import ModelSettings


@runtime_checkable
class SpinAwareModel(Protocol):
    """Energies of atoms from edge vectors and moments; derivatives are the wrapper's business."""

    settings: ModelSettings

    def __call__(
        self, graph: AtomGraph, vectors: Tensor, magmoms: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Energies and moments.

        Args:
            graph: the batch. Geometry and moments are read from the other arguments, which may
                carry gradients.
            vectors: [e, 3] from centre to neighbour in Angstrom, as `AtomGraph.edge_vectors`.
            magmoms: [n] or [n, 3] in mu_B for a model with moments as an input.

        Returns:
            "energies" [n]: atomic energies in eV without the reference energies of the elements;
            "member_energies" [n, members]: those of each readout, whose mean is "energies";
            "features" [n, f]: invariants of each atom from which the readouts make energies;
            "magmoms" [n] or [n, 3], if the model predicts moments.
        """
        ...
