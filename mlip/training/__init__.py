"""Training of a potential: configuration, loss, trainer, checkpoints, report."""
