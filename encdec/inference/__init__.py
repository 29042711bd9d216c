"""A trained model at work: text in; translations, alignments and log-probabilities out."""
