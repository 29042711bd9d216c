"""Paragraphs in sentences and back: every character stays, and no part is too long."""

import random
import sys

import pytest

from encdec.data.sentences import join_paragraph, language_of, split_paragraph
from encdec.types import InputError


def whole(sentences: list[str], gaps: list[str]) -> str:
    """A paragraph by its definition."""
    return "".join(gap + one for gap, one in zip(gaps, [*sentences, ""], strict=True))


@pytest.mark.parametrize(
    ("language", "text", "sentences"),
    [
        ("en", "  Mr. Smith paid $3.50.\tWhy? ", ["Mr. Smith paid $3.50.", "Why?"]),
        ("deu_Latn", "Am 3. Mai kam er.\u00a0Gut!", ["Am 3. Mai kam er.", "Gut!"]),
        ("zh_CN", "他来了。你好吗？", ["他来了。", "你好吗？"]),
        ("hi", "वह आया। तुम कैसे हो?", ["वह आया।", "तुम कैसे हो?"]),
        ("en", "one line\nand another", ["one line\nand another"]),
        ("no language", "It is. Is it?", ["It is.", "Is it?"]),
        ("en", " \t", []),
        ("en", "", []),
    ],
)
def test_sentences_by_language(language: str, text: str, sentences: list[str]) -> None:
    found = split_paragraph(text, language)
    assert found.sentences == sentences
    assert whole(*found) == text


def test_no_character_is_lost() -> None:
    random.seed(0)
    letters = (
        "ab AB.!?…。，、\"'()„“«»,;:-\u2028\u00a0\u3000\r\t\x1c\u200b5💥e\u0301中か।؟\ufeffMr.\n"
    )
    for _ in range(2000):
        text = "".join(random.choices(letters, k=random.randint(0, 60)))
        most = random.randint(1, 20)
        language = random.choice(["en", "de", "zh", "ja", "ar", "hi", "xx"])
        found = split_paragraph(text, language, lambda sentence, most=most: len(sentence) <= most)
        assert whole(*found) == text
        assert not "".join(found.gaps).strip()
        assert all(s and s == s.strip() for s in found.sentences)
        # An accent stays with its letter, so these two are too long for one.
        assert all(len(s) <= max(most, 2) or "\u0301" in s for s in found.sentences)
        assert join_paragraph(found.sentences, found.gaps, "en", "de") == text


def test_a_long_sentence_is_cut_at_the_best_place_near_its_middle() -> None:
    text = "He came, he saw and thought, he won; but then, after all, he left."
    for most, expected in (
        (99, [text]),
        (40, ["He came, he saw and thought, he won;", "but then, after all, he left."]),
        (25, ["He came,", "he saw and thought,", "he won;", "but then,", "after all, he left."]),
    ):
        found = split_paragraph(text, "en", lambda s, most=most: len(s) <= most)
        assert " ".join(found.sentences) == text
        assert found.sentences == expected
        assert all(len(s) <= most for s in found.sentences)
    assert split_paragraph("1,000,000", "en", lambda s: len(s) < 8).sentences == ["1,00", "0,000"]


def test_spaces_follow_the_target_language() -> None:
    two = ["甲。", "乙。"]
    assert join_paragraph(two, ["", " ", " "], "en", "zh") == "甲。乙。 "
    assert join_paragraph(two, ["", "\t", ""], "en", "jpn_Jpan") == "甲。\t乙。"
    assert join_paragraph(two, ["", " ", ""], "ja", "zh") == "甲。 乙。"
    assert (
        join_paragraph(["A.", "B.", "C."], ["", "", "\u3000", ""], "zho_Hans", "en") == "A. B. C."
    )
    assert join_paragraph(["A.", "B."], [" ", "  ", " "], "th", "en") == " A.  B. "
    assert join_paragraph([], [" "], "en", "zh") == " "
    with pytest.raises(ValueError, match="zip"):
        join_paragraph(["A."], ["", " ", ""], "en", "de")


def test_codes_of_languages() -> None:
    for code in ("de", "de_DE", "deu", "deu_Latn", "DE-at"):
        assert language_of(code) == "de"
    assert language_of("yue_Hant") == "yue"


def test_a_missing_library_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "sentencex", None)
    with pytest.raises(InputError, match=r"sentencex is not installed.*encdec\[paragraphs\]"):
        split_paragraph("One. Two.", "en")
