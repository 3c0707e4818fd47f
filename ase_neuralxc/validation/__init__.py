"""Functionals measured on reference reactions: single points, statistics, comparisons."""
