"""The command line `mlip`."""

from __future__ import annotations

from mlip.cli.main import main

__all__ = ["main"]
