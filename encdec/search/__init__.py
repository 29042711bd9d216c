"""Greedy search, sampling and beam search over a `DecodeStep`; they know no model."""
