"""Between a corpus and its first batch: vocabularies, tokens, plan."""

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache

import numpy as np

from encdec import files
from encdec.config import DataConfig, RunConfig
from encdec.data import vocabulary
from encdec.data.batches import SubwordSampling
from encdec.data.bucketing import Bucketing, make_buckets, rows_within
from encdec.data.sources import PairStream, read_all
from encdec.data.text import prepared, preprocessings
from encdec.data.token_cache import cached_examples
from encdec.data.tokens import Examples, Tokens, encode_pairs
from encdec.data.vocabulary import Vocabulary, drawn
from encdec.progress import Counter

_SHOWN = 1000  # sentences, cut at random to see how much longer they become
_FITTING = 0.8  # share of them that a batch shape has room for


def build_vocabularies(
    data: DataConfig, train: PairStream, seed: int
) -> tuple[Vocabulary, Vocabulary]:
    """Source and target vocabulary of training text, each with the preparation before it; both
    have the same tokens if it is joint.

    Raises:
      InputError: a size that the text does not allow.
    """
    ways = preprocessings(data)

    def build(kind: vocabulary.Kind, sides: tuple[int, ...]) -> Vocabulary:
        pairs = drawn(train, len(train), max(1, data.vocabulary_sentences // len(sides)), seed)
        texts = (ways[side].prepare(pair[side]) for pair in pairs for side in sides)
        size = None if kind == "bytes" else data.vocabulary_size
        return vocabulary.build(kind, texts, size, data.sentencepiece_model)

    if data.joint_vocabulary:
        joint = build(data.vocabulary, (0, 1))
        return prepared(joint, ways[0]), prepared(joint, ways[1])
    kinds = (data.vocabulary, data.target_vocabulary or data.vocabulary)
    source, target = (prepared(build(kinds[i], (i,)), ways[i]) for i in (0, 1))
    return source, target


def encode_training(
    data: DataConfig,
    train: PairStream,
    corpus: str,
    vocabularies: tuple[Vocabulary, Vocabulary],
    say: Callable[[str], None],
    *,
    in_memory: bool = False,
) -> Examples:
    """Tokens of the training text: in memory, or in the token cache on disk.

    Args:
      data: settings.
      train: the text.
      corpus: its digest.
      vocabularies: source and target.
      say: is called with a line when a damaged cache is written again.
      in_memory: the text is in memory already, and its tokens are kept there too.

    Raises:
      InputError: the cache cannot be written.
    """
    if in_memory:
        return encode_pairs(read_all(train), *vocabularies)
    prepared_text = f"{corpus} {preprocessings(data)}"
    with ExitStack() as stack:
        bar = cache(lambda: stack.enter_context(Counter(len(train), "pairs made into tokens")))

        def tell(count: int) -> None:
            if count < len(train):  # what is done at once needs no bar
                bar().add(count)

        root = files.cache_folder() / "tokens"
        return cached_examples(train, prepared_text, *vocabularies, root, progress=tell, say=say)


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
    """The batches of an epoch, and how many tokens more than twice its source a target may need.

    Where sentences are cut at random, the shapes have room for most ways to cut them.

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
    if sampling:
        source = _with_room(examples.src, sampling.src_vocab, sampling.alpha)
        target = _with_room(examples.tgt, sampling.tgt_vocab, sampling.alpha)
    made = make_buckets(
        source,
        target,
        batch_tokens=data.batch_tokens,
        num_buckets=data.num_buckets,
        rows_multiple=config.training.gradient_accumulation,
        rows=rows,
    )
    return made, extra


def note_long_sources(
    config: RunConfig, sources: Sequence[str], vocab: Vocabulary, say: Callable[[str], None]
) -> None:
    """Says how many of the sentences that validation decodes are longer than those trained on."""
    most = config.data.max_source_length
    decoded = sources[: config.training.evaluate_sentences]
    if long := sum(len(ids) > most for ids in vocab.encode_all(decoded)):
        say(
            f"{long} of {len(decoded)} sentences to validate on are longer than {most} source "
            "tokens: they are translated and scored all the same"
        )


def _with_room(tokens: Tokens, vocab: Vocabulary, alpha: float) -> np.ndarray:
    """Lengths that most ways to cut these sentences do not exceed: int [n], EOS among them."""
    rng, growth = np.random.default_rng(0), [1.0]
    for i in np.unique(np.linspace(0, len(tokens) - 1, _SHOWN).astype(int)):
        ids = tokens[i][:-1].tolist()
        cut = vocab.sample_segmentation(ids, alpha, sys.maxsize, rng)
        growth.append((len(cut) + 1) / (len(ids) + 1))
    return np.ceil(tokens.lengths() * np.quantile(growth, _FITTING)).astype(np.int32)
