"""Between a corpus and its first batch: vocabularies, tokens, plan."""

import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from itertools import chain
from pathlib import Path

import numpy as np

from encdec.config import DataConfig, RunConfig
from encdec.data import vocabulary
from encdec.data.cache import cached_examples
from encdec.data.plan import Plan, plan, rows_within
from encdec.data.sources import Pairs, PairStream
from encdec.data.tokens import Examples, encode_pairs
from encdec.data.vocabulary import Vocabulary, drawn
from encdec.report.logs import Counter

_ROOM = 0.1
"""How much longer a sentence may become, as a share, where its subwords are drawn."""


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/encdec or ~/.cache/encdec."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "encdec"


def build_vocabularies(
    data: DataConfig, train: PairStream, seed: int
) -> tuple[Vocabulary, Vocabulary]:
    """Source and target vocabulary of training text; one and the same if it is joint.

    Raises:
      InputError: a size that the text does not allow.
    """
    most = data.vocabulary_sentences
    if data.joint_vocabulary:
        both = drawn(chain.from_iterable(train), 2 * len(train), most, seed)
        joint = vocabulary.build(data.vocabulary, both, data.vocabulary_size, data.pieces)
        return joint, joint

    def build(side: int, kind: vocabulary.Kind) -> Vocabulary:
        texts = drawn((pair[side] for pair in train), len(train), most, seed)
        size = None if kind == "bytes" else data.vocabulary_size
        return vocabulary.build(kind, texts, size, data.pieces)

    return build(0, data.vocabulary), build(1, data.target_vocabulary or data.vocabulary)


def encode_training(
    data: DataConfig,
    train: PairStream,
    corpus: str,
    vocabularies: tuple[Vocabulary, Vocabulary],
    say: Callable[[str], None],
) -> Examples:
    """Tokens of the training text: of a corpus of one's own by way of the cache on disk.

    Args:
      data: settings.
      train: the text.
      corpus: its digest.
      vocabularies: source and target.
      say: told of a cache that must be made anew.

    Raises:
      InputError: the cache cannot be written.
    """
    if not (data.has_files or data.corpus):
        return encode_pairs(Pairs(*map(list, zip(*train, strict=True))), *vocabularies)
    with ExitStack() as stack:
        bar = cache(lambda: stack.enter_context(Counter(len(train), "pairs made into tokens")))

        def tell(count: int) -> None:
            if count < len(train):  # what is done at once needs no bar
                bar().add(count)

        root = cache_folder() / "tokens"
        return cached_examples(train, corpus, *vocabularies, root, progress=tell, say=say)


def plan_training(
    config: RunConfig, examples: Examples, say: Callable[[str], None]
) -> tuple[Plan, int]:
    """The batches of an epoch, and how many tokens more than twice its source a target may need.

    Raises:
      InputError: every pair is too long, or a batch is too small for the longest.
    """
    data = config.data
    source, target = examples.lengths()
    most = (data.max_source_length, data.max_target_length)
    rows = rows_within(source - 1, target - 1, *most)
    if len(rows) < len(source):
        say(
            f"{len(source) - len(rows)} of {len(source)} pairs are left out of training: longer "
            f"than {most[0]} source or {most[1]} target tokens"
        )
    extra = max(10, int((target[rows] - 2 * source[rows]).max()))
    if data.subword_sampling:
        source, target = _with_room(source), _with_room(target)
    made = plan(
        source,
        target,
        batch_tokens=data.batch_tokens,
        shapes=data.shapes,
        rows_multiple=config.training.accumulate,
        rows=rows,
    )
    return made, extra


def _with_room(lengths: np.ndarray) -> np.ndarray:
    """Lengths that most ways to cut these sentences do not exceed; most are a little longer."""
    return lengths + np.ceil(_ROOM * lengths).astype(lengths.dtype)
