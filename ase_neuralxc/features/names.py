"""Names of the quantities a functional may ask for."""

from __future__ import annotations

from enum import StrEnum


class Feature(StrEnum):
    """Grid quantities, with their shapes for n points and two spin channels."""

    DENSITY = "density"  # [2, n]
    GRADIENT = "gradient"  # [2, 3, n]
    TAU = "tau"  # [2, n]
    GRID = "grid"  # coords [n, 3], weights [n], atom slices: nonlocal functionals
