"""From derivatives with respect to invariants to PySCF's derivative tensors.

The variables are x = (rho, grad rho, tau), per spin if polarised; the invariants are
y = (rho, sigma, tau) for a total density and (rho_a, rho_b, sigma_aa, sigma_ab, sigma_bb, tau_a,
tau_b) for spin densities. First order: v_i = J_yi e_y; second order:
f_ij = J_yi e_yz J_zj + e_sigma d2 sigma / dx_i dx_j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def invariants(rho: NDArray, polarised: bool) -> list[NDArray]:
    """Contract gradients to their products.

    Args:
        rho: [nvar, n], or [2, nvar, n] if polarised, with nvar = 1, 4 or 5.
        polarised: whether `rho` has a spin axis.

    Returns:
        density, sigma and tau as [1, n], [1, n], [1, n], or [2, n], [3, n], [2, n] if polarised;
        quantities that `rho` does not carry are zero.
    """
    spins = rho if polarised else rho[None]
    n, nvar = rho.shape[-1], spins.shape[1]
    density = np.ascontiguousarray(spins[:, 0])
    if nvar == 1:
        sigma = np.zeros((3 if polarised else 1, n))
    elif polarised:
        up, down = spins[0, 1:4], spins[1, 1:4]
        sigma = np.stack([_dot(up, up), _dot(up, down), _dot(down, down)])
    else:
        sigma = _dot(spins[0, 1:4], spins[0, 1:4])[None]
    tau = np.ascontiguousarray(spins[:, 4]) if nvar == 5 else np.zeros_like(density)
    return [density, sigma, tau]


def first(rho: NDArray, e: NDArray, polarised: bool) -> NDArray:
    """First derivatives with respect to x.

    Args:
        rho: as for `invariants`.
        e: [3, n] or [7, n] derivatives with respect to the invariants.
        polarised: whether `rho` has a spin axis.

    Returns:
        An array of the shape of `rho`.
    """
    out = np.empty_like(rho)
    nvar = rho.shape[-2]
    if not polarised:
        out[0] = e[0]
        if nvar > 1:
            np.multiply(rho[1:4], 2 * e[1], out=out[1:4])
        if nvar > 4:
            out[4] = e[2]
        return out
    out[:, 0] = e[:2]
    if nvar > 1:
        out[0, 1:4] = 2 * e[2] * rho[0, 1:4] + e[3] * rho[1, 1:4]
        out[1, 1:4] = 2 * e[4] * rho[1, 1:4] + e[3] * rho[0, 1:4]
    if nvar > 4:
        out[:, 4] = e[5:7]
    return out


def second(rho: NDArray, e: NDArray, h: NDArray, polarised: bool) -> NDArray:
    """Second derivatives with respect to x.

    Args:
        rho: as for `invariants`.
        e: first derivatives with respect to the invariants.
        h: [3, 3, n] or [7, 7, n] second derivatives with respect to the invariants.
        polarised: whether `rho` has a spin axis.

    Returns:
        [nvar, nvar, n], or [2, nvar, 2, nvar, n] if polarised.
    """
    shape = rho.shape[:-1]
    n, nvar = rho.shape[-1], rho.shape[-2]
    size = int(np.prod(shape))
    jacobian = np.zeros((h.shape[0], size, n))
    out = np.zeros((size, size, n))
    xyz = np.arange(1, 4)
    if not polarised:
        jacobian[0, 0] = 1
        if nvar > 1:
            jacobian[1, 1:4] = 2 * rho[1:4]
            out[xyz, xyz] = 2 * e[1]
        if nvar > 4:
            jacobian[2, 4] = 1
    else:
        up, down = xyz, xyz + nvar
        jacobian[0, 0] = jacobian[1, nvar] = 1
        if nvar > 1:
            jacobian[2, up], jacobian[4, down] = 2 * rho[0, 1:4], 2 * rho[1, 1:4]
            jacobian[3, up], jacobian[3, down] = rho[1, 1:4], rho[0, 1:4]
            out[up, up], out[down, down] = 2 * e[2], 2 * e[4]
            out[up, down] = out[down, up] = e[3]
        if nvar > 4:
            jacobian[5, 4] = jacobian[6, 4 + nvar] = 1
    out += np.einsum("yin,yzn,zjn->ijn", jacobian, h, jacobian, optimize=True)
    return out.reshape(*shape, *shape, n)


def _dot(a: NDArray, b: NDArray) -> NDArray:
    return np.einsum("xn,xn->n", a, b)
