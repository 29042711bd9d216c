"""The data pipeline: vocabularies, token ids and buckets of a corpus."""

import math
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from encdec import files
from encdec.config import DataConfig, RunConfig, TrainingConfig, TransformerConfig
from encdec.data.dates import dates
from encdec.data.pipeline import (
    bucket_training,
    build_vocabularies,
    encode_training,
    extra_length,
    note_long_sources,
    random_subset,
    subword_sampling,
)
from encdec.data.sources import InMemoryPairs, Pairs
from encdec.data.tokens import encode_pairs
from encdec.types import InputError

PAIRS = dates(300, 0).train


def test_the_cache_is_where_the_system_keeps_such_things(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.undo()  # the cache folder of conftest
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "encdec"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / ".cache" / "encdec"


def test_sides_may_have_tokens_of_their_own_kind() -> None:
    """Grapheme to phoneme: characters in, symbols between spaces out."""
    train = InMemoryPairs(Pairs(["chat", "chien"], ["ʃ a", "ʃ j ɛ̃"]))
    data = DataConfig(vocabulary="chars", target_vocabulary="words")
    source, target = build_vocabularies(data, train, 0)
    assert source.tokens(source.encode("chien")) == list("chien")
    assert target.tokens(target.encode("ʃ j ɛ̃")) == ["ʃ", "j", "ɛ̃"]
    data = DataConfig(vocabulary="bytes", target_vocabulary="words", vocabulary_size=6)
    assert [v.size for v in build_vocabularies(data, train, 0)] == [260, 6]


def test_a_joint_vocabulary_holds_both_sides() -> None:
    data = DataConfig(vocabulary="words", joint_vocabulary=True)
    source, target = build_vocabularies(data, InMemoryPairs(PAIRS), 0)
    assert source is target
    words = Counter(word for text in chain(*PAIRS) for word in text.split())
    assert set(source.table) == set(words)


def test_a_random_subset_depends_on_the_seed_keeps_the_order_and_is_even() -> None:
    texts = [str(i) for i in range(10)]
    assert list(random_subset(iter(texts), 10, 10, 3)) == texts
    draws = [tuple(random_subset(iter(texts), 10, 4, seed)) for seed in range(2000)]
    assert draws[7] == tuple(random_subset(texts, 10, 4, 7))
    assert all(len(set(draw)) == 4 and list(draw) == sorted(draw) for draw in draws)
    counts = Counter(text for draw in draws for text in draw)
    # Binomial: 4 of 10 in each of 2,000 draws; five standard deviations.
    assert all(abs(counts[text] - 800) < 5 * (2000 * 0.4 * 0.6) ** 0.5 for text in texts)


@pytest.mark.parametrize("joint", [False, True])
def test_a_vocabulary_is_made_of_no_more_sentences_than_asked_for(joint: bool) -> None:
    train = InMemoryPairs(Pairs([f"s{i}" for i in range(50)], [f"t{i}" for i in range(50)]))
    data = DataConfig(vocabulary="words", vocabulary_sentences=12, joint_vocabulary=joint)
    source, target = build_vocabularies(data, train, 3)
    assert len(source.table) == len(target.table) == 12
    assert {word[0] for word in source.table} == ({"s", "t"} if joint else {"s"})
    assert build_vocabularies(data, train, 3) == (source, target)
    assert build_vocabularies(data, train, 4) != (source, target)


def test_only_tokens_of_text_in_memory_are_not_kept_on_disk(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "cache_folder", lambda: tmp_path)
    vocabularies = build_vocabularies(DataConfig(vocabulary="chars"), InMemoryPairs(PAIRS), 0)
    expected = encode_pairs(PAIRS, *vocabularies)
    for in_memory in (True, False):
        arguments = (DataConfig(), InMemoryPairs(PAIRS), "digest", vocabularies, print)
        encoded = encode_training(*arguments, in_memory=in_memory)
        for side, other in zip(encoded, expected, strict=True):
            assert np.array_equal(side.flat, other.flat)
            assert np.array_equal(side.offsets, other.offsets)
        assert (tmp_path / "tokens").exists() == (not in_memory)


def test_pairs_too_long_are_counted_and_not_bucketed() -> None:
    data = DataConfig(vocabulary="chars", max_source_length=12, max_target_length=20)
    vocabularies = build_vocabularies(data, InMemoryPairs(PAIRS), 0)
    lines: list[str] = []
    made, extra = bucket_training(
        RunConfig(data=data), encode_pairs(PAIRS, *vocabularies), None, lines.append
    )
    short = [i for i, text in enumerate(PAIRS.src) if len(text) <= 12]
    assert 0 < len(short) < 300
    assert sorted(chain(*(bucket.members for bucket in made.buckets))) == short
    assert lines == [
        f"{300 - len(short)} of 300 pairs are left out of training: longer than 12 source or 20 "
        "target tokens"
    ]
    assert extra == max(10, *(11 - 2 * (len(PAIRS.src[i]) + 1) for i in short))
    short_only = RunConfig(data=DataConfig(vocabulary="chars", max_target_length=9))
    with pytest.raises(InputError, match="all 300 pairs are longer"):
        bucket_training(short_only, encode_pairs(PAIRS, *vocabularies), None, lines.append)


def test_odd_pairs_do_not_make_every_search_long() -> None:
    """Quantile by counting: at most one pair of a hundred may need more than the limit."""
    rng = np.random.default_rng(0)
    for n, odd in ((100, 0), (100, 1), (1000, 1), (1000, 10), (1000, 11)):
        source = rng.integers(3, 17, n)
        target = 3 * source + 5  # needs S + 5 more than twice its source
        source[:odd], target[:odd] = 2, 250
        needed = sorted(target - 2 * source)
        enough = next(x for x in needed if sum(y > x for y in needed) * 100 < n)
        assert extra_length(source, target) == min(needed[-1], math.ceil(1.5 * enough))
        assert (extra_length(source, target) > 40) == (odd > 0 and odd * 100 >= n)
    assert extra_length(np.array([7, 9]), np.array([8, 10])) == 10


def test_long_sentences_to_validate_on_are_counted_and_kept() -> None:
    config = RunConfig(
        data=DataConfig(vocabulary="chars", max_source_length=5),
        training=TrainingConfig(evaluate_sentences=4),
    )
    vocab, _ = build_vocabularies(config.data, InMemoryPairs(PAIRS), 0)
    lines: list[str] = []
    note_long_sources(config, ["11111", "1", ""], vocab, lines.append)
    assert lines == []
    note_long_sources(config, ["11111", "111111", "", "1111111", "1111111"], vocab, lines.append)
    assert lines == [
        "2 of 4 sentences to validate on are longer than 5 source tokens: they are translated and "
        "scored nevertheless"
    ]


def test_shapes_have_no_room_where_nothing_is_random() -> None:
    data = DataConfig(num_buckets=1)
    vocabularies = build_vocabularies(data, InMemoryPairs(PAIRS), 0)
    examples = encode_pairs(PAIRS, *vocabularies)
    sampling = subword_sampling(data, vocabularies)
    (bucket,) = bucket_training(RunConfig(data=data), examples, sampling, print)[0].buckets
    shape = (bucket.source_length, bucket.target_length)
    assert shape == tuple(int(side.max()) for side in examples.lengths())


@pytest.mark.parametrize(("model", "alpha"), [("unigram", 0.2), ("bpe", 0.2), ("bpe", 0.4)])
def test_shapes_have_room_for_four_of_five_segmentations(model, alpha: float) -> None:
    """With other random numbers than those with which the room was measured."""
    option = "bpe_dropout" if model == "bpe" else "subword_regularization"
    data = DataConfig(
        sentencepiece_model=model, **{option: alpha}, vocabulary_size=250, num_buckets=1
    )
    vocabularies = build_vocabularies(data, InMemoryPairs(PAIRS), 0)
    examples = encode_pairs(PAIRS, *vocabularies)
    sampling = subword_sampling(data, vocabularies)
    (bucket,) = bucket_training(RunConfig(data=data), examples, sampling, print)[0].buckets
    shape = (bucket.source_length, bucket.target_length)
    rng = np.random.default_rng(7)
    for vocab, tokens, room in zip(vocabularies, examples, shape, strict=True):
        growth = room / tokens.lengths().max()
        fit = [
            len(vocab.sample_segmentation(ids[:-1].tolist(), alpha, 999, rng)) + 1
            <= growth * len(ids)
            for ids in (tokens[i] for i in range(len(tokens)))
        ]
        assert 0.7 < np.mean(fit) < 0.95


def test_shapes_of_segmentations_stay_within_the_positions() -> None:
    data = DataConfig(subword_regularization=0.1, vocabulary_size=250, num_buckets=1)
    vocabularies = build_vocabularies(data, InMemoryPairs(PAIRS), 0)
    examples = encode_pairs(PAIRS, *vocabularies)
    positions = max(int(side.max()) for side in examples.lengths()) + 1
    lengths = {"max_source_length": positions - 1, "max_target_length": positions - 1}
    config = RunConfig(
        TransformerConfig(positions="learned", max_positions=positions),
        replace(data, **lengths),
    )
    sampling = subword_sampling(data, vocabularies)
    wide, fitting = (
        bucket_training(one, examples, sampling, print)[0].buckets[0]
        for one in (RunConfig(data=data), config)
    )
    assert max(wide.source_length, wide.target_length) > positions
    assert max(fitting.source_length, fitting.target_length) == positions
