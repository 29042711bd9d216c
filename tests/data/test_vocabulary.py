import itertools
import json
import random
import re
from collections import Counter

import numpy as np
import pytest
import sentencepiece
from sentencepiece.sentencepiece_pb2 import NBestSentencePieceText

from encdec.data import (
    bpe_dropout,
    vocabulary,
)
from encdec.data import (
    sentencepiece_model as pieces,
)
from encdec.data.dates import dates
from encdec.data.simple_vocabularies import TableVocabulary
from encdec.types import InputError, SpecialIds

PAD, BOS, EOS, UNK = SpecialIds()

KINDS = ("chars", "words", "bytes", "sentencepiece")
TEXTS = [
    "a red car drives past the old red house",
    "ein rotes Auto fährt am alten Haus vorbei",
    "четверг, 3 мая",
    "गुरुवार, ३ मई और الخميس",
    "木曜日 は 3 日",
    "tab\tseparated ▁ and 😀 emoji 👩‍👩‍👧",
]
HARD = [
    "",
    " ",
    "a\0b",
    "▅ x",
    "▁▁",
    "</s> <pad>",
    "x\u2028y\x85z",
    "lone \ud800 half",
    "ﬁ Å e\u0301",
]


def of_kind(kind: str) -> vocabulary.Vocabulary:
    return vocabulary.build(kind, TEXTS, 70 if kind == "sentencepiece" else None)


@pytest.mark.parametrize("kind", ["chars", "bytes"])
@pytest.mark.parametrize("text", [*TEXTS, " red  car ", "\ta\r"])
def test_characters_and_bytes_come_back_exactly(kind: str, text: str) -> None:
    built = vocabulary.build(kind, [*TEXTS, "\r"], None)
    assert built.decode(built.encode(text)) == text


@pytest.mark.parametrize("kind", ["words", "sentencepiece"])
def test_words_and_pieces_come_back_but_for_white_space(kind: str) -> None:
    built = of_kind(kind)
    for text in TEXTS[:5]:
        assert built.decode(built.encode(f"  {text} ")) == text
    with_forms = vocabulary.build(
        kind, [*TEXTS, "ﬁ e\u0301"], 73 if kind == "sentencepiece" else None
    )
    assert with_forms.decode(with_forms.encode("ﬁ e\u0301")) == "ﬁ e\u0301"  # not normalised


@pytest.mark.parametrize("kind", KINDS)
def test_any_text_has_ids_and_special_ids_leave_no_trace(kind: str) -> None:
    built = of_kind(kind)
    for text in [*HARD, *TEXTS]:
        ids = built.encode(text)
        assert all(UNK <= i < built.size for i in ids)
        assert len(built.tokens(ids)) == len(ids)
        assert built.decode([BOS, *ids, EOS, PAD, PAD]) == built.decode(ids)


def test_byte_b_has_the_id_4_plus_b() -> None:
    text = "".join(TEXTS)
    assert of_kind("bytes").encode(text) == [4 + b for b in text.encode()]
    assert of_kind("bytes").size == 260


@pytest.mark.parametrize(("kind", "split"), [("chars", list), ("words", str.split)])
def test_a_table_holds_the_most_frequent_in_any_order_of_texts(kind: str, split) -> None:
    counts = Counter(token for text in TEXTS for token in split(text))
    expected = [t for t, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]
    for texts in (TEXTS, TEXTS[::-1]):
        built = vocabulary.build(kind, iter(texts), 4 + 7)
        assert built.encode((" " if kind == "words" else "").join(expected[:7])) == [*range(4, 11)]
        assert built.encode(expected[7]) == [UNK]
        assert built.size == 11


@pytest.mark.parametrize("kind", ["chars", "words", "sentencepiece"])
def test_a_size_too_large_is_refused_with_the_largest_that_works(kind: str) -> None:
    with pytest.raises(InputError, match="vocabulary_size = 5000 is too large") as caught:
        vocabulary.build(kind, TEXTS, 5000)
    most = int(re.search(r"at most (\d+)", str(caught.value))[1])
    assert vocabulary.build(kind, TEXTS, most).size == most
    with pytest.raises(InputError, match=f"at most {most}"):
        vocabulary.build(kind, TEXTS, most + 1)


def test_sentencepiece_needs_room_for_each_character() -> None:
    chinese = ["".join(map(chr, range(0x4E00, 0x4E00 + 300)))]
    with pytest.raises(InputError, match="vocabulary_size = 50 is too small") as caught:
        vocabulary.build("sentencepiece", chinese, 50)
    least = int(re.search(r"at least (\d+)", str(caught.value))[1])
    assert least >= 4 + 300
    assert UNK not in vocabulary.build("sentencepiece", chinese, least).encode(chinese[0])


@pytest.mark.parametrize("kind", ["chars", "words", "sentencepiece"])
def test_no_text_is_refused(kind: str) -> None:
    with pytest.raises(InputError, match="there is no text"):
        vocabulary.build(kind, [""], 50)


def test_sentencepiece_has_our_special_ids_is_the_same_each_time_and_is_quiet(capfd) -> None:
    first, second = of_kind("sentencepiece"), of_kind("sentencepiece")
    assert first == second
    assert capfd.readouterr() == ("", "")
    model = sentencepiece.SentencePieceProcessor(model_proto=first.proto)
    ids = model.pad_id(), model.bos_id(), model.eos_id(), model.unk_id()
    assert ids == (PAD, BOS, EOS, UNK)
    assert first.encode(TEXTS[1]) == model.encode(TEXTS[1])


def test_labels_for_plots() -> None:
    chars = vocabulary.build("chars", ["ab ba"], None)
    assert chars.tokens([*chars.encode("a b?"), EOS]) == ["a", "▁", "b", "⁇", "</s>"]
    assert of_kind("bytes").tokens([4 + 0xC3, 4 + ord(" "), 4 + ord("x"), EOS, PAD]) == [
        *("xC3", "▁", "x", "</s>", "<pad>")
    ]
    built = of_kind("sentencepiece")
    labels = built.tokens(built.encode("old house"))
    assert "".join(labels) == "▁old▁house"
    assert chars.decode(chars.encode("a?b")) == "a⁇b"


@pytest.mark.parametrize("kind", KINDS)
def test_many_texts_are_encoded_as_each_alone(kind: str) -> None:
    built = of_kind(kind)
    assert built.encode_all([*HARD, *TEXTS]) == [built.encode(text) for text in [*HARD, *TEXTS]]


def test_text_too_long_for_memory_is_thinned_evenly() -> None:
    texts = [str(i) * 3 for i in range(1000)]
    for most in (10**6, 5000, 999, 100, 1):
        steps = [2**k for k in range(11)]
        expected = next(
            t for t in (texts[::s] for s in steps) if len("".join(t)) <= most or len(t) == 1
        )
        assert pieces._thinned(iter(texts), most) == expected


def unigram() -> vocabulary.Vocabulary:
    return vocabulary.build("sentencepiece", dates(300, 0).train.src, 400)


def test_segmentations_are_sentencepieces_own_with_its_probabilities() -> None:
    built = unigram()
    model = sentencepiece.SentencePieceProcessor(model_proto=built.proto)
    for text in ("Donnerstag, 4. November 2021", "3 May 1979"):
        found, log_probs = built.segmentations(built.encode(text))
        raw = model.nbest_encode(text, nbest_size=64, out_type="serialized_proto")
        own = NBestSentencePieceText.FromString(raw).nbests
        assert [[piece.id for piece in one.pieces] for one in own] == found
        assert log_probs == pytest.approx([one.score for one in own], rel=1e-5)
        assert len({tuple(cut) for cut in found}) == len(found) > 10
        assert found[0] == built.encode(text)
        assert {built.decode(cut) for cut in found} == {text}


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_a_segmentation_is_drawn_as_often_as_the_formula_says(alpha: float) -> None:
    """Kudo 2018, section 3.3: P(x)^alpha over the sum of it; a chi-squared statistic."""
    built, rng, n = unigram(), np.random.default_rng(0), 3000
    ids = built.encode("3 May 1979")
    cuts, log_probs = built.segmentations(ids)
    short = [(tuple(c), np.exp(p)) for c, p in zip(cuts, log_probs, strict=True) if len(c) <= 7]
    assert 5 < len(short) < len(cuts)
    drawn = Counter(tuple(built.sample_segmentation(ids, alpha, 7, rng)) for _ in range(n))
    assert set(drawn) <= {cut for cut, _ in short}
    total = sum(p**alpha for _, p in short)
    expected = {cut: n * p**alpha / total for cut, p in short}
    statistic = sum((drawn[cut] - e) ** 2 / e for cut, e in expected.items())
    assert statistic < len(short) + 5 * (2 * len(short)) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_other_segmentation_keeps_its_own(kind: str) -> None:
    """Tokens that are no pieces, text with something unknown, nothing at all."""
    built, rng = of_kind(kind), np.random.default_rng(0)
    for text in ["", *([] if kind == "sentencepiece" else TEXTS), "a \u2603 red ⁇ car"]:
        ids = built.encode(text)
        assert built.sample_segmentation(ids, 0.1, len(ids), rng) == ids
    pairs = vocabulary.build("sentencepiece", TEXTS, 120, "bpe")
    for text in ("", "a \u2603 red ⁇ car"):
        ids = pairs.encode(text)
        assert pairs.sample_segmentation(ids, 0.5, 99, rng) == ids


def test_byte_pairs_without_dropout_are_sentencepieces_own() -> None:
    known, rng = [*TEXTS, *HARD, *dates(300, 0).train.src], np.random.default_rng(0)
    for size in (None, 250):
        built = vocabulary.build("sentencepiece", known, size, "bpe")
        for text in [*known, "a red red car , vorbei"]:
            ids = built.encode(text)
            assert built.sample_segmentation(ids, 0.0, len(ids), rng) == ids


def plain_bpe(word: str, ranks: dict[str, int], dropout: float, uniforms) -> list[str]:
    """Algorithm 1 of Provilkov 2020 as it is written: every step looks at every pair."""
    parts = list(word)
    while True:
        pairs = sorted(
            (ranks[a + b], i)
            for i, (a, b) in enumerate(itertools.pairwise(parts))
            if a + b in ranks
        )
        kept = next((i for _, i in pairs if next(uniforms) >= dropout), None)
        if kept is None:
            return parts
        parts[kept : kept + 2] = [parts[kept] + parts[kept + 1]]


@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_byte_pairs_with_a_heap_are_those_of_the_plain_algorithm(dropout: float) -> None:
    rng = random.Random(1)
    for number in range(60):
        letters = "ab" if number % 2 else "abc"
        merges = {*letters}
        while len(merges) < 16:
            merges.add(rng.choice(sorted(merges)) + rng.choice(sorted(merges)))
        made = sorted(merge for merge in merges if len(merge) > 1)
        ranks = {merge: rank for rank, merge in enumerate(rng.sample(made, len(made)))}
        word = "".join(rng.choices(letters, k=rng.randrange(40)))
        draws = [bpe_dropout.uniform(np.random.default_rng(number)) for _ in range(2)]
        found = bpe_dropout.segment(word, ranks, dropout, draws[0])
        assert found == plain_bpe(word, ranks, dropout, draws[1])
        assert next(draws[0]) == next(draws[1])  # as many were taken


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_long_word_takes_looks_in_proportion_to_its_length(dropout: float) -> None:
    class Counted(dict):
        looks = 0

        def get(self, key, default=None):
            self.looks += 1
            return super().get(key, default)

    looks = []
    for n in (1000, 8000):
        ranks = Counted({"a" * k: k for k in range(2, 17)})
        uniforms = bpe_dropout.uniform(np.random.default_rng(0))
        parts = bpe_dropout.segment("a" * n, ranks, dropout, uniforms)
        assert "".join(parts) == "a" * n
        looks.append(ranks.looks / n)
    assert looks[1] < 1.2 * looks[0] < 20


@pytest.mark.parametrize("model", ["unigram", "bpe"])
def test_a_word_of_any_length_can_be_trained_on(model: str) -> None:
    rng = random.Random(0)
    word = "".join(rng.choices("abcdefgh", k=100_000))
    built = vocabulary.build("sentencepiece", [word, "ab cd", f"x {word[:20_000]} y"], 300, model)
    assert built.decode(built.encode(word)) == word
    short = pieces._with_short_words(f"x {word[:20_001]} {word[:10_000]}")
    assert [len(part) for part in short.split(" ")] == [1, 10_000, 10_000, 1, 10_000]


def test_byte_pairs_are_left_out_as_often_as_the_algorithm_says() -> None:
    """Provilkov 2020, algorithm 1, by hand for three letters; a chi-squared statistic."""
    p, n, chances = 0.3, 4000, bpe_dropout.uniform(np.random.default_rng(0))
    q = 1 - p
    ranks = {"ab": 0, "bc": 1, "abc": 2}
    expected = {
        ("abc",): (q + p * q) * q,
        ("ab", "c"): q * p,
        ("a", "bc"): p * q * p,
        ("a", "b", "c"): p * p,
    }
    drawn = Counter(tuple(bpe_dropout.segment("abc", ranks, p, chances)) for _ in range(n))
    assert set(drawn) == set(expected)
    statistic = sum((drawn[cut] - n * e) ** 2 / (n * e) for cut, e in expected.items())
    assert statistic < 16  # three degrees of freedom: passed by chance once in a thousand seeds


def test_byte_pairs_with_dropout_are_the_same_text_and_fit() -> None:
    built = vocabulary.build("sentencepiece", dates(300, 0).train.src, 400, "bpe")
    rng = np.random.default_rng(0)
    for text in ("Donnerstag, 4. November 2021", "3 May 1979"):
        ids = built.encode(text)
        for longest in (len(ids) + 4, 99):
            cuts = [built.sample_segmentation(ids, 0.2, longest, rng) for _ in range(50)]
            assert {built.decode(cut) for cut in cuts} == {text}
            assert max(map(len, cuts)) <= longest
            assert len(set(map(tuple, cuts))) > 10
        assert built.sample_segmentation(ids, 0.99, len(ids), rng) == ids


def test_vocabularies_that_differ_have_digests_that_differ() -> None:
    every = [of_kind(kind) for kind in KINDS] + [vocabulary.build("chars", TEXTS, 20), unigram()]
    every.append(TableVocabulary("words", every[0].table))
    assert len({vocabulary.digest(one) for one in every}) == len(every)
    assert vocabulary.digest(of_kind("sentencepiece")) == vocabulary.digest(every[3])


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_vocabulary_is_the_same_when_loaded(kind: str, tmp_path) -> None:
    built = of_kind(kind)
    vocabulary.save(built, tmp_path / "v.json")
    loaded = vocabulary.load(tmp_path / "v.json", vocabulary.digest(built))
    assert loaded == built
    assert [loaded.encode(t) for t in TEXTS] == [built.encode(t) for t in TEXTS]


@pytest.mark.parametrize("kind", ["chars", "words"])
def test_ids_follow_from_the_file_as_it_is_described(kind: str, tmp_path) -> None:
    vocabulary.save(of_kind(kind), tmp_path / "v.json")
    table = json.loads((tmp_path / "v.json").read_text())["table"]
    for text in TEXTS:
        words = text.split() if kind == "words" else text
        assert of_kind(kind).encode(text) == [4 + table.index(word) for word in words]


def test_files_that_are_no_vocabulary_are_named(tmp_path) -> None:
    path = tmp_path / "v.json"
    with pytest.raises(InputError, match=r"v\.json cannot be read: No such file"):
        vocabulary.load(path)
    for content in (b"", b"\xff\x00", b"{}", b"[1]", b'{"format": "other"}'):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"v\.json is not a vocabulary"):
            vocabulary.load(path)
    for kind, field, value in [
        ("chars", "table", ["a", "a"]),
        ("words", "kind", "syllables"),
        ("words", "table", None),
        ("sentencepiece", "model", "AAAA"),
        ("sentencepiece", "model", "not base64!"),
    ]:
        vocabulary.save(of_kind(kind), path)
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
        with pytest.raises(InputError, match=r"v\.json is a damaged vocabulary"):
            vocabulary.load(path)
