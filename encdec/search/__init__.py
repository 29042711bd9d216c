"""Greedy search, sampling and beam search over a `DecodeStep`, the processors that act between its
log-probabilities and the choice of a token, and ensembles. No module depends on a model.

A whole search is `sampling.greedy`, `sampling.sample`, `beam.beam_search` or
`diverse.diverse_beam_search`; `ensemble.ensemble` makes one step of several."""
