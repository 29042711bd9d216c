"""Any text goes through vocabularies and preprocessing, and comes back where that is promised."""

import unicodedata
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from encdec.data.simple_vocabularies import ByteVocabulary, IdVocabulary, TableVocabulary
from encdec.data.text import PreprocessedVocabulary, Preprocessing
from tests.fuzzing import refusal

LINES = st.text(st.characters(exclude_characters="\n"), max_size=30)
"""Any line of a file, and half of a surrogate pair, which only Python can pass."""
LETTERS = st.text(
    st.sampled_from("aIiİıJjǰΣσςẞßKÅÅåﬁ½가각ᄀ\u0300\u0307\u030c\u0323\u200d .,'&|\t\x85")
)
"""Lines of characters that normalization, case or Moses change."""
ANY = st.one_of(LINES, LETTERS)
WAYS = st.builds(
    Preprocessing,
    st.sampled_from(["none", "nfkc", "nfd"]),
    st.sampled_from(["none", "moses"]),
    st.booleans(),
    st.sampled_from(["en", "fr", "tr", "zh", "xx"]),
)


def vocabularies(text: str) -> list[Any]:
    """One of each simple kind, made of a text."""
    characters, words = sorted({*text}), sorted({*text.split()})
    return [
        TableVocabulary("chars", tuple(characters)),
        TableVocabulary("words", tuple(words)),
        ByteVocabulary(),
    ]


def well_formed(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


@given(ANY)
def test_a_text_comes_back(text: str) -> None:
    chars, words, data = vocabularies(text)
    assert chars.decode(chars.encode(text)) == text
    assert words.decode(words.encode(text)) == " ".join(text.split())
    assert data.decode(data.encode(text)) == well_formed(text)


@given(ANY, ANY, WAYS)
def test_ids_are_in_range_and_have_labels_and_words(text: str, other: str, how: Any) -> None:
    """Characters that the vocabulary does not know are among them."""
    for plain in vocabularies(how.preprocess(other)):
        vocabulary = PreprocessedVocabulary(plain, how)
        ids = vocabulary.encode(text)
        assert vocabulary.encode_all([text, other]) == [ids, vocabulary.encode(other)]
        assert all(vocabulary.specials.unknown <= i < vocabulary.size for i in ids)
        assert len(vocabulary.tokens(ids)) == len(ids) == len(vocabulary.words(ids, text))
        count = len(text.split())
        assert all(-1 <= number < count for number in vocabulary.words(ids, text))
        assert len(vocabulary.surfaces.each) == vocabulary.size
        assert "\n" not in vocabulary.decode(ids)


@given(ANY, WAYS)
@example("J\u030c", Preprocessing("nfkc", lowercase=True))
def test_preprocessing_makes_no_line_and_is_idempotent(text: str, how: Preprocessing) -> None:
    once = how.preprocess(text)
    assert "\n" not in once
    assert "\n" not in how.postprocess(once)
    if how.tokenizer == "none":
        assert how.preprocess(once) == once


@given(ANY)
def test_what_nfd_takes_apart_is_joined_again(text: str) -> None:
    how = Preprocessing("nfd")
    assert how.postprocess(how.preprocess(text)) == unicodedata.normalize("NFC", text)


@given(st.lists(st.integers(4, 99)), ANY)
@example([], "9" * 5000)
@example([], "0" * 5000 + "7")
def test_ids_as_text_are_ids_or_refused(ids: list[int], text: str) -> None:
    vocabulary = IdVocabulary(100)
    assert vocabulary.encode(" ".join(map(str, ids))) == ids
    assert vocabulary.encode(vocabulary.decode(ids)) == ids
    said = refusal(lambda: vocabulary.encode(text))
    if said is None:
        assert vocabulary.encode(text) == [int(token.lstrip("0")) for token in text.split()]
    else:
        assert "is not a token id" in said
        assert len(said) < 300


@pytest.mark.parametrize("kind", ["chars", "words"])
@given(st.lists(st.integers(0, 6)))
def test_any_ids_have_a_text(kind: Any, ids: list[int]) -> None:
    vocabulary = TableVocabulary(kind, ("a", "b", "c"))
    known = [("a", "b", "c")[i - 4] if i > 3 else "⁇" for i in ids if i > 2]
    assert vocabulary.decode(ids) == ("" if kind == "chars" else " ").join(known)
