"""From what a user writes after `xc=` to a functional."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from os import PathLike, fspath
from pathlib import Path

from torch import nn

from ase_neuralxc.errors import InvalidInputError, unknown_name
from ase_neuralxc.functional.lda import LDA, SlaterExchange
from ase_neuralxc.functional.pbe import PBE
from ase_neuralxc.functional.protocol import XCFunctional
from ase_neuralxc.functional.r2scan import R2SCAN

CHECKPOINT_SUFFIX = ".safetensors"
SKALA_SUFFIX = ".fun"

_REFERENCES: dict[str, Callable[[], XCFunctional]] = {
    "lda": LDA,
    "lda_x": SlaterExchange,
    "pbe": PBE,
    "pbe0": lambda: PBE(exchange_fraction=0.25, name="pbe0"),
    "r2scan": R2SCAN,
    "r2scan0": lambda: R2SCAN(exchange_fraction=0.25, name="r2scan0"),
}


def available() -> list[str]:
    """Names that `load_functional` takes: the references and the shipped checkpoints, sorted."""
    return sorted({*_REFERENCES, *_shipped()})


def load_functional(spec: str | PathLike[str] | XCFunctional) -> XCFunctional:
    """Find or load a functional.

    Args:
        spec: one of `available()` in any case; a path that ends in .safetensors (a checkpoint of
            this package) or .fun (a Skala file: loading it runs the TorchScript inside, so load
            only files that you trust); or a functional, which is returned as it is.

    Returns:
        The functional. A name or a path gives a new object at each call.

    Raises:
        InvalidInputError: an unknown name, a missing file, or an object that is no functional.
        CheckpointError: a file that is damaged, altered or of another version.
    """
    if isinstance(spec, (str, PathLike)):
        text = fspath(spec)
        suffix = Path(text).suffix.lower()
        if suffix in (CHECKPOINT_SUFFIX, SKALA_SUFFIX):
            return _from_file(Path(text).expanduser(), suffix)
        return _from_name(text)
    if isinstance(spec, nn.Module) and isinstance(spec, XCFunctional):
        return spec
    raise InvalidInputError(
        "xc: expected a name, a path to a .safetensors or .fun file, or a torch module with name, "
        f"features, exchange_fraction and energy_density, got {spec!r} of type "
        f"{type(spec).__name__}"
    )


def _from_name(name: str) -> XCFunctional:
    key = name.strip().lower()
    if key in _REFERENCES:
        return _REFERENCES[key]()
    shipped = {stem.lower(): path for stem, path in _shipped().items()}
    if key in shipped:
        return _from_file(shipped[key], CHECKPOINT_SUFFIX)
    error = unknown_name("functional", name, available())
    raise InvalidInputError(
        f"{error}. A file is given by a path that ends in {CHECKPOINT_SUFFIX} (a checkpoint) or "
        f"{SKALA_SUFFIX} (Skala)"
    )


def _from_file(path: Path, suffix: str) -> XCFunctional:
    if not path.is_file():
        raise InvalidInputError(f"xc: expected the path of an existing file, got {str(path)!r}")
    # Imported here: most runs need neither kind of file, and Skala's brings e3nn.
    if suffix == SKALA_SUFFIX:
        from ase_neuralxc.functional.foreign import load_skala

        return load_skala(path)
    from ase_neuralxc.functional.checkpoint import load_checkpoint

    return load_checkpoint(path)


def _shipped() -> dict[str, Path]:
    """Checkpoints that come with the package, by stem."""
    folder = Path(str(resources.files("ase_neuralxc.functional"))) / "weights"
    return {path.stem: path for path in folder.glob(f"*{CHECKPOINT_SUFFIX}")}
