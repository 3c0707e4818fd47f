"""Additive energy terms: dispersion, external fields."""
