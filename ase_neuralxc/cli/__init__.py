"""The command line `neuralxc`. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from ase_neuralxc.cli.main import main

__all__ = ["main"]
