"""Metrics by source length, and their figure."""

import itertools
import json

import pytest

from encdec.evaluation.by_length import LengthBucket, metrics_by_length, word_counts
from encdec.evaluation.compute import Metrics, compute_metrics
from encdec.evaluation.tables import lengths_text
from encdec.plots.curves import length_figure
from encdec.types import InputError

HYPOTHESES = ["a b c d e", "a b c d", "x y z w", "", "a b c d e f"]
REFERENCES = ["a b c d e", "a b c e", "x y z v", "none", "a b c d e f"]
LENGTHS = [3, 4, 9, 0, 2]


def by_length(lengths, *more, **how) -> list[LengthBucket]:
    return metrics_by_length(HYPOTHESES, [REFERENCES], lengths, *more, **how)


@pytest.mark.parametrize("names", [("bleu", "exact_match"), None])
def test_each_range_is_evaluated_by_itself(names: tuple[str, ...] | None) -> None:
    found = by_length(LENGTHS, (3, 6, 8), names=names)
    assert [(c.shortest, c.longest) for c in found] == [(0, 3), (4, 6), (9, None)]  # none 7 to 8
    assert [c.label for c in found] == ["0 to 3", "4 to 6", "9 and more"]
    for one, rows in zip(found, ([0, 3, 4], [1], [2]), strict=True):
        hypotheses, references = ([side[i] for i in rows] for side in (HYPOTHESES, REFERENCES))
        expected = compute_metrics(hypotheses, [references], names=names)
        assert one.metrics.values == pytest.approx(expected.values)
        assert one.metrics.sentences == len(rows)
        assert one.mean_length == pytest.approx(sum(LENGTHS[i] for i in rows) / len(rows))
    assert found[0].summary()["from"] == 0
    assert found[2].summary()["to"] is None
    assert [LengthBucket.from_summary(json.loads(json.dumps(c.summary()))) for c in found] == found


def test_the_default_classes() -> None:
    lengths = [1, 10, 11, 60, 61, 200]
    found = metrics_by_length(["a"] * 6, [["a"] * 6], lengths)
    rows = [(c.shortest, c.longest, c.metrics.sentences) for c in found]
    assert rows == [(0, 10, 2), (11, 20, 1), (51, 60, 1), (61, None, 2)]


def test_the_order_of_sentences_changes_nothing() -> None:
    order = [4, 2, 0, 1, 3]
    texts, references, lengths = (
        [side[i] for i in order] for side in (HYPOTHESES, REFERENCES, LENGTHS)
    )
    assert metrics_by_length(texts, [references], lengths, (2, 4)) == by_length(LENGTHS, (2, 4))


def test_words() -> None:
    assert word_counts(["", "  ", "a", " a  b\tc "]) == [0, 0, 1, 3]


@pytest.mark.parametrize("bounds", [(), (3, 2), (2, 2), (0, 2), (-1,)])
def test_bounds_must_rise(bounds: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"bounds = .* rising order"):
        by_length(LENGTHS, bounds)


def test_a_length_for_each_sentence() -> None:
    with pytest.raises(InputError, match="5 translations but 1 source lengths"):
        by_length([1])


def test_the_table_is_aligned() -> None:
    lines = lengths_text(by_length(LENGTHS, (3, 6))).splitlines()
    assert lines[0].split("  ")[1:3] == ["source words", "sentences"]
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split()[:5] == ["4", "to", "6", "1", "4.0"]


# --- figure --------------------------------------------------------------------------------------


def classes(*bleu: float) -> list[LengthBucket]:
    return [
        LengthBucket(10 * i, None, 10 * i + 4.5, Metrics(1, {"bleu": b}))
        for i, b in enumerate(bleu)
    ]


NAMES = ["seq2seq", "_attention", "$x$ 注意", "runs/" * 30, *"abcde"]


def test_a_line_a_system() -> None:
    figure = length_figure({name: classes(30, 20 - i) for i, name in enumerate(NAMES)})
    (axes,) = figure.axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("source length, words", "BLEU")
    lines = axes.get_lines()
    for i, line in enumerate(lines):
        assert line.get_xydata().tolist() == [[4.5, 30], [14.5, 20 - i]]
    looks = [(line.get_linestyle(), line.get_marker()) for line in lines[:8]]
    assert len(set(looks)) == 8  # told apart without colour
    assert [text.get_text() for text in figure.legends[0].get_texts()] == NAMES


def test_every_label_is_inside_and_none_over_another() -> None:
    figure = length_figure({name: classes(35, 20.5 - i, 12) for i, name in enumerate(NAMES)})
    figure.canvas.draw()
    (axes,) = figure.axes
    texts = [axes.xaxis.label, axes.yaxis.label, *figure.legends[0].get_texts()]
    for axis in (axes.xaxis, axes.yaxis):
        low, high = axis.get_view_interval()
        texts += [t.label1 for t in axis.get_major_ticks() if low <= t.get_loc() <= high]
    boxes = [text.get_window_extent() for text in texts]
    for text, box in zip(texts, boxes, strict=True):
        assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text
        assert figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1, text
    for one, other in itertools.combinations(boxes, 2):
        assert not one.padded(-0.5).overlaps(other.padded(-0.5))


def test_what_cannot_be_drawn() -> None:
    for nothing in ({}, {"a": []}):
        with pytest.raises(InputError, match="no metrics by length"):
            length_figure(nothing)
    with pytest.raises(InputError, match="other has no BLEU"):
        length_figure({"one": classes(1.0), "other": [LengthBucket(0, None, 3.0, Metrics(1, {}))]})
