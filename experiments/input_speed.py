"""How fast are batches made of a large corpus, and in how little memory?

    python experiments/input_speed.py --pairs 1000000 --source train.de --target train.en

Pairs are drawn from the corpus, the words of each sentence in a new order; without a corpus, from
captions of 10,000 made-up words.

Device: 2 cores of an Intel Xeon (AVX-512), 2026-11-24, niced, with trainings and tests beside, so
that seconds are upper bounds. Duration: 2 to 6 minutes.
Seen, 1,000,000 pairs of shuffled Multi30k (lower-cased, tokenised), batches of 4,096, 12 shapes:

    tokens              vocabulary  encoding  plan   memory   target tokens/s  real cells
    words                     48 s      38 s   1 s  0.37 GB              10 M       0.918
    joint BPE, 10,000         17 s      72 s   1 s  0.63 GB              15 M       0.909
    unigram                  178 s      58 s   2 s  1.08 GB              14 M       0.901

Words and byte pairs were measured before SentencePiece's training text was limited to 40 million
characters, and not again since. With random segmentation, 100,000 pairs on an idle machine: joint
BPE with `--data.bpe-dropout 0.1`, 33 k target tokens/s and 0.796 of all tokens are not padding;
unigram with `--data.subword-regularization 0.2`, 33 k and 0.842.
"""

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import tyro

from encdec.config import DataConfig, RunConfig
from encdec.data.batches import SubwordSampling, training_iterator
from encdec.data.bucketing import Bucketing
from encdec.data.pipeline import bucket_training, build_vocabularies, subword_sampling
from encdec.data.sources import read_lines
from encdec.data.token_cache import cached_examples
from encdec.data.tokens import Examples
from encdec.progress import Counter
from encdec.types import Batch, InputError

Sentences = list[list[str]]


@dataclass(frozen=True)
class Options:
    """What text, how much of it, in what tokens."""

    source: Path | None = None
    """Source sentences; made-up captions if left out."""
    target: Path | None = None
    """Target sentences, as many."""
    pairs: int = 1_000_000
    """Pairs to make batches of."""
    batches: int = 2000
    """Batches that are timed."""
    data: DataConfig = field(default_factory=DataConfig)
    """Vocabulary and batches, as in `encdec train`."""


class Shuffled:
    """So many pairs drawn from given ones, the words of each sentence in a new order."""

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
    """Made-up sentences, their words as frequent as those of a language (Zipf)."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    table = ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(10_000)]
    ranks = 1 / np.arange(1, len(table) + 1)
    lengths = np.random.default_rng(0).gamma(8, 13 / 8, count).round().clip(3, 45).astype(int)
    return [[table[i] for i in rng.choice(len(table), n, p=ranks / ranks.sum())] for n in lengths]


def made(options: Options) -> Shuffled:
    """The text."""
    if options.source is None or options.target is None:
        return Shuffled(captions(3000, 1), captions(3000, 2), options.pairs)
    sides = (options.source, options.target)
    return Shuffled(*([line.split() for line in read_lines(p)] for p in sides), options.pairs)


@contextmanager
def told(what: str) -> Iterator[None]:
    """Prints how long something took, and the most memory that was ever resident."""
    start = time.perf_counter()
    yield
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{what:<24}{seconds:8.1f} s, {memory:5.2f} GB resident at most", flush=True)


def prepared(options: Options, root: Path) -> tuple[Examples, Bucketing, SubwordSampling | None]:
    """All that is done before the first batch."""
    data, train = options.data, made(options)
    with told("text alone, read once"):
        sum(1 for _ in train)
    with told("vocabularies"):
        vocabularies = build_vocabularies(data, train, 0)
    with told("tokens"), Counter(len(train), "encoded") as count:
        key = f"{options}"
        examples = cached_examples(
            train, key, *vocabularies, root, progress=count.add, say=count.say
        )
    with told("tokens from the cache"):
        examples = cached_examples(train, key, *vocabularies, root, progress=print, say=print)
    sampling = subword_sampling(data, vocabularies)
    with told("plan"):
        bucketing, _ = bucket_training(RunConfig(data=data), examples, sampling, print)
    return examples, bucketing, sampling


def report(batches: list[tuple[int, int, int]], shapes: int, seconds: float) -> None:
    """Prints rates of batches with so many real source tokens, target tokens, and cells."""
    source, target, cells = np.sum(batches, axis=0)
    print(
        f"{target / seconds:,.0f} target tokens/s ({len(batches)} batches in {seconds:.2f} s), "
        f"real cells {(source + target) / cells:.3f}, {shapes} shapes"
    )


def measured(batch: Batch) -> tuple[int, int, int]:
    """Real source tokens, predicted target tokens, cells of both."""
    tgt = batch.tgt[:, 1:]
    return np.count_nonzero(batch.src), np.count_nonzero(tgt), batch.src.size + tgt.size


def main(options: Options) -> None:
    """Prepares, delivers, prints."""
    with TemporaryDirectory() as root:
        examples, bucketing, sampling = prepared(options, Path(root))
        batches = training_iterator(examples, bucketing, 0, 0, sampling)
        with told("first batch"):
            next(batches)
        start = time.perf_counter()
        seen = [measured(batch) for batch in islice(batches, options.batches)]
        report(seen, len(bucketing.buckets), time.perf_counter() - start)


if __name__ == "__main__":
    try:
        main(tyro.cli(Options, description=__doc__))
    except InputError as error:
        sys.exit(f"input_speed.py: {error}")
