"""Corpus statistics and the holdout, against plain loops over pairs in memory."""

import random
import re
import tracemalloc
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np
import pytest

from encdec.data.holdout import (
    SelectedPairs,
    corpus_statistics,
    describe_blank_pairs,
    digest,
    holdout_mask,
)
from encdec.data.sources import Pair, Pairs, ParallelFiles, read_all
from encdec.types import InputError


@dataclass
class Memory:
    """A reader of pairs in memory."""

    pairs: list[Pair]
    name: str = "memory"
    unit: str = "line"

    def __iter__(self):
        return iter(self.pairs)


def repeated(n: int) -> list[Pair]:
    """n pairs; many source texts occur several times, and some pairs have an empty side."""
    src = [f"s{i // 3 if i % 3 == 0 else i + n}" for i in range(n)]
    src = [f"s{i % 7}" if i % 11 == 0 else text for i, text in enumerate(src)]
    return [("" if i % 50 == 7 else s, " " if i % 60 == 9 else f"t{i}") for i, s in enumerate(src)]


def split(pairs: list[Pair], count: int | float, seed: int) -> tuple[Pairs, Pairs]:
    """The training and the held-out pairs, from a corpus in two parts."""
    readers = (Memory(pairs[:100]), Memory(pairs[100:]))
    statistics = corpus_statistics(readers, seed)
    held_out = holdout_mask(statistics, count)
    train = SelectedPairs(readers, statistics.nonblank & ~held_out)
    return read_all(train), read_all(SelectedPairs(readers, held_out))


@pytest.mark.parametrize(
    ("count", "expected"), [(13, 13), (1000, 40), (0.05, 20), (0.5, 40), (1, 1)]
)
def test_held_out_sources_are_never_trained_on(count: int | float, expected: int) -> None:
    pairs = repeated(423)
    nonblank = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
    assert 400 <= len(nonblank) < 410
    train, held = split(pairs, count, seed=5)
    assert not set(train.src) & set(held.src)
    assert len(held.src) == expected
    assert Counter(zip(*train, strict=True)) + Counter(zip(*held, strict=True)) == Counter(nonblank)
    in_order = [pair for pair in nonblank if pair[0] not in held.src]
    assert list(zip(*train, strict=True)) == in_order
    assert split(pairs, count, seed=5) == (train, held)
    assert split(pairs, count, seed=6) != (train, held)


def test_the_holdout_depends_only_on_the_sources() -> None:
    """With another order and other translations the same sources are held out."""
    pairs = [(f"s{i}", f"t{i}") for i in range(200)]
    shuffled = [(s, t[::-1]) for s, t in random.Random(0).sample(pairs, 200)]
    assert set(split(pairs, 17, 3)[1].src) == set(split(shuffled, 17, 3)[1].src)


def test_every_source_is_as_likely_to_be_held_out() -> None:
    pairs = [(f"s{i}", "t") for i in range(120)]
    times = Counter(s for seed in range(300) for s in split(pairs, 12, seed)[1].src)
    expected = 300 * 12 / 120  # binomial: 30, standard deviation 5.2
    assert sum(times.values()) == 3600
    assert len(times) == 120
    assert max(abs(times[f"s{i}"] - expected) for i in range(120)) < 5 * 5.2


def test_a_source_too_frequent_to_hold_out_stays() -> None:
    pairs = [("same" if i < 37 else "abc"[i - 37], f"t{i}") for i in range(40)]
    train, held = split(pairs, 4, seed=0)
    assert sorted(held.src) == ["a", "b", "c"]
    assert train.src == ["same"] * 37
    for few in ([("same", f"t{i}") for i in range(40)], [("a", "b")] * 9):
        with pytest.raises(InputError, match="too few to hold any out: give validation files"):
            split(few, 4, seed=0)


def test_blank_pairs_are_named(tmp_path) -> None:
    pairs = [("a", "b") if i % 10 else ("", "b") for i in range(65)]
    note = "7 pairs with an empty side are left out of training (lines 1, 11, 21, 31, 41, ...)"
    statistics = corpus_statistics([Memory(pairs)], 0)
    assert describe_blank_pairs(statistics) == note
    assert len(read_all(SelectedPairs((Memory(pairs),), statistics.nonblank)).src) == 58
    second = [Memory([("a", "b"), (" \u3000", "b")])]
    assert describe_blank_pairs(corpus_statistics(second, 0)) == (
        "1 pair with an empty side is left out of training (line 2)"
    )
    two = [Memory([("a", "b"), ("a", " ")], "one"), Memory([("", ""), ("", "b")], "two")]
    places = "training (one, line 2; two, lines 1, 2)"
    assert places in describe_blank_pairs(corpus_statistics(two, 0))
    assert describe_blank_pairs(corpus_statistics([Memory([("a", "b")])], 0)) is None
    with pytest.raises(InputError, match="memory: no pair of the corpus has text on both sides"):
        corpus_statistics([Memory([("a", ""), ("", "b")])], 0)


def test_no_two_corpora_share_a_digest() -> None:
    corpora = [
        [("ab", "d"), ("c", "e")],
        [("a", "d"), ("bc", "e")],
        [("ab", "dc"), ("", "e")],
        [("abd", ""), ("c", "e")],
        [("c", "e"), ("ab", "d")],
        [("d", "ab"), ("e", "c")],
        [("ab", "d"), ("c", "e"), ("", "")],
        [("ab", "d")],
        [("ab\nc", "d\ne")],
        [],
        [("", "")],
        [("\ud800", "")],
    ]
    assert len({digest(corpus) for corpus in corpora}) == len(corpora)
    statistics = corpus_statistics([Memory(corpora[0])], 9)
    assert digest(corpora[0]) == digest(iter(corpora[0])) == statistics.digest
    halves = [Memory(corpora[0][:1]), Memory(corpora[0][1:])]
    assert corpus_statistics(halves, 0).digest == digest(corpora[0])  # the text, not its files
    assert re.fullmatch("[0-9a-f]{64}", digest(corpora[0]))


def test_a_corpus_that_changes_while_it_is_read_is_refused(tmp_path) -> None:
    source, target = tmp_path / "s", tmp_path / "t"
    for longer in (False, True):
        source.write_text("a\nb\nc\n")
        target.write_text("A\nB\nC\n")
        readers = (ParallelFiles(source, target),)
        stream = SelectedPairs(readers, corpus_statistics(readers, 0).nonblank)
        assert len(stream) == len(list(stream)) == 3
        for path in (source, target):
            path.write_text("a\nb\nc\nd\n" if longer else "a\nb\n")
        with pytest.raises(InputError, match=f"{source}: the corpus has changed"):
            list(stream)


def test_memory_stays_small() -> None:
    """No text is kept: 17 bytes a pair, and what Python takes for the loop itself."""
    n = 100_000

    class Long:
        name, unit = "long", "line"

        def __iter__(self):
            return (
                (f"a source text of some length, number {i}", "its translation") for i in range(n)
            )

    tracemalloc.start()
    held_out = holdout_mask(corpus_statistics([Long()], 0), 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held_out.sum() == 1000
    assert peak < 24 * n + 1_500_000


def test_the_holdout_is_that_of_a_plain_loop() -> None:
    pairs = repeated(423)
    statistics = corpus_statistics([Memory(pairs)], 8)
    groups = defaultdict(list)
    for row, hashed in enumerate(statistics.source_hashes.tolist()):
        if statistics.nonblank[row]:
            groups[hashed].append(row)
    chosen: list[int] = []
    for hashed in sorted(groups):
        if len(chosen) + len(groups[hashed]) <= 25:
            chosen += groups[hashed]
    assert np.flatnonzero(holdout_mask(statistics, 25)).tolist() == sorted(chosen)
