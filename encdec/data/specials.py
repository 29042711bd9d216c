"""Labels of the four ids that every vocabulary begins with."""

SPECIALS = ("<pad>", "<s>", "</s>", "⁇")
"""Labels of PAD, BOS, EOS and UNK, in the order of their ids."""

FIRST = len(SPECIALS)
"""The first id of a token of its own."""
