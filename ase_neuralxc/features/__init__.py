"""Inputs of functionals: names, grid quantities."""

from ase_neuralxc.features.grid import DensityInvariants, GridFeatures
from ase_neuralxc.features.names import Feature

__all__ = ["DensityInvariants", "Feature", "GridFeatures"]
