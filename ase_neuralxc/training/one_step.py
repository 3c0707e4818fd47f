"""What one diagonalisation does to a stored density: Harris energy and one-step energy.

With the Fock matrix F of a functional at the stored density D0, and D1 the density of its lowest
orbitals,

    harris   = E[D0] + Tr F (D1 - D0)      (Harris, Phys. Rev. B 31, 1770 (1985)),
    one step = E[D1].

harris - E[D0] is never positive, and zero where the functional is self-consistent at D0: its square
is a regulariser of the kind that DM21 was trained with (Kirkpatrick et al., Science 374, 1385
(2021)), there to second order in F, here from the diagonalisation itself. All are differentiable
with respect to the functional's parameters, without any response equation: D1 minimises Tr F D, so
that d(Tr F D1) = Tr dF D1, and D1 itself changes by first-order perturbation theory.

Where D0 has a degenerate ground state (open-shell atoms), D1 may be another member of it: the
Harris energy does not mind, the one-step energy does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pyscf import df, scf
from pyscf.dft.numint import NumInt
from scipy.linalg import eigh
from torch import Tensor

from ase_neuralxc.backend.settings import KSSettings
from ase_neuralxc.backend.system import build_mole
from ase_neuralxc.errors import InvalidInputError
from ase_neuralxc.features.grid import DensityInvariants
from ase_neuralxc.functional.protocol import SemilocalFunctional
from ase_neuralxc.training.solve import system_of, terms_of
from ase_neuralxc.training.stored import StoredDensity

#: Points that are evaluated together.
_POINTS = 8192


@dataclass(frozen=True)
class OneStepEnergies:
    """Energies in Hartree, scalars with the functional's parameters in their graph.

    Attributes:
        stored: E[D0], at the stored density.
        harris: E[D0] + Tr F (D1 - D0).
        one_step: E[D1], or None where it was not asked for.
    """

    stored: Tensor
    harris: Tensor
    one_step: Tensor | None

    @property
    def scf_gain(self) -> Tensor:
        """First order of what the SCF would gain: harris minus stored, never positive."""
        return self.harris - self.stored


class FixedDensity:
    """A stored density with the integrals that its Fock matrix needs.

    Args:
        stored: as prepared, with its orbitals (not compressed).

    Raises:
        InvalidInputError: a density without orbitals.
    """

    def __init__(self, stored: StoredDensity) -> None:
        if stored.orbitals.size == 0:
            raise InvalidInputError(
                f"stored: expected a density with orbitals, got {stored.species.name!r} without"
            )
        fidelity = stored.fidelity
        mol = build_mole(system_of(stored.species), KSSettings(basis=str(fidelity.basis)))
        self.stored = stored
        self._mol, self._integrator = mol, NumInt()
        orbitals = np.asarray(stored.orbitals, dtype=float)
        occupations = np.asarray(stored.occupations, dtype=float)
        #: [c, nao, nao]; one channel is the total density of a closed shell
        self.density = (orbitals * occupations[:, None, :]) @ orbitals.T
        self._electrons = np.rint(occupations.sum(1)).astype(int)
        #: electrons of an occupied orbital
        self.full = 2.0 if stored.closed_shell else 1.0
        self.overlap = mol.intor_symmetric("int1e_ovlp")
        core = scf.hf.get_hcore(mol)
        for term in terms_of(stored.species):
            core = core + term.ao_operator(mol, self.density.sum(0))
        self._coulomb, self._exchange = self.potentials(self.density)
        self._core = core
        self._rows = np.concatenate(
            [stored.density[:, None], stored.gradient, stored.tau[:, None]], axis=1, dtype=float
        )

    def evaluate(self, functional: SemilocalFunctional, one_step: bool = True) -> OneStepEnergies:
        """Diagonalise the Fock matrix of a functional once.

        Args:
            functional: semi-local, with any fraction of exact exchange.
            one_step: whether E[D1] is wanted, which costs as much again.

        Returns:
            The energies.
        """
        parameters = tuple(p for p in functional.parameters() if p.requires_grad)
        kind = _OneStep if one_step else _Harris
        stored, harris, *rest = kind.apply(self, functional, *parameters)
        return OneStepEnergies(stored, harris, rest[0] if rest else None)

    def potentials(self, change: NDArray) -> tuple[NDArray, NDArray]:
        """Coulomb matrix [nao, nao] and exchange matrices [c, nao, nao] of density matrices."""
        # integrals are not kept: they are larger than all the rest by far
        engine = scf.hf.SCF(self._mol)
        if self.stored.fidelity.auxbasis is not None:
            engine = df.DF(self._mol, auxbasis=df.make_auxbasis(self._mol, mp2fit=False)).build()
        coulomb, exchange = engine.get_jk(dm=change, hermi=1)
        return np.asarray(coulomb).sum(0), np.asarray(exchange)

    def linear(self, coulomb: NDArray, exchange: NDArray, fraction: float) -> NDArray:
        """Fock matrices [c, nao, nao] of Coulomb and a fraction of exact exchange."""
        return coulomb - fraction / self.full * exchange

    def fock_without_xc(self, fraction: float) -> NDArray:
        """Fock matrices [c, nao, nao] at the stored density, without the semi-local part."""
        return self._core + self.linear(self._coulomb, self._exchange, fraction)

    def lowest(self, fock: NDArray) -> tuple[NDArray, NDArray, NDArray]:
        """Density [c, nao, nao] of the lowest orbitals, levels [c, nmo], orbitals [c, nao, nmo]."""
        levels, orbitals = zip(*(eigh(f, self.overlap) for f in fock), strict=True)
        counts = (self._electrons / self.full).astype(int)
        filled = [c[:, :n] for c, n in zip(orbitals, counts, strict=True)]
        density = np.stack([self.full * c @ c.T for c in filled])
        return density, np.stack(levels), np.stack(orbitals)

    def occupied(self) -> NDArray:
        """Number of occupied orbitals of each channel, [c]."""
        return (self._electrons / self.full).astype(int)

    def blocks(self) -> Iterator[tuple[slice, NDArray]]:
        """Points and the orbitals [4, n, nao] there."""
        coords = np.asarray(self.stored.coords, dtype=float)
        for start in range(0, len(coords), _POINTS):
            part = slice(start, min(start + _POINTS, len(coords)))
            yield part, self._integrator.eval_ao(self._mol, coords[part], deriv=1)

    def rows_of(self, matrices: NDArray) -> NDArray:
        """[c, 5, n] density, gradient and tau of symmetric matrices [c, nao, nao]."""
        out = np.empty_like(self._rows)
        for part, ao in self.blocks():
            for channel, matrix in enumerate(matrices):
                turned = ao @ matrix
                products = np.einsum("xng,xng->xn", turned, ao)
                out[channel, 0, part] = products[0]
                out[channel, 1:4, part] = 2 * np.einsum("ng,xng->xn", turned[0], ao[1:])
                out[channel, 4, part] = 0.5 * products[1:].sum(0)
        return out

    def potential(self, functional: SemilocalFunctional, rows: NDArray) -> tuple[float, NDArray]:
        """Semi-local energy and its derivative by the density matrices, [c, nao, nao]."""
        energy, out = 0.0, np.zeros_like(self.density)
        for part, ao in self.blocks():
            leaf = torch.from_numpy(rows[..., part]).requires_grad_()
            with torch.enable_grad():
                value = self.integral(functional, leaf, part)
            (derivative,) = torch.autograd.grad(value, leaf)
            energy += float(value.detach())
            for channel, v in enumerate(derivative.numpy()):
                # halves, because the sum with the transpose follows
                half = 0.5 * v[0][:, None] * ao[0]
                for axis in (1, 2, 3):
                    half += v[axis][:, None] * ao[axis]
                    out[channel] += (0.25 * v[4][:, None] * ao[axis]).T @ ao[axis]
                out[channel] += half.T @ ao[0]
        return energy, out + out.transpose(0, 2, 1)

    def integral(self, functional: SemilocalFunctional, rows: Tensor, part: slice) -> Tensor:
        """Semi-local energy of some points from their rows [c, 5, n]."""
        invariants = DensityInvariants.from_channels(rows[:, 0], rows[:, 1:4], rows[:, 4])
        weights = torch.from_numpy(np.array(self.stored.weights[part], dtype=float))
        return torch.dot(weights, functional.local_energy_density(invariants))

    @property
    def rows(self) -> NDArray:
        """[c, 5, n] density, gradient and tau of the stored density."""
        return self._rows


class _Harris(torch.autograd.Function):
    """Stored and Harris energy."""

    @staticmethod
    def forward(
        ctx: Any, fixed: FixedDensity, functional: SemilocalFunctional, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        step = _Diagonalised.of(fixed, functional)
        ctx.work = fixed, functional, fixed.rows_of(step.change)
        ctx.save_for_backward(*parameters)
        return _scalars(step.start, step.harris)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        fixed, functional, change = ctx.work
        by_stored, by_harris = map(float, cotangents)
        weights = _Weights(by_stored + by_harris, by_harris * change, 0.0, change)
        return None, None, *_gradients(fixed, functional, ctx.saved_tensors, weights)


class _OneStep(torch.autograd.Function):
    """Stored, Harris and one-step energy."""

    @staticmethod
    def forward(
        ctx: Any, fixed: FixedDensity, functional: SemilocalFunctional, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        step = _Diagonalised.of(fixed, functional)
        change = step.change
        rows = fixed.rows_of(change)
        fraction = float(functional.exchange_fraction)
        induced = fixed.linear(*fixed.potentials(change), fraction)
        after, potential = fixed.potential(functional, fixed.rows + rows)
        bare = float(np.sum((step.bare + 0.5 * induced) * change))
        turned = _first_order(fixed, step.bare + induced + potential, step.levels, step.orbitals)
        ctx.work = fixed, functional, rows, fixed.rows_of(turned)
        ctx.save_for_backward(*parameters)
        return _scalars(step.start, step.harris, step.start - step.semilocal + after + bare)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        fixed, functional, change, turned = ctx.work
        by_stored, by_harris, by_step = map(float, cotangents)
        direction = by_harris * change + by_step * turned
        weights = _Weights(by_stored + by_harris, direction, by_step, change)
        return None, None, *_gradients(fixed, functional, ctx.saved_tensors, weights)


def _scalars(*values: float) -> tuple[Tensor, ...]:
    return tuple(torch.tensor(value, dtype=torch.float64) for value in values)


@dataclass(frozen=True)
class _Diagonalised:
    """The Fock matrix at the stored density and its lowest orbitals."""

    start: float
    semilocal: float
    harris: float
    bare: NDArray
    change: NDArray
    levels: NDArray
    orbitals: NDArray

    @classmethod
    def of(cls, fixed: FixedDensity, functional: SemilocalFunctional) -> _Diagonalised:
        fraction = float(functional.exchange_fraction)
        semilocal, potential = fixed.potential(functional, fixed.rows)
        exact = fixed.stored.exact_exchange(fraction)
        start = fixed.stored.energy_without_xc + semilocal + exact
        bare = fixed.fock_without_xc(fraction)
        fock = bare + potential
        density, levels, orbitals = fixed.lowest(fock)
        change = density - fixed.density
        harris = start + float(np.sum(fock * change))
        return cls(start, semilocal, harris, bare, change, levels, orbitals)


@dataclass(frozen=True)
class _Weights:
    """A loss to first order: energy at D0, its derivative along `direction`, energy at D1."""

    at_stored: float
    direction: NDArray
    at_changed: float
    change: NDArray


def _gradients(
    fixed: FixedDensity,
    functional: SemilocalFunctional,
    parameters: tuple[Tensor, ...],
    weights: _Weights,
) -> list[Tensor]:
    """Derivatives by the parameters, part by part of the points."""
    totals = [torch.zeros_like(p) for p in parameters]
    for start in range(0, fixed.stored.n_points, _POINTS):
        part = slice(start, min(start + _POINTS, fixed.stored.n_points))
        here = torch.from_numpy(fixed.rows[..., part])
        with torch.enable_grad():
            amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
            moved = here + amount * torch.from_numpy(weights.direction[..., part])
            value = fixed.integral(functional, moved, part)
            (slope,) = torch.autograd.grad(value, amount, create_graph=True)
            value = slope + weights.at_stored * value
            if weights.at_changed != 0.0:
                after = here + torch.from_numpy(weights.change[..., part])
                value = value + weights.at_changed * fixed.integral(functional, after, part)
        parts = torch.autograd.grad(value, parameters, allow_unused=True)
        for total, gradient in zip(totals, parts, strict=True):
            if gradient is not None:
                total += gradient
    return totals


def _first_order(fixed: FixedDensity, fock: NDArray, levels: NDArray, orbitals: NDArray) -> NDArray:
    """X with Tr(fock dD1) = Tr(X dF): first-order perturbation theory of the lowest orbitals."""
    out = np.zeros_like(fock)
    for channel, n in enumerate(fixed.occupied()):
        c, e = orbitals[channel], levels[channel]
        elements = c[:, n:].T @ fock[channel] @ c[:, :n]
        rotation = elements / (e[None, :n] - e[n:, None])
        half = c[:, n:] @ rotation @ c[:, :n].T
        out[channel] = fixed.full * (half + half.T)
    return out
