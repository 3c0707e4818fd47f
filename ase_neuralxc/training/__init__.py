"""Training of functionals: reference reactions, stored densities, losses, trainer."""
