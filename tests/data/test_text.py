"""Preprocessing, against the Unicode functions of Python and against sacreMoses."""

import pickle
import sys
import unicodedata

import pytest
from sacremoses import MosesTokenizer

from encdec.data import vocabulary
from encdec.data.text import PreprocessedVocabulary, Preprocessing, with_preprocessing
from encdec.types import SpecialIds

_, _, EOS, UNK = SpecialIds()

MOSES = Preprocessing(tokenizer="moses")
ENGLISH = [
    'Don\'t say "Hello, world!" to Mr. Smith (5,300 times)...',
    "He paid $3.50 -- well-known, isn't it?",
    "A & B; [x] <y> 100%",
]
HARD = ["", " \t ", "\ud800 lone \udfff", "x\u2028y\x85z", "\x00\x01", "İI", "⁇ a"]
HARD += ["e\u0301\u0323 \u0301"]
EVERY = [
    Preprocessing(normalization, tokenizer, lowercase, "de")
    for normalization in ("none", "nfkc", "nfd")
    for tokenizer in ("none", "moses")
    for lowercase in (False, True)
]
MARKED = [
    *("ve\u0301lo, a\u0301\u0323b!", "на\u0301до, б", "नमस्ते, दुनिया! क्\u200dष"),
    *("שָׁלוֹם, עולם", "می\u200cخواهم, ab"),
]


def test_without_options_no_text_changes() -> None:
    plain = vocabulary.build("chars", ["abc"], None)
    assert Preprocessing(language="tr").is_identity
    assert with_preprocessing(plain, Preprocessing()) is plain
    for text in (*HARD, *ENGLISH):
        assert Preprocessing().preprocess(text) == Preprocessing().postprocess(text) == text
    assert not any(how.is_identity for how in EVERY[1:])


def test_nfkc_and_lower_case_equal_pythons_and_are_idempotent() -> None:
    folded, lower = Preprocessing("nfkc"), Preprocessing(lowercase=True)
    both = Preprocessing("nfkc", "none", True)
    every = list(map(chr, range(sys.maxunicode + 1)))
    normal = [unicodedata.normalize("NFKC", character) for character in every]
    assert list(map(folded.preprocess, every)) == normal
    assert list(map(lower.preprocess, every)) == [character.lower() for character in every]
    once = list(map(both.preprocess, every))
    assert list(map(both.preprocess, once)) == once
    assert both.preprocess("Ａﬁ ÉE\u0301 ΟΔΟΣ Straße") == "afi éé οδος straße"
    assert both.preprocess("e\u0301") == both.preprocess("É") == "é"


def test_nfd_splits_accents_and_hangul_and_joins_them_again() -> None:
    apart = Preprocessing("nfd")
    assert apart.preprocess("가é") == "\u1100\u1161e\u0301"
    every = list(map(chr, range(sys.maxunicode + 1)))
    split = list(map(apart.preprocess, every))
    assert split == [unicodedata.normalize("NFD", character) for character in every]
    assert list(map(apart.preprocess, split)) == split
    joined = [unicodedata.normalize("NFC", character) for character in every]
    assert list(map(apart.postprocess, split)) == joined


def test_a_turkish_i_keeps_its_dot() -> None:
    turkish = Preprocessing(lowercase=True, language="tr")
    assert turkish.preprocess("DIŞ İSTANBUL I\u0307Ç") == "dış istanbul iç"
    assert Preprocessing(lowercase=True).preprocess("DIŞ İ") == "diş i\u0307"


@pytest.mark.parametrize("text", ENGLISH)
def test_moses_splits_as_sacremoses_and_joins_again(text: str) -> None:
    tokens = MOSES.preprocess(text)
    assert tokens == MosesTokenizer("en").tokenize(text, return_str=True, escape=False)
    assert MOSES.postprocess(tokens).replace(" ", "") == text.replace(" ", "")
    assert MOSES.postprocess(MOSES.preprocess(ENGLISH[0])) == ENGLISH[0]


def test_moses_follows_the_language() -> None:
    text = "l'homme d'Etat z.B. etc. heute"
    french, german = (Preprocessing(tokenizer="moses", language=code) for code in ("fr", "de"))
    assert french.preprocess(text).split()[:4] == ["l'", "homme", "d'", "Etat"]
    assert "etc." in german.preprocess(text).split()
    assert french.postprocess(french.preprocess("l'homme d'Etat.")) == "l'homme d'Etat."
    capital = Preprocessing("none", "moses", True, "en")
    assert capital.preprocess("Mr. Smith left.") == "mr. smith left ."  # split before lower-casing


@pytest.mark.parametrize("language", ["en", "de", "hi"])
@pytest.mark.parametrize("text", MARKED)
def test_moses_leaves_combining_marks_with_their_letters(text: str, language: str) -> None:
    moses = Preprocessing(tokenizer="moses", language=language)
    words = [word.strip("!,") for word in text.split()]
    assert [token for token in moses.preprocess(text).split() if token not in ("!", ",")] == words
    assert moses.postprocess(moses.preprocess(text)) == text


@pytest.mark.parametrize("how", EVERY)
def test_any_text_can_be_preprocessed_and_postprocessed(how: Preprocessing) -> None:
    assert pickle.loads(pickle.dumps(how)) == how
    for kind in ("chars", "words", "bytes"):
        built = with_preprocessing(vocabulary.build(kind, map(how.preprocess, ENGLISH), None), how)
        for text in (*HARD, *ENGLISH):
            ids = built.encode(text)
            assert all(UNK <= i < built.size for i in ids)
            assert isinstance(built.decode([*ids, EOS]), str)
            assert len(built.tokens(ids)) == len(ids)


def test_a_vocabulary_encodes_preprocessed_text_and_is_saved_without(tmp_path) -> None:
    how = Preprocessing("nfkc", "moses", True, "en")
    plain = vocabulary.build("words", map(how.preprocess, ENGLISH), None)
    built = with_preprocessing(plain, how)
    assert built == PreprocessedVocabulary(plain, how)
    assert UNK not in built.encode("MR. SMITH, ＷＯＲＬＤ!")
    assert built.tokens(built.encode("Hello, Smith")) == ["hello", ",", "smith"]
    assert built.decode(built.encode("Hello, WORLD!")) == "hello, world!"
    vocabulary.save(built, tmp_path / "vocab")
    assert vocabulary.load(tmp_path / "vocab") == plain
