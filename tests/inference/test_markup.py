"""Markup through a model: every piece comes out, whatever the model; and what links words."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig
from encdec.config.search import SearchOptions
from encdec.inference.markup import translate_markup, word_links
from tests.small_run import SMALL, small_run

TEXTS = ["<b>3. Mai</b> 1979", "{empty}", "", "12/<i>11</i>/{year}2026", "no markup"]
MODELS: list[ModelConfig] = [
    SMALL,
    AttentionConfig(embed=4, hidden=6),
    Seq2SeqConfig(embed=4, hidden=6),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: type(model).__name__)
def test_every_piece_comes_out_of_every_model(tmp_path: Path, model: ModelConfig) -> None:
    translator = encdec.load(small_run(tmp_path / "run", model, ending=0).path)
    options = SearchOptions(beam=2, max_ratio=0, max_extra=12)
    found = translate_markup(translator, TEXTS, 2, options, keep=["19"])
    plain = translator.nbest(["3. Mai 79", "", "", "12/11/2026", "no markup"], 2, options)
    for text, translations, others in zip(TEXTS, found, plain, strict=True):
        for one, other in zip(translations, others, strict=True):
            kept = re.findall(r"<[^>]+>|\{[^}]*\}|19", text)
            assert all(one.text.count(piece) >= 1 for piece in kept)
            bare = re.sub(r"<[^>]+>|\{[^}]*\}", "", one.text)
            if "19" in kept:
                bare = bare.replace("19", "", 1)
            assert sorted("".join(bare.split())) == sorted("".join(other.text.split()))
            assert (one.score, one.tgt_tokens) == (other.score, other.tgt_tokens)
    assert found[1][0].text == "{empty}"
    assert [one.text for one in found[4]] == [one.text for one in plain[4]]


def test_links_are_between_words_with_marks_apart(tmp_path: Path) -> None:
    """With attention that is given: one target token looks at `3`, three at `Mai`."""
    translator = encdec.load(small_run(tmp_path / "run", AttentionConfig(embed=4, hidden=6)).path)
    options = SearchOptions(prefix="19-5", max_ratio=0, max_extra=4)
    (translation,) = translator.nbest(["3.Mai"], 1, options, alignments=True)[0]
    assert translation.text == "19-5"
    attention = np.zeros((1, 4, 6), np.float32)
    attention[0, [0, 1, 2, 3], [0, 2, 3, 4]] = 1.0
    aligned = replace(translation, attention=attention)
    assert word_links(translator.run, aligned, "3.Mai") == [(2, 0)]  # "19-5" is one word
    assert word_links(translator.run, replace(aligned, attention=None), "3.Mai") == [(1, 0)]
