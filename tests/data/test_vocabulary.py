import json
import re
from collections import Counter

import pytest
import sentencepiece

from encdec.data import vocabulary
from encdec.types import BOS, EOS, PAD, UNK, InputError

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
    pieces = of_kind("sentencepiece")
    labels = pieces.tokens(pieces.encode("old house"))
    assert "".join(labels) == "▁old▁house"
    assert chars.decode(chars.encode("a?b")) == "a⁇b"


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_vocabulary_is_the_same_when_loaded(kind: str, tmp_path) -> None:
    built = of_kind(kind)
    vocabulary.save(built, tmp_path / "v.json")
    loaded = vocabulary.load(tmp_path / "v.json")
    assert loaded == built
    assert [loaded.encode(t) for t in TEXTS] == [built.encode(t) for t in TEXTS]


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
