"""From text to batches: sources, the dates corpus, vocabularies, buckets. No module imports JAX."""
