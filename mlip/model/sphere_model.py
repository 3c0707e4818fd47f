"""The architecture: densities of neighbours, products on the sphere, one round of messages.

1. Neighbour density of each atom, in radial functions, harmonics and elements of the neighbours:
   one batched matrix product over `slots`, without channels, hence cheap and with a radial
   function of its own for every degree and channel after the linear map that follows (the trick of
   the atomic cluster expansion, Drautz, PRB 99, 014104, 2019).
2. `Correlations`: products of up to four densities on an exact grid.
3. Messages: the features of the sender, as a function on the sphere, are read off in the direction
   of the receiver (the m = 0 part of a convolution in the frame of the bond, as in eSCN, Passaro
   and Zitnick, ICML 2023, but without a rotation), weighted radially and summed as densities again.
   Read at the sender in `slots`, this is one more batched product and needs no feature per edge.
4. `Correlations` again, and networks on the invariants of both rounds.

Features are [components, atoms, channels] (`gaunt`). Energies are smooth at the cutoff because
every sum over neighbours carries the radial envelope, and extensive because they are sums of atoms.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mlip.data.graph import AtomGraph
from mlip.model.conditioning import FiLM, StateDescription
from mlip.model.edge_harmonics import EdgeHarmonics
from mlip.model.harmonics import degree_slice, n_components
from mlip.model.layers import DegreeInner, DegreeLinear, Linear, ScalarNetwork, UnitProduct
from mlip.model.radial import BesselBasis
from mlip.model.readout import EnsembleReadout, MomentReadout
from mlip.model.settings import ModelSettings
from mlip.model.slots import EdgeSlots
from mlip.model.species import SpeciesIndex, SpeciesWeights
from mlip.model.spin import (
    ATOM_SCALARS,
    EDGE_SCALARS,
    EDGE_SCALARS_SOC,
    EDGE_VECTORS_SOC,
    SpinInvariants,
    check_moments,
    coupled_invariants,
    invariants,
    saturated,
)

#: Densities that enter the products, each with its own linear map.
FACTORS = 3
#: Size of a summed message, to keep densities of the second round of order one.
MESSAGE_SCALE = 1.0 / 3.0


class Correlations(nn.Module):
    """Products of densities and the invariants they make.

    With first, second and third density: pair = first x second, and the inner products
    first.second, pair.third and pair.pair, of body orders three to five, for each degree.

    Args:
        settings: of the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        l_max, channels = settings.l_max, settings.channels
        self.product = UnitProduct(l_max, l_max, l_max)
        self.mix = DegreeLinear(l_max, channels, channels)
        self.inner = DegreeInner(l_max)
        self.n_invariants = channels * (1 + 3 * (l_max + 1))

    def forward(self, first: Tensor, second: Tensor, third: Tensor) -> tuple[Tensor, Tensor]:
        """Three features to the mixed pair product and [n, n_invariants]."""
        pair = self.product(first, second)
        mixed = self.mix(pair)
        scalars = [
            first[0],
            self.inner(first, second),
            self.inner(mixed, third),
            self.inner(mixed, pair),
        ]
        return mixed, torch.cat(scalars, dim=1)


class SphereModel(nn.Module):
    """Atomic energies of a batch; see the module's text and `protocol.SpinAwareModel`.

    Args:
        settings: of the model.
    """

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.settings = settings
        l_max, l_hidden, channels = settings.l_max, settings.l_hidden, settings.channels
        self.species = SpeciesIndex(settings.elements)
        self.harmonics = EdgeHarmonics(l_max)
        self.bessel = BesselBasis(settings.r_max, settings.n_radial, settings.radial_decay)
        self.state = StateDescription(settings)

        n_elements = len(settings.elements)
        n_species = min(n_elements, settings.species_rank)
        self._distinct = n_species == n_elements
        start = torch.eye(n_elements) if self._distinct else torch.randn(n_elements, n_species)
        self.sender_species = nn.Parameter(start, requires_grad=not self._distinct)
        n_pair = settings.n_radial * n_species
        n_basis = n_pair * (1 + self._edge_scalars)
        n_atom = n_elements + (ATOM_SCALARS if self._spin else 0)

        self.density = DegreeLinear(l_max, n_basis, FACTORS * channels)
        self.receiver_1 = SpeciesWeights(n_elements, l_max, FACTORS * channels)
        self.correlations_1 = Correlations(settings)
        self.triple = UnitProduct(l_max, l_max, l_hidden)
        self.update = DegreeLinear(l_hidden, 3 * channels, channels)
        n_1 = self.correlations_1.n_invariants + n_atom
        self.gates = ScalarNetwork(n_1, settings.hidden, (l_hidden + 1) * channels)

        self.radial = Linear(n_basis, channels)
        self.message = DegreeLinear(l_max, channels, FACTORS * channels)
        self.own = DegreeLinear(l_hidden, channels, FACTORS * channels)
        self.receiver_2 = SpeciesWeights(n_elements, l_max, FACTORS * channels)
        self.correlations_2 = Correlations(settings)
        n_2 = self.correlations_2.n_invariants + channels
        self.hidden = Linear(n_2, settings.hidden)
        self.readout_1 = EnsembleReadout(channels, settings.ensemble)
        self.readout_2 = EnsembleReadout(settings.hidden, settings.ensemble)
        if settings.soc:
            self.spin_vectors = Linear(n_pair * EDGE_VECTORS_SOC, FACTORS * channels)
            self.spin_quadrupole = Linear(n_elements, FACTORS * channels)
        if settings.predict_moments:
            self.moments = MomentReadout(channels, n_basis, settings)
        if self.state.size:
            self.film_density = FiLM(self.state.size, n_basis, l_max)
            self.film_1 = FiLM(self.state.size, channels, l_hidden)
            self.film_message = FiLM(self.state.size, channels, l_max)
            self.film_2 = FiLM(self.state.size, settings.hidden)
        counts = torch.arange(1, 2 * l_hidden + 2, 2)
        gate_index = torch.repeat_interleave(torch.arange(l_hidden + 1), counts)
        self.register_buffer("gate_index", gate_index, persistent=False)

    gate_index: Tensor

    @property
    def _spin(self) -> bool:
        return self.settings.moments != "none"

    @property
    def _edge_scalars(self) -> int:
        if not self._spin:
            return 0
        return EDGE_SCALARS_SOC if self.settings.soc else EDGE_SCALARS

    def forward(
        self, graph: AtomGraph, vectors: Tensor, magmoms: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Energies and, if the settings say so, moments.

        Args:
            graph: the batch.
            vectors: [e, 3] from centre to neighbour in Angstrom.
            magmoms: [n] or [n, 3] in mu_B, needed if moments are an input.

        Returns:
            See `protocol.SpinAwareModel`.

        Raises:
            InvalidInputError: unknown element or fidelity, or moments that are missing.
        """
        settings, n = self.settings, graph.n_atoms
        species = self.species(graph.numbers)
        slots = EdgeSlots.of(graph.edge_index, n)
        # Empty slots hold a vector beyond the cutoff, where all radial functions vanish.
        vectors = slots.fill(vectors, vectors.new_tensor([2.0 * settings.r_max, 0.0, 0.0]))
        distance = vectors.square().sum(1).sqrt()
        direction = vectors / distance[:, None]
        harmonics = self.harmonics(direction)
        pair = self._pair_basis(graph, slots, species, self.bessel(distance))
        basis, spin, moments, sent_moments = pair, None, None, None
        if self._spin:
            moments = check_moments(magmoms, n, settings.moments)
            moments = moments.to(vectors.dtype) / settings.moment_scale
            sent_moments, spin = self._spin_invariants(graph, slots, moments, direction)
            coupled = spin.edges[:, :, None] * pair[:, None, :]
            basis = torch.cat([pair, coupled.flatten(1)], dim=1)
        atoms = nn.functional.one_hot(species, len(settings.elements)).to(vectors.dtype)
        state = None
        if self.state.size:
            state = self.state(graph, vectors.dtype).index_select(0, graph.batch)

        by_atom = harmonics.view(n, slots.width, -1)
        summed = self._sum(by_atom, basis)
        if state is not None:
            summed = self.film_density(summed, state)
        density = self.density(summed)
        if spin is not None and spin.vectors is not None:
            density = self._couple_spin(density, pair, spin, atoms)
        features = atoms if spin is None else torch.cat([atoms, spin.atoms], dim=1)
        hidden = self._hidden(self.receiver_1(density, species), features)
        if state is not None:
            hidden = self.film_1(hidden, state)

        read = slots.sender_order(harmonics)[:, : hidden.shape[0]].view(n, slots.width, -1)
        sent = torch.bmm(read, hidden.transpose(0, 1)).flatten(0, 1)
        messages = slots.receiver_order(sent) * self.radial(basis)
        summed = self._sum(by_atom, messages) * MESSAGE_SCALE
        if state is not None:
            summed = self.film_message(summed, state)
        density = self.message(summed)
        own = self.own(hidden)
        density = torch.cat([density[: len(own)] + own, density[len(own) :]])
        density = self.receiver_2(density, species)
        _, scalars = self.correlations_2(*density.chunk(FACTORS, dim=2))
        last = self.hidden(torch.cat([scalars, hidden[0]], dim=1))
        if state is not None:
            last = self.film_2(last[None], state)[0]
        members = self.readout_1(hidden[0]) + self.readout_2(last)
        members = members * settings.energy_scale
        features = torch.cat([hidden[0], last], dim=1)
        out = {"energies": members.mean(1), "member_energies": members, "features": features}
        if settings.predict_moments:
            out["magmoms"] = self.moments(hidden[0], last, basis, slots, sent_moments, moments)
        return out

    def _pair_basis(
        self, graph: AtomGraph, slots: EdgeSlots, species: Tensor, radial: Tensor
    ) -> Tensor:
        """[m, n_pair] radial functions, separate for each element of the sender."""
        if len(self.settings.elements) == 1:
            return radial
        of_edge = species.index_select(0, graph.edge_index[0])
        rows = self.sender_species.index_select(0, of_edge)
        weights = slots.fill(rows, rows.new_zeros(rows.shape[1]))
        return (weights[:, :, None] * radial[:, None, :]).flatten(1)

    def _sum(self, by_atom: Tensor, edges: Tensor) -> Tensor:
        """Harmonics [n, w, components] times [n w, k], summed over slots: [components, n, k]."""
        scale = 1.0 / math.sqrt(self.settings.average_neighbours)
        edges = edges.view(*by_atom.shape[:2], -1)
        return torch.bmm(by_atom.transpose(1, 2), edges).transpose(0, 1) * scale

    def _hidden(self, density: Tensor, atoms: Tensor) -> Tensor:
        """Features that atoms send, of degrees up to l_hidden."""
        first, second, third = density.chunk(FACTORS, dim=2)
        mixed, scalars = self.correlations_1(first, second, third)
        n_hidden = n_components(self.settings.l_hidden)
        parts = [first[:n_hidden], mixed[:n_hidden], self.triple(mixed, third)]
        hidden = self.update(torch.cat(parts, dim=2))
        gates = self.gates(torch.cat([scalars, atoms], dim=1))
        gates = gates.view(len(atoms), -1, self.settings.channels).transpose(0, 1)
        gates = gates.index_select(0, self.gate_index)
        return torch.cat([hidden[:1] + gates[:1], hidden[1:] * (1.0 + gates[1:])])

    def _spin_invariants(
        self, graph: AtomGraph, slots: EdgeSlots, moments: Tensor, direction: Tensor
    ) -> tuple[Tensor, SpinInvariants]:
        """Saturated moments of the senders [m, a], and the invariants of all."""
        moments = saturated(moments)
        nothing = moments.new_zeros(moments.shape[1])
        sent, received = (
            slots.fill(moments.index_select(0, side), nothing) for side in graph.edge_index
        )
        if self.settings.soc:
            return sent, coupled_invariants(moments, received, sent, direction)
        return sent, invariants(moments, received, sent)

    def _couple_spin(
        self, density: Tensor, pair: Tensor, spin: SpinInvariants, atoms: Tensor
    ) -> Tensor:
        """Add what spin-orbit coupling makes of moments to degrees one and two."""
        assert spin.vectors is not None
        assert spin.quadrupole is not None
        n = len(atoms)
        edges = spin.vectors.reshape(n, -1, 3 * EDGE_VECTORS_SOC)
        sums = self._sum(edges, pair).view(EDGE_VECTORS_SOC, 3, n, -1)
        vectors = self.spin_vectors(sums.permute(1, 2, 0, 3).flatten(2))
        blocks = [density[:1], density[1:4] + vectors]
        if self.settings.l_max >= 2:
            two = density[degree_slice(2)]
            blocks += [two + spin.quadrupole[:, :, None] * self.spin_quadrupole(atoms), density[9:]]
        return torch.cat(blocks)
