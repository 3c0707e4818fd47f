"""Tensor products of `mlip.model` against e3nn and MACE.

    OMP_NUM_THREADS=1 python benchmarks/tensor_products.py [PEERS]

Three tables, one process, one thread, float32, each forward alone and forward with the gradients
with respect to all inputs:

* product of two features of degree L (result of degree L), L = 1..8: grid and 2D Fourier against
  e3nn's product of all even paths ("uuu");
* convolution with edge harmonics, L = 3, 1000 edges x 64 channels: one matrix per edge against
  e3nn's `TensorProduct` in mode "uvu" with all paths that parity allows, which is what NequIP and
  MACE call, weights per edge given to both (e3nn's per path and channel, ours per channel);
* many-body, three factors of degree 3 to scalars and vectors: `ManyBodyProduct` against MACE's
  `SymmetricContraction`, of the environment that `mlip_speed.py` made below the folder PEERS;
  left out without one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import compare, interleave, one_thread, save
from e3nn import o3

from mlip.model.allocator import keep_freed_memory
from mlip.model.convolution import GauntConvolution
from mlip.model.fourier import FourierGauntProduct
from mlip.model.gaunt import GauntProduct, ManyBodyProduct
from mlip.model.harmonics import n_components

#: Calls in a row that are timed together: a single one finds the caches full of its rival.
CALLS = 10


@dataclass(frozen=True)
class Protocol:
    degrees: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    product_atoms: int = 32
    product_channels: int = 32
    convolution_degree: int = 3
    edges: int = 1000
    convolution_channels: int = 64
    many_body_order: int = 3
    many_body_degree: int = 3
    many_body_out: int = 1
    many_body_atoms: int = 64
    many_body_channels: int = 64
    repeats: int = 3
    calls: int = CALLS
    convolution_target: float = 40.0
    many_body_target: float = 30.0


@dataclass(frozen=True)
class Call:
    """A product and its inputs."""

    function: Callable[..., torch.Tensor]
    inputs: tuple[torch.Tensor, ...]

    def forward(self) -> dict[str, float]:
        for _ in range(CALLS):
            with torch.no_grad():
                self.function(*self.inputs)
        return {}

    def with_gradients(self) -> dict[str, float]:
        for _ in range(CALLS):
            leaves = [x.detach().requires_grad_() for x in self.inputs]
            torch.autograd.grad(self.function(*leaves).sum(), leaves)
        return {}


def irreps(l_max: int, channels: int) -> o3.Irreps:
    return o3.Irreps([(channels, (degree, (-1) ** degree)) for degree in range(l_max + 1)])


def paths(l1: int, l2: int, l_out: int, mode: str, weights: bool) -> list[tuple]:
    """All even paths, as e3nn wants them."""
    return [
        (i, j, k, mode, weights)
        for i in range(l1 + 1)
        for j in range(l2 + 1)
        for k in range(abs(i - j), min(i + j, l_out) + 1)
        if (i + j + k) % 2 == 0
    ]


def products(degree: int, protocol: Protocol) -> dict[str, Call]:
    n, c = protocol.product_atoms, protocol.product_channels
    a, b = (torch.randn(n_components(degree), n, c) for _ in range(2))
    grid = GauntProduct((degree, degree), degree, c)
    fourier = FourierGauntProduct(degree, degree, degree, dtype=torch.float32)
    one = irreps(degree, c)
    e3nn = o3.TensorProduct(one, one, one, paths(degree, degree, degree, "uuu", weights=False))
    flat = [torch.randn(n, one.dim) for _ in range(2)]
    return {
        "e3nn": Call(e3nn, tuple(flat)),
        "grid": Call(
            grid.float(),
            (a, b),
        ),
        "fourier": Call(
            fourier,
            (a, b),
        ),
    }


def convolutions(protocol: Protocol) -> dict[str, Call]:
    degree, n, c = protocol.convolution_degree, protocol.edges, protocol.convolution_channels
    ours = GauntConvolution(degree, degree, degree, c).float()
    harmonics = torch.randn(n, n_components(degree))
    features, radial = torch.randn(n, n_components(degree), c), torch.randn(n, c)
    steps = paths(degree, degree, degree, "uvu", weights=True)
    out = o3.Irreps([(c, (k, (-1) ** k)) for _, _, k, *_ in steps])
    steps = [(i, j, position, *rest) for position, (i, j, _, *rest) in enumerate(steps)]
    e3nn = o3.TensorProduct(
        irreps(degree, c),
        irreps(degree, 1),
        out,
        steps,
        shared_weights=False,
        internal_weights=False,
    )
    flat = torch.randn(n, irreps(degree, c).dim)
    weights = torch.randn(n, e3nn.weight_numel)
    return {
        "e3nn uvu": Call(e3nn, (flat, harmonics, weights)),
        "matrix per edge": Call(ours.messages, (harmonics, features, radial)),
    }


def many_body(protocol: Protocol, peers: Path) -> dict[str, Call]:
    # At the end of the path: of that environment only MACE itself and what is not here.
    sys.path.append(str(next((peers / "mace").glob("lib/python*/site-packages"))))
    from mace.modules.symmetric_contraction import SymmetricContraction

    degree, n, c = protocol.many_body_degree, protocol.many_body_atoms, protocol.many_body_channels
    mace = SymmetricContraction(
        irreps_in=irreps(degree, c),
        irreps_out=irreps(protocol.many_body_out, c),
        correlation=protocol.many_body_order,
        num_elements=1,
    )
    ours = ManyBodyProduct(degree, protocol.many_body_out, c, protocol.many_body_order).float()
    element = torch.ones(n, 1)
    return {
        "MACE": Call(lambda x: mace(x, element), (torch.randn(n, c, n_components(degree)),)),
        "grid": Call(ours, (torch.randn(n_components(degree), n, c),)),
    }


def speedups(calls: dict[str, Call], reference: str, repeats: int) -> dict[str, Any]:
    """Times and ratios, with how many times faster each is than the reference."""
    tables = {}
    for kind in ("forward", "with_gradients"):
        runs = {name: getattr(call, kind) for name, call in calls.items()}
        table = compare(interleave(runs, repeats), reference)
        for row in table.values():
            row["times_faster"] = round(1 / row["ratio_of_medians"], 2)
        tables[kind] = table
    return tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peers", type=Path, nargs="?", help="folder of the peers' environments")
    peers = parser.parse_args().peers
    one_thread()
    keep_freed_memory()  # as every potential does; e3nn has it too
    protocol = Protocol()
    torch.manual_seed(0)
    results: dict[str, Any] = {
        f"product L={degree}": speedups(products(degree, protocol), "e3nn", protocol.repeats)
        for degree in protocol.degrees
    }
    results["convolution"] = speedups(convolutions(protocol), "e3nn uvu", protocol.repeats)
    if peers is not None:
        results["many-body"] = speedups(many_body(protocol, peers), "MACE", protocol.repeats)
    save("tensor_products", protocol, results)


if __name__ == "__main__":
    main()
