"""From text to batches: files, vocabularies, the dates corpus, the batch plan. No JAX here."""
