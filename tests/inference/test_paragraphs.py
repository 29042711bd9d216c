"""Texts of several sentences: each is translated as it would be alone, and none is lost."""

from pathlib import Path

import pytest

from encdec.config import AttentionConfig
from encdec.config.search import SearchOptions
from encdec.inference import translator as translators
from encdec.inference.paragraphs import translate_paragraphs
from encdec.inference.translator import Translator
from encdec.types import InputError
from tests.commands import refused
from tests.small_run import small_run

GREEDY = SearchOptions(beam=1)


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    path = tmp_path_factory.mktemp("runs") / "dates"
    return translators.load(small_run(path, AttentionConfig(embed=4, hidden=6)).path)


def test_each_sentence_is_translated_as_if_alone(translator: Translator) -> None:
    texts = ["May 1, 1979. Why?  No! ", " ", "1 January 2015", "What? When?"]
    sentences = [["May 1, 1979.", "Why?", "No!"], [], ["1 January 2015"], ["What?", "When?"]]
    gaps = [["", " ", "  ", " "], [""], ["", ""], ["", " ", ""]]
    found = translate_paragraphs(translator, texts, GREEDY)
    assert [one.source for one in found] == sentences
    for paragraph, source, around in zip(found, sentences, gaps, strict=True):
        alone = [translator(sentence, GREEDY) for sentence in source]
        pairs = zip(around, [*(one.text for one in alone), ""], strict=True)
        assert paragraph.whole.text == "".join(gap + text for gap, text in pairs)
        assert paragraph.whole.score == pytest.approx(sum(one.score for one in alone), abs=1e-4)
        assert len(paragraph.whole.token_log_probs) == len(paragraph.whole.tgt_ids)
        assert paragraph.whole.tgt_ids == [i for one in alone for i in one.tgt_ids]


def test_a_sentence_longer_than_the_model_knows_is_split(translator: Translator) -> None:
    limit = translator.run.config.data.max_source_length
    text = "May 1, " * limit
    (found,) = translate_paragraphs(translator, [text], GREEDY)
    assert " ".join(found.source) == text.strip()
    assert all(len(part) <= limit for part in found.source)


def test_a_prefix_is_refused(translator: Translator) -> None:
    with pytest.raises(InputError, match="a prefix begins one sentence"):
        translate_paragraphs(translator, ["a"], SearchOptions(prefix="1"))


def test_the_command(tmp_path: Path, encdec) -> None:
    # The end token comes at once, so that all translations are empty.
    run = small_run(tmp_path / "run", AttentionConfig(embed=4, hidden=6), ending=99.0).path
    text = "May 1, 1979. Why?\tNo!\n\n2015.\n"
    found = encdec("translate", run, "--paragraphs", stdin=text.encode())
    assert (found.code, found.out) == (0, " \t\n\n\n")
    assert found.err.splitlines() == [
        f"encdec: line {line}: the translation of sentence {place} is empty"
        for line, place in ((1, 1), (1, 2), (1, 3), (3, 1))
    ]
    refused(encdec("translate", run, "--paragraphs", "--nbest", 2), "--nbest")
