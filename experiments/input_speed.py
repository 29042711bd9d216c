"""How fast does the pipeline make batches of a large corpus, and in how much memory?

    python experiments/input_speed.py --pairs 1000000 --source train.de --target train.en

Pairs are drawn from the corpus, with the words of each sentence in a new order; without a corpus,
from random sentences over 10,000 made-up words.

Device: 2 cores of an Intel Xeon (AVX-512), 2026-11-24, at low priority while other programs ran, so
seconds are upper bounds. Duration: 2 to 6 minutes.
Results, 1,000,000 pairs of shuffled Multi30k (lower-cased, tokenized), batches of 4,096 tokens, 12
buckets ("not padding" is the fraction of all tokens):

    tokens              vocabulary  encoding  buckets  memory  target tokens/s  not padding
    words                     48 s      38 s      1 s  0.37 GB             10 M        0.918
    joint BPE, 10,000         17 s      72 s      1 s  0.63 GB             15 M        0.909
    unigram                  178 s      58 s      2 s  1.08 GB             14 M        0.901

Words and BPE were measured before SentencePiece's training text was limited to 40 million
characters, and not since. With random segmentation, 100,000 pairs on an idle machine: joint BPE
with `--data.bpe-dropout 0.1` makes 33 k target tokens/s, and 0.796 of all tokens are not padding;
unigram with `--data.subword-regularization 0.2` makes 33 k, and 0.842 are not.
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro

from encdec.cli.main import as_command
from encdec.config import DataConfig, RunConfig
from encdec.data.batches import SubwordSampling, training_iterator
from encdec.data.bucketing import Bucketing
from encdec.data.pipeline import bucket_training, build_vocabularies, subword_sampling
from encdec.data.sources import read_lines
from encdec.data.token_cache import cached_examples
from encdec.data.tokens import Examples
from encdec.progress import Counter
from encdec.types import Batch

Sentences = list[list[str]]


@dataclass(frozen=True)
class Options:
    """The text, its amount and its tokens."""

    source: Path | None = None
    """File of source sentences; random sentences by default."""
    target: Path | None = None
    """File of target sentences, line by line."""
    pairs: int = 1_000_000
    """Number of pairs in the corpus."""
    batches: int = 2000
    """Number of timed batches."""
    data: DataConfig = field(default_factory=DataConfig)
    """Settings of vocabulary and batches, as in `encdec train`."""


class Shuffled:
    """`count` pairs drawn from given ones, with the words of each sentence in a new order."""

    def __init__(self, source: Sentences, target: Sentences, count: int) -> None:
        self._sides = [[np.array(s, object) for s in side] for side in (source, target)]
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, str]]:
        rng = np.random.default_rng(0)
        for done in range(0, self._count, 1000):
            rows = rng.integers(len(self._sides[0]), size=min(1000, self._count - done))
            texts = [self._texts(rng, [side[i] for i in rows]) for side in self._sides]
            yield from zip(*texts, strict=True)

    def _texts(self, rng: np.random.Generator, sentences: list[np.ndarray]) -> Iterator[str]:
        lengths = [len(words) for words in sentences]
        place = np.repeat(np.arange(len(sentences)), lengths) + rng.random(sum(lengths))
        mixed = np.concatenate(sentences)[place.argsort()]
        return map(" ".join, np.split(mixed, np.cumsum(lengths)[:-1]))


def captions(count: int, seed: int) -> Sentences:
    """Random sentences over made-up words, whose frequencies follow Zipf's law."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    table = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(10_000)]
    ranks = 1 / np.arange(1, len(table) + 1)
    lengths = np.random.default_rng(0).gamma(8, 13 / 8, count).round().clip(3, 45).astype(int)
    return [[table[i] for i in rng.choice(len(table), n, p=ranks / ranks.sum())] for n in lengths]


def corpus(options: Options) -> Shuffled:
    """The corpus of the options."""
    if options.source is None or options.target is None:
        return Shuffled(captions(3000, 1), captions(3000, 2), options.pairs)
    sides = (options.source, options.target)
    return Shuffled(*([line.split() for line in read_lines(p)] for p in sides), options.pairs)


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Prints the duration of a block, and the peak of resident memory so far."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<24}{seconds:8.1f} s, {memory:5.2f} GB resident at most", flush=True)


def build_pipeline(
    options: Options, root: Path
) -> tuple[Examples, Bucketing, SubwordSampling | None]:
    """Runs all stages before the first batch, and times each."""
    data, train = options.data, corpus(options)
    with timed("text, read once"):
        sum(1 for _ in train)
    with timed("vocabularies"):
        vocabularies = build_vocabularies(data, train, 0)
    with timed("tokens"), Counter(len(train), "encoded") as count:
        key = f"{options}"
        examples = cached_examples(
            train, key, *vocabularies, root, progress=count.add, say=count.say
        )
    with timed("tokens from the cache"):
        examples = cached_examples(train, key, *vocabularies, root, progress=print, say=print)
    sampling = subword_sampling(data, vocabularies)
    with timed("buckets"):
        bucketing, _ = bucket_training(RunConfig(data=data), examples, sampling, print)
    return examples, bucketing, sampling


def report(counts: list[tuple[int, int, int]], shapes: int, seconds: float) -> None:
    """Prints the rate and the padding of batches from their `token_counts`."""
    source, target, padded = np.sum(counts, axis=0)
    print(
        f"{target / seconds:,.0f} target tokens/s ({len(counts)} batches in {seconds:.2f} s), "
        f"{(source + target) / padded:.3f} of all tokens not padding, {shapes} shapes"
    )


def token_counts(batch: Batch) -> tuple[int, int, int]:
    """The number of source tokens, of predicted target tokens, and of both with padding."""
    tgt = batch.tgt[:, 1:]
    return np.count_nonzero(batch.src), np.count_nonzero(tgt), batch.src.size + tgt.size


def main(options: Options) -> None:
    """Builds the pipeline, times batches, prints the results."""
    with TemporaryDirectory() as root:
        examples, bucketing, sampling = build_pipeline(options, Path(root))
        batches = training_iterator(examples, bucketing, 0, 0, sampling)
        with timed("first batch"):
            next(batches)
        start = time.perf_counter()
        counts = [token_counts(batch) for batch in islice(batches, options.batches)]
        report(counts, len(bucketing.buckets), time.perf_counter() - start)


if __name__ == "__main__":
    with as_command("input_speed.py"):
        main(tyro.cli(Options, description=__doc__))
