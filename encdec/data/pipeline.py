"""The data pipeline from a corpus to training batches: vocabularies, token ids, buckets."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import compress
from typing import TypeVar

import numpy as np

from encdec import files
from encdec.config import DataConfig, RunConfig
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
"""Sentences that are split at random to measure how much longer they become."""
_ROOM_QUANTILE = 0.8
"""The fraction of random segmentations for which a batch shape has room."""
_MIN_EXTRA = 10
"""Least value of a run's `extra_length`, tokens."""


def build_vocabularies(
    data: DataConfig, train: PairStream, seed: int
) -> tuple[Vocabulary, Vocabulary]:
    """Builds the source and the target vocabulary from the preprocessed training text.

    Args:
      data: settings; with a joint vocabulary both vocabularies have the same tokens.
      train: the training text.
      seed: chooses the sentences where there are more than `data.vocabulary_sentences`.

    Raises:
      InputError: the text has too few tokens for the size, or too many characters.
    """
    preprocess = [side.preprocess for side in preprocessings(data)]

    def build(kind: vocabulary.Kind, sides: tuple[int, ...]) -> Vocabulary:
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
    """Yields at most `most` of `count` items, chosen at random by the seed, in their order."""
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
      corpus: its digest.
      vocabularies: source and target.
      say: receives lines about a damaged cache or another process that fills it.
      in_memory: whether the text is in memory already, so that its tokens may be too.

    Raises:
      InputError: the cache cannot be written.
    """
    if in_memory:
        return encode_pairs(read_all(train), *vocabularies)
    key = f"{corpus} {preprocessings(data)}"
    with ExitStack() as stack:
        bar = cache(lambda: stack.enter_context(Counter(len(train), "pairs encoded")))

        def count(done: int) -> None:
            if done < len(train):  # a corpus that is encoded in one go needs no bar
                bar().add(done)

        root = files.cache_folder() / "tokens"
        return cached_examples(train, key, *vocabularies, root, progress=count, say=say)


def subword_sampling(
    data: DataConfig, vocabularies: tuple[Vocabulary, Vocabulary]
) -> SubwordSampling | None:
    """How sentences are split at random in training; None where they are not."""
    alpha = data.subword_regularization or data.bpe_dropout
    return SubwordSampling(*vocabularies, alpha) if alpha else None


def bucket_training(
    config: RunConfig,
    examples: Examples,
    sampling: SubwordSampling | None,
    say: Callable[[str], None],
) -> tuple[Bucketing, int]:
    """Sorts the training sentences into buckets.

    With subword sampling the shapes have room for most random segmentations.

    Args:
      config: settings.
      examples: token ids of all training pairs.
      sampling: the random segmentation, if any.
      say: receives a line that counts the pairs that are too long.

    Returns:
      The buckets, and how many tokens more than twice its source a target may have.

    Raises:
      InputError: all pairs are too long, or a batch is too small for the longest.
    """
    data = config.data
    source, target = examples.lengths()
    limits = (data.max_source_length, data.max_target_length)
    selected = select_by_length(source - 1, target - 1, *limits)  # the limits do not count EOS
    if len(selected) < len(source):
        say(
            f"{len(source) - len(selected)} of {len(source)} pairs are left out of training: "
            f"longer than {limits[0]} source or {limits[1]} target tokens"
        )
    extra_length = max(_MIN_EXTRA, int((target[selected] - 2 * source[selected]).max()))
    if sampling:
        source = _sampled_lengths(examples.src, sampling.src_vocab, sampling.alpha)
        target = _sampled_lengths(examples.tgt, sampling.tgt_vocab, sampling.alpha)
    bucketing = make_buckets(
        source,
        target,
        batch_tokens=data.batch_tokens,
        num_buckets=data.num_buckets,
        rows_multiple=config.training.gradient_accumulation,
        selected=selected,
    )
    return bucketing, extra_length


def note_long_sources(
    config: RunConfig, sources: Sequence[str], vocab: Vocabulary, say: Callable[[str], None]
) -> None:
    """Says how many validation sentences are longer than any that the model is trained on."""
    limit = config.data.max_source_length
    decoded = sources[: config.training.evaluate_sentences]
    if count := sum(len(ids) > limit for ids in vocab.encode_all(decoded)):
        say(
            f"{count} of {len(decoded)} sentences to validate on are longer than {limit} source "
            "tokens: they are translated and scored all the same"
        )


def _sampled_lengths(tokens: Tokens, vocab: Vocabulary, alpha: float) -> np.ndarray:
    """Lengths that most random segmentations of these sentences do not exceed: int [n], with EOS.

    Each length is multiplied by one factor, a quantile of the growth of some sentences.
    """
    rng, growth = np.random.default_rng(0), [1.0]
    for i in np.unique(np.linspace(0, len(tokens) - 1, _MEASURED_SENTENCES).astype(int)):
        ids = tokens[i][:-1].tolist()
        segmentation = vocab.sample_segmentation(ids, alpha, sys.maxsize, rng)
        growth.append((len(segmentation) + 1) / (len(ids) + 1))
    return np.ceil(tokens.lengths() * np.quantile(growth, _ROOM_QUANTILE)).astype(np.int32)
