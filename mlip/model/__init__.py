"""Equivariant models: tensor products on the sphere, message passing, spin, energies to forces."""
