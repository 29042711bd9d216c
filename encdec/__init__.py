"""Three generations of encoder-decoder in JAX: Seq2Seq, attention, Transformer."""
