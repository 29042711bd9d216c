"""The script on markup: what it puts into sentences, and how it judges what comes out."""

import random

from encdec.data.markup import remove_markup
from experiments.markup import judged, marked, total, words_of


def test_markup_at_random_is_whole_and_leaves_the_sentence() -> None:
    rng = random.Random(0)
    for _ in range(200):
        source = marked("Two men are cooking in a kitchen.", rng)
        removed = remove_markup(source)
        assert removed.text == "Two men are cooking in a kitchen."
        assert "{p0}" in [piece.text for piece in removed.pieces]
        assert {piece.role for piece in removed.pieces} == {"open", "close", "alone"}


def test_words_between_tags_are_counted_with_marks_apart() -> None:
    words, inside = words_of("<t0>Two <t1>men.</t1></t0> {p0} cook")
    assert words == ["Two", "men", ".", "cook"]
    assert inside == {"t0": range(3), "t1": range(1, 3), "p0": range(3, 3)}


def test_what_comes_out_is_judged() -> None:
    source = "<t0>Two men</t0> are <t1>cooking</t1> {p0}"
    links = [(0, 0), (1, 1), (2, 2), (3, 3)]
    right = judged(source, "<t0>Zwei Männer</t0> sind <t1>kochend</t1> {p0}", links)
    assert vars(right) == {
        **{"whole": 1, "in_order": 1, "sentences": 1, "pairs_in_order": 2, "pairs": 2},
        **{"hits": 3, "found": 3, "wanted": 3},
    }
    wrong = judged(source, "{p0} <t1>Zwei Männer sind</t1> <t0>kochend</t0>", links)
    assert (wrong.whole, wrong.in_order, wrong.pairs_in_order) == (1, 0, 0)
    assert (wrong.hits, wrong.found, wrong.wanted) == (0, 4, 3)
    assert judged(source, "<t0>Zwei Männer sind <t1>kochend</t0></t1> {p0}", links).whole == 0
    assert judged(source, "<t0>Zwei Männer</t0> sind <t1>kochend</t1>", links).whole == 0
    assert total([right, wrong]).found == 7
    assert str(total([right, wrong])).startswith("whole 2 of 2, in order 1 of 2 (2 of 4 pairs")
