"""What tokens add to a text: joined surfaces are the decoded text, for every kind of vocabulary."""

import pytest

from encdec.data import vocabulary
from encdec.data.simple_vocabularies import IdVocabulary
from encdec.data.surfaces import Surfaces, is_word_character
from encdec.data.vocabulary import Vocabulary

TEXTS = ["Zwei Männer, 3 Hunde.", "日本 語", "a-b (c) d's", "ein Mann"]


def made(kind: str) -> Vocabulary:
    if kind in ("unigram", "bpe"):
        return vocabulary.build("sentencepiece", TEXTS * 9, None, kind)  # type: ignore[arg-type]
    return vocabulary.build(kind, TEXTS, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["chars", "words", "bytes", "unigram", "bpe"])
def test_joined_surfaces_are_the_text(kind: str) -> None:
    own = made(kind)
    surfaces = own.surfaces
    assert len(surfaces.each) == own.size
    for text in TEXTS:
        ids = own.encode(text)
        assert surfaces.text(ids).decode().lstrip(" ") == text
        assert surfaces.text([*ids, own.specials.end, own.specials.pad]).decode().strip() == text
    assert surfaces.has_spaces
    for surface, ids in surfaces.ids.items():
        assert all(surfaces.each[i] == surface for i in ids)


def test_ids_as_numbers_have_surfaces() -> None:
    own = IdVocabulary(9)
    assert own.surfaces.text([*own.encode("4 8 5"), own.specials.end]) == b" 4 8 5"


def test_words_go_on_where_a_letter_meets_a_letter() -> None:
    each = ["", " a", "a", "ä", "-", ".x", "x.", " ", "猫", "กา", "́", "3"]
    surfaces = Surfaces([text.encode() for text in each] + ["ä".encode()[:1], "ä".encode()[1:]])
    begins = ["a", "ä", "x.", "́", "3"]
    ends = [" a", "a", "ä", ".x", "́", "3"]
    named = dict(zip(each, surfaces.continues, strict=False))
    assert [text for text in each if named[text]] == begins
    named = dict(zip(each, surfaces.ends_inside, strict=False))
    assert [text for text in each if named[text]] == ends
    for edges in (surfaces.continues, surfaces.ends_inside):
        assert all(edges[-2:])  # parts of a letter
    assert not any(map(is_word_character, " .,'-猫고あ"))
    assert not Surfaces([b"a", b"b"]).has_spaces
