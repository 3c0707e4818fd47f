"""Skala files, with a small TorchScript program of the same interface in place of the weights."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from functionals import write_program
from torch import Tensor, nn

from ase_neuralxc.errors import CheckpointError, InvalidInputError
from ase_neuralxc.features.grid import GridFeatures
from ase_neuralxc.features.names import Feature
from ase_neuralxc.functional import foreign
from ase_neuralxc.functional.foreign import SkalaFunctional, load_skala
from ase_neuralxc.functional.lda import SlaterExchange
from ase_neuralxc.functional.protocol import SemilocalFunctional, XCFunctional
from ase_neuralxc.functional.registry import load_functional

VERSION_1_0 = [
    "density", "kin", "grad", "grid_coords", "grid_weights", "coarse_0_atomic_coords",
]  # fmt: skip
VERSION_1_1 = [
    *VERSION_1_0, "atomic_grid_weights", "atomic_grid_sizes", "atomic_grid_size_bound_shape",
]  # fmt: skip
PREFACTOR = 0.9305257363491  # of Slater exchange in spin densities, 3/2 (3 / 4 pi)^(1/3)


class Slater(nn.Module):
    """Slater exchange times (1 + a nonlocal number), which vanishes for `strength` zero."""

    def __init__(self, strength: float = 0.0) -> None:
        super().__init__()
        self.strength = strength

    def forward(self, mol: dict[str, Tensor]) -> Tensor:
        return self.get_exc_density(mol)

    @torch.jit.export
    def get_exc_density(self, mol: dict[str, Tensor]) -> Tensor:
        density = mol["density"].clamp(min=1e-30)
        local = -0.9305257363491 * density.pow(4.0 / 3.0).sum(0)
        nonlocal_part = (mol["grid_weights"] * mol["kin"].sum(0)).sum()
        if "atomic_grid_sizes" in mol:
            largest = mol["atomic_grid_size_bound_shape"].shape[0]
            nonlocal_part = nonlocal_part + largest * mol["atomic_grid_sizes"].sum()
            nonlocal_part = nonlocal_part + mol["atomic_grid_weights"].sum()
        nonlocal_part = nonlocal_part + mol["coarse_0_atomic_coords"].sum()
        return local * (1.0 + self.strength * nonlocal_part)


def write(path: Path, inputs=VERSION_1_1, strength: float = 0.0, **extra) -> str:
    return write_program(path, Slater(strength), extra.pop("features", inputs), **extra)


def molecule(**changes) -> GridFeatures:
    """Two atoms with 3 and 5 points."""
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    parts = {
        "density": uniform(2, 8),
        "gradient": uniform(2, 3, 8),
        "tau": uniform(2, 8),
        "coords": uniform(8, 3),
        "weights": uniform(8),
        "atom_slices": (slice(0, 3), slice(3, 8)),
        "atom_coords": uniform(2, 3),
        "atomic_weights": uniform(8),
    }
    return GridFeatures(**{**parts, **changes})


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    target = tmp_path / "skala-1.1.fun"
    digest = write(target, strength=0.1)
    monkeypatch.setitem(foreign.PUBLISHED, digest, "skala-9.9.fun")
    return target


def test_published_file_loads_silently_under_its_published_name(path: Path) -> None:
    functional = load_functional(path)
    assert isinstance(functional, SkalaFunctional)
    assert isinstance(functional, XCFunctional)
    assert not isinstance(functional, SemilocalFunctional)
    assert functional.name == "skala-9.9"
    assert functional.dispersion == "b3lyp5"
    assert functional.header.metadata == {"version": "test"}
    assert functional.exchange_fraction == 0.0
    assert functional.file_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert functional.features == frozenset(Feature)


@pytest.mark.parametrize("inputs", [VERSION_1_0, VERSION_1_1])
def test_every_input_arrives(tmp_path: Path, inputs: list[str]) -> None:
    digest = write(tmp_path / "a.fun", inputs=inputs, strength=0.1)
    features = molecule()
    energy = load_skala(tmp_path / "a.fun", expected_hash=digest).energy_density(features)
    local = -PREFACTOR * features.density.pow(4 / 3).sum(0)
    number = (features.weights * features.tau.sum(0)).sum() + features.atom_coords.sum()
    if inputs == VERSION_1_1:
        number = number + 5 * 8 + features.atomic_weights.sum()
    torch.testing.assert_close(energy, local * (1 + 0.1 * number), rtol=1e-13, atol=0)
    assert energy.dtype == torch.float64


def test_trivial_enhancement_is_slater_exchange_with_two_derivatives(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.fun")
    functional = load_skala(tmp_path / "a.fun", expected_hash=digest)
    density = molecule().density.requires_grad_()
    features = molecule(density=density)
    ours, lda = (f.energy_density(features) for f in (functional, SlaterExchange()))
    torch.testing.assert_close(ours, lda, rtol=1e-12, atol=0)
    for _ in range(2):
        ours, lda = (
            torch.autograd.grad(e.sum(), density, create_graph=True)[0] for e in (ours, lda)
        )
        assert lda.abs().min() > 0.1
        torch.testing.assert_close(ours, lda, rtol=1e-12, atol=0)


def test_pickle_reads_the_file_again_and_checks_it(path: Path) -> None:
    functional = load_skala(path)
    data = pickle.dumps(functional)
    features = molecule()
    again = pickle.loads(data).energy_density(features)
    assert torch.equal(again, functional.energy_density(features))
    write(path, strength=0.2)
    with pytest.raises(CheckpointError, match=f"expected SHA-256 {functional.file_hash}"):
        pickle.loads(data)


@pytest.mark.parametrize("trivial", [True, False])
def test_architecture_of_the_skala_package(trivial: bool) -> None:
    model = pytest.importorskip("skala.functional.model").SkalaFunctional().double()
    header = foreign.SkalaHeader({}, tuple(str(name) for name in model.features), None)
    assert sorted(header.inputs) == sorted(VERSION_1_1)
    if trivial:  # the last layer before a sigmoid of range (0, 2): the enhancement is 1
        last = [m for m in model.output_model if isinstance(m, nn.Linear)][-1]
        nn.init.zeros_(last.weight)
    functional = SkalaFunctional(model, header, Path("built.fun"), "")
    features = molecule()
    energy = functional.energy_density(features)
    slater = SlaterExchange().energy_density(features)
    assert torch.allclose(energy, slater, rtol=1e-12, atol=0) == trivial


def test_unknown_hash_warns_with_the_hash(tmp_path: Path) -> None:
    digest = write(tmp_path / "mine.fun")
    with pytest.warns(UserWarning, match=f"SHA-256 {digest} is of no published Skala file; load"):
        load_skala(tmp_path / "mine.fun")
    write(tmp_path / "skala-1.1.fun")
    with pytest.warns(UserWarning, match=r"it is not the published skala-1.1.fun"):
        load_skala(tmp_path / "skala-1.1.fun")


def test_expected_hash_is_checked_before_anything_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.jit.load", lambda *a, **k: pytest.fail("the program was loaded"))
    with pytest.raises(CheckpointError, match="expected SHA-256 00ff, got"):
        load_skala(path, expected_hash="00ff")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"protocol_version": 1}, "expected protocol_version 2, got 1"),
        ({"protocol_version": ...}, "the archive lacks extra/protocol_version"),
        ({"features": "density"}, "features: expected a list of names, got 'density'"),
        ({"expected_d3_settings": 3}, "expected_d3_settings: expected a name or null, got 3"),
        ({"metadata": []}, "metadata: expected an object"),
    ],
)
def test_bad_header_is_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extra: dict, message: str
) -> None:
    write(tmp_path / "a.fun", **extra)
    monkeypatch.setattr("torch.jit.load", lambda *a, **k: pytest.fail("the program was loaded"))
    with pytest.raises(CheckpointError, match=message):
        load_skala(tmp_path / "a.fun")


def test_unknown_input_is_named(tmp_path: Path) -> None:
    digest = write(tmp_path / "a.fun", inputs=[*VERSION_1_0, "lapl"])
    with pytest.raises(CheckpointError, match="the functional reads lapl, expected only density"):
        load_skala(tmp_path / "a.fun", expected_hash=digest)


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_truncated_file_is_refused(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(CheckpointError, match="truncated or no TorchScript archive"):
        load_skala(path)


def test_archive_that_is_no_program_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "a.fun"
    with zipfile.ZipFile(target, "w") as archive:
        for key, value in (
            ("metadata", "{}"), ("features", "[]"), ("expected_d3_settings", "null"),
            ("protocol_version", "2"),
        ):  # fmt: skip
            archive.writestr(f"a/extra/{key}", value)
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    with pytest.raises(CheckpointError, match="not a TorchScript program"):
        load_skala(target, expected_hash=digest)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"atomic_weights": None}, "reads 'atomic_grid_weights', got None"),
        ({"coords": None}, "reads 'grid_coords', got None"),
        ({"atom_slices": ()}, "features.atom_slices: expected contiguous slices that cover all 8"),
        ({"atom_slices": (slice(3, 8), slice(0, 3))}, "atom by atom"),
        ({"atom_slices": (slice(0, 3), slice(3, 7))}, "atom by atom"),
    ],
)
def test_incomplete_grids_are_named(path: Path, changes: dict, message: str) -> None:
    functional = load_skala(path)
    with pytest.raises(InvalidInputError, match=message):
        functional.energy_density(molecule(**changes))
