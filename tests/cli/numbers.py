"""A corpus of number words, and settings with which a run learns it within seconds."""

WORDS = {"eins": "one", "zwei": "two", "drei": "three", "vier": "four"}
SETTINGS = [
    *("--vocabulary", "words", "--embed", "16", "--hidden", "32", "--dropout", "0"),
    *("--max-steps", "240", "--learning-rate", "0.01", "--warmup", "20", "--label-smoothing", "0"),
    *("--batch-tokens", "160", "--evaluate-every", "80", "--log-every", "40", "--num-buckets", "2"),
    *("--max-source-length", "6", "--best-metric", "loss"),
]


def number_pairs() -> list[tuple[str, str]]:
    """All sentences of one to three words."""
    words = list(WORDS)
    sentences = [[a] for a in words] + [[a, b] for a in words for b in words]
    sentences += [[a, b, c] for a in words for b in words for c in words]
    return [(" ".join(s), " ".join(WORDS[w] for w in s)) for s in sentences]
