"""Lexical tables: how they are read, and how they are learnt from parallel text."""

from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from encdec.data.lexicon import learn_lexicon
from encdec.data.shortlist import Shortlist, read_shortlist, table_lines
from encdec.data.simple_vocabularies import TableVocabulary
from encdec.types import InputError

SRC = TableVocabulary("words", ("dog", "cat", "Bob", "the"))
TGT = TableVocabulary("words", ("Hund", "Katze", "Bob", "der", "die", "."))
LINES = """Hund dog 0.5
die dog 0.1
der dog 0.3
Katze\tcat\t0.9

. NULL 0.2
der NULL 0.7
Maus mouse 1
"""


def read(folder: Path, text: str, best: int = 9) -> Shortlist:
    (folder / "table").write_text(text)
    return read_shortlist(folder / "table", SRC, TGT, best)


def tokens(shortlist: Shortlist, text: str, *more: int) -> set[str]:
    """The words that are proposed for a text, special ones aside."""
    row = shortlist.batch([np.array(SRC.encode(text))], [np.array([-1, *more])], 1)[0]
    assert row[:4].tolist() == [0, 1, 2, 3]
    ids = row[4:][row[4:] >= 0]
    assert (np.diff(ids) > 0).all()
    return {*TGT.tokens(ids)}


def test_a_sentence_has_what_its_tokens_propose(tmp_path: Path) -> None:
    shortlist = read(tmp_path, LINES)
    assert tokens(shortlist, "dog") == {"Hund", "die", "der", "."}
    assert tokens(shortlist, "cat cat") == {"Katze", "der", "."}
    assert tokens(shortlist, "Bob mouse") == {"Bob", "der", "."}
    assert tokens(shortlist, "the", 4) == {"Hund", "der", "."}
    best = read(tmp_path, LINES, best=1)
    assert tokens(best, "dog") == {"Hund", "der", "."}
    table = shortlist.batch([np.array([4])], [np.array([-1])], 3)
    assert table.shape == (3, TGT.size)
    assert (table[1:, 4:] == -1).all()


def test_few_sizes() -> None:
    special, nothing = np.arange(4, dtype=np.int32), np.zeros(0, np.int32)
    shortlist = Shortlist(special, nothing, np.zeros(9, np.int64), 1000, 50)
    source, sizes = [np.zeros(1, int)], {}
    for count in (1, 60, 61, 92, 93, 124, 125, 188, 700, 996):
        sizes[count] = shortlist.batch(source, [np.arange(4, 4 + count)], 1).shape[1]
    assert [*sizes.values()] == [64, 64, 96, 96, 128, 128, 192, 192, 768, 1000]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Hund dog 0.5\nHund dog\n", ["line 2", "'Hund dog'", "probability"]),
        ("Hund dog nan\n", ["line 1", "probability"]),
        ("Hund dog -1\n", ["line 1"]),
        ("Hund dog 1\nMaus dog 1\n", ["1 of 2 lines", "such as Maus dog", "encdec shortlist"]),
        ("\n\n", ["0 of 0 lines"]),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, text: str, parts) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert "\n" not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_no_proposals_at_all_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shortlist_best = 0"):
        read(tmp_path, LINES, best=0)


def model_1(pairs: list[tuple[list[int], list[int]]], none: int) -> dict[tuple[int, int], float]:
    """IBM model 1 as Brown 1993 tells it, with dictionaries."""
    p: dict[tuple[int, int], float] = defaultdict(lambda: 1.0)
    for _ in range(5):
        counts: dict[tuple[int, int], float] = defaultdict(float)
        for source, target in pairs:
            words = {*source, none}
            for t in target:
                total = sum(p[s, t] for s in words)
                for s in words:
                    counts[s, t] += p[s, t] / total
        totals: dict[int, float] = defaultdict(float)
        for (s, _), count in counts.items():
            totals[s] += count
        p = {(s, t): count / totals[s] for (s, t), count in counts.items()}
    return p


def test_a_lexicon_is_model_1() -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 7, (5000, 2))  # more than a chunk
    arrays = [(rng.integers(0, 11, s), rng.integers(0, 13, t)) for s, t in sizes]
    ours = learn_lexicon(iter(arrays), 11, 13)
    expected = model_1([(s.tolist(), t.tolist()) for s, t in arrays], 11)
    keys = zip(ours.source.tolist(), ours.target.tolist(), strict=True)
    found = dict(zip(keys, ours.probability, strict=True))
    assert found.keys() == expected.keys()
    for key, p in found.items():
        assert p == pytest.approx(expected[key], rel=1e-9)
    flat = np.concatenate([t for _, t in arrays])
    np.testing.assert_array_equal(ours.counts, np.bincount(flat, minlength=13))
    assert ours.sentences == 5000
    assert learn_lexicon(iter(arrays), 11, 13, most_cells=1).sentences == 4096


def test_what_is_learnt_is_written_and_read(tmp_path: Path) -> None:
    text = [("the dog", "der Hund ."), ("the cat", "die Katze ."), ("dog", "Hund .")] * 3
    pairs = [(np.array(SRC.encode(s)), np.array(TGT.encode(t))) for s, t in text]
    lexicon = learn_lexicon(pairs, SRC.size, TGT.size)
    lines = [*table_lines(lexicon, SRC, TGT, best=2)]
    by_source: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        target, source, probability = line.split()
        assert 0 < float(probability) <= 1
        by_source[source].append(target)
    assert by_source.pop("NULL") == [".", "Hund", "Katze", "der", "die"]  # the most frequent first
    assert max(map(len, by_source.values())) == 2
    assert by_source["dog"][0] == "Hund"
    shortlist = read(tmp_path, "".join(lines))
    assert "Hund" in tokens(shortlist, "dog")
    assert "Katze" in tokens(shortlist, "cat")
