"""Excited states by constrained ground-state theory."""
