"""Training: the pure step, the optimizer, the loop on the host, checkpoints."""
