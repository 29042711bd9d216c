"""Greedy search, sampling and beam search over a `DecodeStep`, the processors that act between its
log-probabilities and the choice of a token, and ensembles. No module depends on a model."""
