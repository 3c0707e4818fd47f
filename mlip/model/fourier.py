"""The Gaunt product through the 2D Fourier basis: the form of the paper, kept as a reference.

On the torus of (theta, phi), a harmonic of degree l is a trigonometric polynomial of degree l in
both angles, so that a product of functions is a convolution of Fourier coefficients, done by FFT in
O(L^2 log L) (Luo, Chen, Krishnapriyan, ICLR 2024, section 3.2). Measured on a CPU it is slower than
the grid of `gaunt` for all L <= 8 (`benchmarks/tensor_products.py`); its results are the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mlip.model.harmonics import n_components, solid_harmonics


class FourierGauntProduct:
    """Product of two features without weights.

    Args:
        l1: largest degree of the first factor.
        l2: largest degree of the second factor.
        l_out: largest degree of the result.
        dtype: torch.float64 or torch.float32.
    """

    def __init__(self, l1: int, l2: int, l_out: int, dtype: torch.dtype = torch.float64) -> None:
        # Frequencies of the product and of what it is projected on, without aliasing.
        self.size = 2 * max(l1 + l2, l_out) + 1
        complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
        self._in = [self._coefficients(l_max).to(complex_dtype) for l_max in (l1, l2)]
        self._out = self._integrals(l_out).to(complex_dtype)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """[(l1 + 1)^2, ...] and [(l2 + 1)^2, ...] to [(l_out + 1)^2, ...]."""
        tail = a.shape[1:]
        product = None
        for matrix, feature in zip(self._in, (a, b), strict=True):
            flat = feature.reshape(feature.shape[0], -1).to(matrix.dtype)
            waves = (matrix.T @ flat).reshape(self.size, self.size, -1)
            values = torch.fft.ifft2(waves, dim=(0, 1))
            product = values if product is None else product * values
        assert product is not None
        spectrum = torch.fft.fft2(product, dim=(0, 1)) * self.size**2
        out = self._out @ spectrum.reshape(self.size**2, -1)
        return out.real.reshape(-1, *tail)

    def _coefficients(self, l_max: int) -> Tensor:
        """[(l_max + 1)^2, size^2] Fourier coefficients of the harmonics."""
        angles = 2 * math.pi * torch.arange(self.size, dtype=torch.float64) / self.size
        theta, phi = torch.meshgrid(angles, angles, indexing="ij")
        # theta runs over the whole circle: the polynomial continues itself
        vectors = torch.stack(
            [theta.sin() * phi.sin(), theta.cos(), theta.sin() * phi.cos()], dim=-1
        )
        values = solid_harmonics(vectors, l_max)
        waves = torch.fft.fft2(values, dim=(0, 1)) / self.size**2
        return waves.reshape(-1, n_components(l_max)).T.contiguous()

    def _integrals(self, l_max: int) -> Tensor:
        """[(l_max + 1)^2, size^2] means of Y_lm exp(i (u theta + v phi)) over the sphere."""
        own = self._coefficients(l_max).reshape(-1, self.size, self.size)
        frequency = torch.fft.fftfreq(self.size, 1 / self.size, dtype=torch.float64)
        k = frequency[:, None] + frequency[None, :]
        # (1/2) int_0^pi sin(theta) exp(i k theta) dtheta; the means over phi pick v = -v'
        polar = (1 + torch.cos(math.pi * k)) / (2 * (1 - k**2).masked_fill(k.abs() == 1, 1.0))
        polar = torch.complex(polar, 0.25 * math.pi * k.sign() * (k.abs() == 1))
        opposite = own.roll(-1, dims=2).flip(2)
        return torch.einsum("ut,ctv->cuv", polar, opposite).reshape(own.shape[0], -1).contiguous()
