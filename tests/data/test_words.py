"""The word of each token: against words that are encoded one by one, and by hand."""

from itertools import chain

import pytest

from encdec.data import vocabulary
from encdec.data.pretrained_pieces import BytePieces
from encdec.data.pretrained_vocabulary import PretrainedVocabulary
from encdec.data.simple_vocabularies import IdVocabulary
from encdec.data.text import Preprocessing, with_preprocessing
from encdec.data.vocabulary import Vocabulary
from encdec.data.words import word_numbers
from encdec.types import SpecialIds

TEXTS = ["zwei Hunde rennen", "ein alter Mann", "Häuser am Meer", "a", "der Hund, der schläft."]
SPECIALS = SpecialIds()


def vocabularies() -> dict[str, Vocabulary]:
    many = [" ".join(chain(TEXTS, [f"wort{i}"])) for i in range(9)]
    made = {
        kind: vocabulary.build(kind, many, 40 if kind == "sentencepiece" else None)
        for kind in ("chars", "words", "bytes", "sentencepiece")
    }
    pieces = BytePieces((), 1)
    ends = SpecialIds(pad=0, start=0, end=1, unknown=2)
    return {
        **made,
        "bpe": vocabulary.build("sentencepiece", many, 50, "bpe"),
        "pretrained": PretrainedVocabulary(pieces, 300, ends, before=(270,), after=(271,)),
    }


@pytest.mark.parametrize(("name", "vocab"), vocabularies().items())
def test_a_token_belongs_to_the_word_that_has_it(name: str, vocab: Vocabulary) -> None:
    for text in TEXTS:
        expected = [-1] * len(vocab.before)
        inner = slice(len(vocab.before), -len(vocab.after) or None)
        for number, word in enumerate(text.split()):
            has_space = number and name in ("chars", "bytes", "pretrained")
            expected += [-1] * bool(has_space)
            labels = vocab.tokens(vocab.encode(word)[inner])
            expected += [-1 if label == "▁" else number for label in labels]
        ids = vocab.encode(text)
        around = [vocab.specials.start, *ids, vocab.specials.end, vocab.specials.pad]
        found = vocab.words(around, text)
        assert found == [-1, *expected, *[-1] * len(vocab.after), -1, -1]


def test_unknown_tokens_keep_their_place() -> None:
    for name, vocab in vocabularies().items():
        if name in ("chars", "words", "sentencepiece"):
            ids = vocab.encode("zwei Ж rennen")
            unknown = ids.index(SPECIALS.unknown)
            assert vocab.words(ids, "zwei Ж rennen")[unknown] == 1
            assert vocab.words(ids, "zwei Ж rennen")[-1] == 2
    assert IdVocabulary(9).words([5, 7, SPECIALS.end, 6], "5 7 6") == [0, 1, -1, 2]


def test_words_of_moses_are_words_of_the_text() -> None:
    """Tokens are: der hund , der ( nicht ) schläft . — the text has five words."""
    text = "Der Hund, der (nicht) schläft."
    moses = Preprocessing(tokenizer="moses", lowercase=True, language="de")
    vocab = with_preprocessing(vocabulary.build("words", ["der hund , ( nicht ) ."], None), moses)
    ids = [*vocab.encode(text), SPECIALS.end]
    expected = [0, 1, 1, 2, 3, 3, 3, 4, 4, -1]
    assert vocab.words(ids, text) == expected
    known = [*vocab.encode("Der Hund, der (nicht) der."), SPECIALS.end]
    assert vocab.words(known, vocab.decode(known)) == expected


@pytest.mark.parametrize(
    ("labels", "text", "expected"),
    [
        (["▁a", "▁", "b", "▁▁c"], "a b  c", [0, -1, 1, 2]),
        (["▁a\u00a0b", "c", "▁d"], "a\u00a0bc d", [0, 1, 2]),
        (["▁do", "▁n", "'t", "▁go"], "don't go", [0, 0, 0, 1]),  # joined in the text
        (["▁ab", "cd", "▁e"], "abcd ef gh", [0, 0, 1]),  # the text was cut after "e"
        ([], "", []),
        ([None, "▁"], " ", [-1, -1]),
    ],
)
def test_labels(labels: list[str | None], text: str, expected: list[int]) -> None:
    assert word_numbers(labels, text) == expected
