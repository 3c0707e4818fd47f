"""Derivatives of the energy with respect to nuclear positions."""
