"""Fixtures and settings of the whole suite."""

from __future__ import annotations

import os

# Before NumPy or torch is loaded: workers of pytest-xdist must not fight for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers that are the same in every run."""
    return np.random.default_rng(20240607)
