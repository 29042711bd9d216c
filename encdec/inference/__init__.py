"""Inference with trained models: text in; translations, alignments and log-probabilities out."""
