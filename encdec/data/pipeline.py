"""The data pipeline from a corpus to training batches: vocabularies, token ids, buckets."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import compress
from typing import TypeVar

import numpy as np

from encdec import files
from encdec.config import DataConfig, RunConfig
from encdec.config.data import VocabularyKind
from encdec.data import vocabulary
from encdec.data.batches import SubwordSampling
from encdec.data.bucketing import Bucketing, make_buckets, select_by_length
from encdec.data.sources import PairStream, read_all
from encdec.data.text import preprocessings, with_preprocessing
from encdec.data.token_cache import cached_examples
from encdec.data.tokens import Examples, Tokens, encode_pairs
from encdec.data.vocabulary import Vocabulary
from encdec.progress import Counter

Item = TypeVar("Item")

_MEASURED_SENTENCES = 1000
"""The number of sentences that are segmented at random to measure how they lengthen."""
_COUNTED_TOKENS = 10_000_000
"""The number of training tokens among which unknown ones are counted."""
_ROOM_QUANTILE = 0.8
"""The fraction of random segmentations that fit into the shape of their batch."""
_MIN_EXTRA = 10
"""The smallest `extra_length` of a run, tokens."""
_EXTRA_QUANTILE = 0.99
"""The fraction of training pairs that decide how long a translation may be ..."""
_EXTRA_MARGIN = 1.5
"""... and how many times as much as they need it may have in addition to twice its source."""


def build_vocabularies(
    data: DataConfig, train: PairStream, seed: int
) -> tuple[Vocabulary, Vocabulary]:
    """Builds the source and the target vocabulary from the preprocessed training text.

    Args:
      data: settings; with `joint_vocabulary` source and target have the same vocabulary.
      train: the training text.
      seed: chooses the sentences if there are more than `data.vocabulary_sentences`.

    Raises:
      InputError: the text has too few tokens or too many characters for the vocabulary size.
    """
    preprocess = [side.preprocess for side in preprocessings(data)]

    def build(kind: VocabularyKind, sides: tuple[int, ...]) -> Vocabulary:
        most = max(1, data.vocabulary_sentences // len(sides))
        pairs = random_subset(train, len(train), most, seed)
        texts = (preprocess[side](pair[side]) for pair in pairs for side in sides)
        size = None if kind == "bytes" else data.vocabulary_size
        return vocabulary.build(kind, texts, size, data.sentencepiece_model)

    if data.joint_vocabulary:
        joint = build(data.vocabulary, (0, 1))
        source, target = joint, joint
    else:
        source = build(data.vocabulary, (0,))
        target = build(data.target_vocabulary or data.vocabulary, (1,))
    of_source, of_target = preprocessings(data)
    return with_preprocessing(source, of_source), with_preprocessing(target, of_target)


def random_subset(items: Iterable[Item], count: int, most: int, seed: int) -> Iterator[Item]:
    """Yields at most `most` of `count` items in their order, chosen at random by the seed."""
    if count <= most:
        yield from items
        return
    chosen = np.zeros(count, bool)
    chosen[np.random.default_rng(seed).choice(count, most, replace=False, shuffle=False)] = True
    yield from compress(items, chosen)


def encode_training(
    data: DataConfig,
    train: PairStream,
    corpus: str,
    vocabularies: tuple[Vocabulary, Vocabulary],
    say: Callable[[str], None],
    *,
    in_memory: bool = False,
) -> Examples:
    """Encodes the training text, into memory or into the token cache on disk.

    Args:
      data: settings.
      train: the text.
      corpus: the digest of the text.
      vocabularies: source and target vocabulary.
      say: is called with lines about a damaged cache or another process that fills it.
      in_memory: whether the text is in memory already; its tokens are then kept in memory too.

    Raises:
      InputError: the cache cannot be written.
    """
    if in_memory:
        return encode_pairs(read_all(train), *vocabularies)
    key = f"{corpus} {preprocessings(data)}"
    with ExitStack() as stack:
        bar = cache(lambda: stack.enter_context(Counter(len(train), "pairs encoded")))

        def count(done: int) -> None:
            if done < len(train):  # a corpus that is encoded in one step needs no progress bar
                bar().add(done)

        root = files.cache_folder() / "tokens"
        return cached_examples(train, key, *vocabularies, root, progress=count, say=say)


def subword_sampling(
    data: DataConfig, vocabularies: tuple[Vocabulary, Vocabulary]
) -> SubwordSampling | None:
    """The random segmentation of the settings; None if segmentation is deterministic."""
    alpha = data.subword_regularization or data.bpe_dropout
    return SubwordSampling(*vocabularies, alpha) if alpha else None


def bucket_training(
    config: RunConfig,
    examples: Examples,
    sampling: SubwordSampling | None,
    say: Callable[[str], None],
) -> tuple[Bucketing, int]:
    """Sorts the training sentences into buckets.

    With subword regularization most random segmentations fit into the shapes.

    Args:
      config: settings.
      examples: token ids of all training pairs.
      sampling: the random segmentation, or None.
      say: is called with a line that counts the pairs that are too long.

    Returns:
      The buckets, and the `extra_length` of the run.

    Raises:
      InputError: all pairs are too long, or a batch is too small for the longest.
    """
    data = config.data
    source, target = examples.lengths()
    limits = (data.max_source_length, data.max_target_length)
    selected = select_by_length(
        source - 1, target - 1, *limits
    )  # the limits do not count the end token
    if len(selected) < len(source):
        say(
            f"{len(source) - len(selected)} of {len(source)} pairs are left out of training: "
            f"longer than {limits[0]} source or {limits[1]} target tokens"
        )
    extra = extra_length(source[selected], target[selected])
    if sampling:
        source = _sampled_lengths(examples.src, sampling.src_vocab, sampling.alpha)
        target = _sampled_lengths(examples.tgt, sampling.tgt_vocab, sampling.alpha)
        if longest := config.model.longest_sentence:  # more has no positions
            source, target = (np.minimum(lengths, longest) for lengths in (source, target))
    bucketing = make_buckets(
        source,
        target,
        batch_tokens=data.batch_tokens,
        num_buckets=data.num_buckets,
        rows_multiple=config.training.gradient_accumulation,
        selected=selected,
    )
    return bucketing, extra


def extra_length(source: np.ndarray, target: np.ndarray) -> int:
    """The most tokens by which a translation may exceed twice its source, from training pairs.

    It is 1.5 times what 99 of 100 pairs need, but at least 10 and otherwise no more than any pair
    needs. A few odd pairs, such as two words with a paragraph, do not make every search long.

    Args:
      source, target: int [n], the tokens of each pair, end tokens included.
    """
    needed = target.astype(int) - 2 * source
    common = np.quantile(needed, _EXTRA_QUANTILE, method="higher")
    return max(_MIN_EXTRA, min(int(needed.max()), math.ceil(_EXTRA_MARGIN * common)))


def note_long_sources(
    config: RunConfig, sources: Sequence[str], vocab: Vocabulary, say: Callable[[str], None]
) -> None:
    """Reports how many validation sentences are longer than the limit for training sentences.

    Args:
      config: settings.
      sources: the source sentences of the validation set.
      vocab: the source vocabulary.
      say: is called with the line.
    """
    limit = config.data.max_source_length
    decoded = sources[: config.training.evaluate_sentences]
    if count := sum(len(ids) > limit for ids in vocab.encode_all(decoded)):
        say(
            f"{count} of {len(decoded)} sentences to validate on are longer than {limit} source "
            "tokens: they are translated and scored nevertheless"
        )


def note_unknown_tokens(examples: Examples, say: Callable[[str], None]) -> None:
    """Reports how many training tokens are unknown to vocabularies that another text made.

    Args:
      examples: the training pairs; of a long text its beginning counts.
      say: is called with a line for each side that has unknown tokens.
    """
    for side, tokens in zip(("source", "target"), examples, strict=True):
        counted = tokens.flat[:_COUNTED_TOKENS]
        if count := np.count_nonzero(counted == tokens.specials.unknown):
            consequence = " and cannot be written" if side == "target" else ""
            say(
                f"{count:,} of {len(counted):,} {side} tokens are unknown to the vocabulary that "
                f"training begins with{consequence}"
            )


def _sampled_lengths(tokens: Tokens, vocab: Vocabulary, alpha: float) -> np.ndarray:
    """Lengths that most random segmentations do not exceed: int [n], with the end token.

    All lengths are multiplied by one factor: a quantile of the growth of a sample of sentences.
    """
    rng, growth = np.random.default_rng(0), [1.0]
    for i in np.unique(np.linspace(0, len(tokens) - 1, _MEASURED_SENTENCES).astype(int)):
        ids = tokens[i][:-1].tolist()
        segmentation = vocab.sample_segmentation(ids, alpha, sys.maxsize, rng)
        growth.append((len(segmentation) + 1) / (len(ids) + 1))
    return np.ceil(tokens.lengths() * np.quantile(growth, _ROOM_QUANTILE)).astype(np.int32)
