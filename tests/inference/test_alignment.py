"""Word alignments: against a plain loop, by hand, and of whole translations."""

import math

import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, Seq2SeqConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.inference.alignment import align_translation, align_words, chosen_maps, pharaoh
from encdec.types import InputError
from tests.small_run import small_run


def by_loop(
    attention: np.ndarray, src_words: list[int], tgt_words: list[int], tension: float
) -> list:
    sums = [sum(row[s] for row in attention) for s in range(len(src_words))]
    links = []
    for j in sorted({*tgt_words} - {-1}):
        mass: dict[int, float] = {}
        rows = [t for t, word in enumerate(tgt_words) if word == j]
        for s, i in enumerate(src_words):
            if i >= 0:
                mass[i] = mass.get(i, 0) + sum(attention[t, s] / (0.1 + sums[s]) for t in rows)
        for i in mass:
            gap = (i + 0.5) / (max(src_words) + 1) - (j + 0.5) / (max(tgt_words) + 1)
            mass[i] *= math.exp(-tension * abs(gap))
        if mass:
            links.append((max(mass, key=lambda i: mass[i]), j))
    return links


def test_a_word_is_linked_to_the_word_with_the_most_attention() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        attention = rng.dirichlet(np.ones(7), 5)
        src_words = [0, 0, 1, -1, 2, 2, -1]
        tgt_words = [[0, 0, -1, 1, -1], [0, 1, 1, 2, 3]][rng.integers(2)]
        for tension in (0.0, 3.0):
            given = (attention, src_words, tgt_words, tension)
            assert align_words(*given) == by_loop(*given)


def test_pieces_add_up_and_the_end_token_has_no_word() -> None:
    """Two pieces of 0.3 outweigh one of 0.35; the end token's attention and mass do not count."""
    attention = np.array([[0.3, 0.3, 0.35, 0.05], [0.0, 0.0, 0.1, 0.9], [0.2, 0.2, 0.0, 0.6]])
    links = align_words(attention, [0, 0, 1, -1], [0, 1, -1])
    assert align_words(np.array([[0.2, 0.7, 0.1]]), [0, 1, 2], [0]) == [(1, 0)]  # one token only
    assert links == [(0, 0), (1, 1)]
    assert pharaoh(links) == "0-0 1-1"
    assert align_words(attention, [-1] * 4, [0, 1, -1]) == []
    assert pharaoh([]) == ""


def test_maps_are_chosen_by_layer_and_head() -> None:
    model = TransformerConfig(layers=3, heads=2, width=8)
    assert chosen_maps(model, None, None) == [2, 3, 4, 5]
    assert chosen_maps(TransformerConfig(layers=1, heads=2, width=8), None, None) == [0, 1]
    assert chosen_maps(model, 3, None) == [4, 5]
    assert chosen_maps(model, 1, 2) == [1]
    assert chosen_maps(AttentionConfig(), None, None) == [0]
    for layer, head, error in (
        (4, None, "layer = 4 .* 1 to 3"),
        (1, 0, "head = 0 .* 1 to 2"),
        (None, 1, "without layer"),
    ):
        with pytest.raises(InputError, match=error):
            chosen_maps(model, layer, head)
    with pytest.raises(InputError, match="no attention"):
        chosen_maps(Seq2SeqConfig(), None, None)


def test_words_of_a_translation(tmp_path) -> None:
    """Characters: a target word is linked to the date's part that its characters looked at."""
    run = small_run(tmp_path / "run", ending=-9.0)
    translator, text = encdec.load(run.path), " 3. Mai  1979"
    found = translator(text, SearchOptions(beam=2, max_ratio=0, max_extra=6))
    assert found.attention is not None
    source = [-1, 0, 0, -1, 1, 1, 1, -1, -1, 2, 2, 2, 2, -1]
    assert [token == "▁" or token == "</s>" for token in found.src_tokens] == [
        word < 0 for word in source
    ]
    target = [0] * 6
    assert " " not in found.text
    for layer in (1, 2):
        mean = found.attention[2 * layer - 2 : 2 * layer].mean(0)
        expected = by_loop(mean, source, target, 0.0)
        assert align_translation(run, found, text, layer) == expected
    assert align_translation(run, translator(" "), " ") == []
