"""From batches to parameters: the pure step, the optimiser, the host loop, checkpoints."""
