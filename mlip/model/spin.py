"""Atomic moments as an input, with time reversal and spin rotations built in.

Moments enter only through products of two of them, so that E(m) = E(-m) holds to the last bit: each
product of two floats is the same if both change sign. (The inversion parity of e3nn cannot do this:
m_i . (r_ij x r_ik) is invariant under O(3) and odd under time reversal.) All are polynomials of the
components, smooth where a moment vanishes.

Without spin-orbit coupling only dot products of moments occur, which do not change if all moments
are turned alone. With it, moments are axial vectors of the same space as the positions, and the
pseudo-dipolar terms (m . r)(m' . r), the polar vectors (m . r) m' (whose antisymmetric part is
(m_i x m_j) x r, the source of Dzyaloshinskii-Moriya interactions) and the quadrupole of an atom's
own moment (the source of single-ion anisotropy) join.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ase_neuralxc.errors import InvalidInputError
from mlip.model.harmonics import degree_slice, solid_harmonics

#: Scalars per edge without and with spin-orbit coupling, and polar vectors per edge with it.
EDGE_SCALARS, EDGE_SCALARS_SOC, EDGE_VECTORS_SOC = 2, 5, 3
#: Scalars per atom.
ATOM_SCALARS = 2


@dataclass(frozen=True, eq=False)
class SpinInvariants:
    """What a model sees of the moments; all even under time reversal.

    Attributes:
        atoms: [n, ATOM_SCALARS] from each atom's own moment.
        edges: [m, EDGE_SCALARS or EDGE_SCALARS_SOC] of receiver and sender, spatial invariants.
        vectors: [m, EDGE_VECTORS_SOC, 3] polar vectors, with spin-orbit coupling only.
        quadrupole: [5, n] degree 2 of each atom's own moment, with spin-orbit coupling only.
    """

    atoms: Tensor
    edges: Tensor
    vectors: Tensor | None = None
    quadrupole: Tensor | None = None


def check_moments(moments: Tensor | None, n_atoms: int, kind: str) -> Tensor:
    """The moments, or an error that says what the model needs.

    Args:
        moments: [n] or [n, 3] in mu_B, or None.
        n_atoms: n.
        kind: "collinear" or "vector". Signed moments are vectors along an arbitrary axis, as long
            as moments may be turned alone; vectors are never collinear.

    Returns:
        [n, 1] or [n, 3].

    Raises:
        InvalidInputError: no moments, unknown ones, or of the wrong shape.
    """
    if moments is None:
        raise InvalidInputError(
            f"magmoms: this model needs {kind} moments as an input, got none (set the initial "
            "magnetic moments of the structure)"
        )
    allowed = [[n_atoms]] if kind == "collinear" else [[n_atoms], [n_atoms, 3]]
    if list(moments.shape) not in allowed:
        raise InvalidInputError(
            f"magmoms: expected shape {' or '.join(map(str, allowed))} for {kind} moments, got "
            f"{list(moments.shape)}"
        )
    known = moments.isfinite().reshape(n_atoms, -1).all(dim=1)
    if not bool(known.all()):
        raise InvalidInputError(
            f"magmoms: expected finite moments of all atoms, got NaN or inf for atoms "
            f"{(~known).nonzero().squeeze(1).tolist()[:10]}"
        )
    if moments.ndim == 2:
        return moments
    if kind == "collinear":
        return moments[:, None]
    nothing = torch.zeros_like(moments)
    return torch.stack([nothing, nothing, moments], dim=1)


def saturated(moments: Tensor) -> Tensor:
    """M / sqrt(1 + m^2): odd, smooth, shorter than one, so that no moment is far from the data.

    Args:
        moments: [n, a] in units of their typical size.

    Returns:
        [n, a].
    """
    return moments * (1.0 + moments.square().sum(1, keepdim=True)).rsqrt()


def invariants(moments: Tensor, received: Tensor, sent: Tensor) -> SpinInvariants:
    """Dot products of moments.

    Args:
        moments: [n, a] of length below one, a = 1 or 3.
        received: [m, a] moment of the receiver of each edge.
        sent: [m, a] moment of the sender.

    Returns:
        m_i . m_j and m_j . m_j for edges; m^2 and m^4 for atoms.
    """
    square = moments.square().sum(1)
    atoms = torch.stack([square, square.square()], dim=1)
    edges = torch.stack([(received * sent).sum(1), sent.square().sum(1)], dim=1)
    return SpinInvariants(atoms, edges)


def coupled_invariants(
    moments: Tensor, received: Tensor, sent: Tensor, directions: Tensor
) -> SpinInvariants:
    """Products of moments that know the directions of bonds.

    Args:
        moments: [n, 3] of length below one.
        received: [m, 3] moment of the receiver of each edge.
        sent: [m, 3] moment of the sender.
        directions: [m, 3] unit vectors from receiver to sender.

    Returns:
        The invariants of `invariants` and those of spin-orbit coupling.
    """
    alone = invariants(moments, received, sent)
    along_i = (received * directions).sum(1, keepdim=True)
    along_j = (sent * directions).sum(1, keepdim=True)
    edges = torch.cat([alone.edges, along_i * along_j, along_i**2, along_j**2], dim=1)
    vectors = torch.stack([sent * along_i, received * along_j, sent * along_j], dim=1)
    quadrupole = solid_harmonics(moments, 2)[:, degree_slice(2)].T
    return SpinInvariants(alone.atoms, edges, vectors, quadrupole)
