"""Text in; text, scores and alignments out: what must hold for any parameters."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

import encdec
from encdec.config import (
    AttentionConfig,
    ModelConfig,
    Seq2SeqConfig,
    TransformerConfig,
)
from encdec.config.search import SearchOptions
from encdec.inference.translator import Translator, load
from encdec.parallel.layout import Layout
from encdec.runs.parameters import best_params
from encdec.types import InputError, SpecialIds
from tests import oracles
from tests.small_run import small_run

BOS = SpecialIds().start

MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(cell="lstm", layers=2, embed=6, hidden=8),
    "attention": AttentionConfig(embed=6, hidden=8),
    "transformer": TransformerConfig(layers=2, width=8, feed_forward=12, heads=2),
}
MAPS = {"seq2seq": 0, "attention": 1, "transformer": 4}
TEXTS = ["3. Mai 1979", "", "12/11/2026", "Donnerstag, 1. Januar 2015", "  ", "1999"]


@pytest.fixture(scope="module", params=MODELS)
def opened(request: pytest.FixtureRequest, tmp_path_factory) -> tuple[str, Translator]:
    path: Path = tmp_path_factory.mktemp("runs") / request.param
    small_run(path, MODELS[request.param], joint=request.param == "transformer")
    return request.param, encdec.load(path)


def test_a_batch_changes_nothing(opened) -> None:
    _, translator = opened
    options = SearchOptions(beam=3)
    together = translator.translate(TEXTS, options)
    alone = translator.translate(TEXTS, options, max_batch_tokens=1)
    assert [t.text for t in together] == [t.text for t in alone]
    np.testing.assert_allclose(
        [t.log_prob for t in together], [t.log_prob for t in alone], rtol=1e-4
    )
    assert together[1].text == together[4].text == ""


def test_a_score_is_the_log_probability_over_the_length_penalty(opened) -> None:
    _, translator = opened
    texts = [text for text in TEXTS if text.strip()]
    seen = 0
    for translations in translator.nbest(texts, 4, SearchOptions(beam=4)):
        for one in translations:
            penalty = ((5 + len(one.tgt_tokens)) / 6) ** 0.6
            assert one.score == pytest.approx(one.log_prob / penalty, rel=1e-5)
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("beam", [1, 3])
def test_tokens_have_the_log_probabilities_of_teacher_forcing(opened, beam: int) -> None:
    _, translator = opened
    texts = [text for text in TEXTS if text.strip()]
    several = [best[-1] for best in translator.nbest(texts, beam, SearchOptions(beam=beam))]
    for text, one in zip(texts, several, strict=True):
        assert not one.is_cut
        assert sum(one.token_log_probs) == pytest.approx(one.log_prob, rel=1e-5)
        given = encdec.score(translator, [(text, one.text)]).token_log_probs[0]
        np.testing.assert_allclose(one.token_log_probs, given, rtol=1e-3, atol=1e-4)


def test_a_translation_at_its_limit_is_cut(opened) -> None:
    _, translator = opened
    short = SearchOptions(beam=2, max_ratio=0, max_extra=3, min_length=3)
    for one in translator.translate(TEXTS, short):
        ends = one.tgt_tokens[-1:] == ["</s>"]
        assert one.is_cut == (bool(one.tgt_tokens) and not ends)
        assert len(one.token_log_probs) == len(one.tgt_ids)
    forced = translator("1999", replace(short, prefix="201"))
    assert (forced.text, forced.is_cut) == ("201", True)


def test_several_devices_give_the_maps_of_one_even_where_there_are_none(opened) -> None:
    name, translator = opened
    many = load(translator.run.path, Layout(4, 1))
    for options in (SearchOptions(beam=1), SearchOptions(beam=3)):
        one, other = translator("3. Mai 1979", options), many("3. Mai 1979", options)
        assert one.attention is not None
        assert other.attention is not None
        assert other.attention.shape[0] == MAPS[name]
        np.testing.assert_allclose(other.attention, one.attention, atol=1e-5)


def test_alignments_sum_to_one_over_the_source(opened) -> None:
    name, translator = opened
    found = translator("3. Mai 1979", SearchOptions(beam=2))
    assert found.src_tokens == [*"3.▁Mai▁1979", "</s>"]
    assert found.attention is not None
    assert found.attention.shape == (MAPS[name], len(found.tgt_tokens), 12)
    np.testing.assert_allclose(found.attention.sum(-1), 1, rtol=1e-5)
    assert translator.translate(["3. Mai 1979"])[0].attention is None


def test_every_map_is_what_plain_numpy_finds(opened) -> None:
    """A sentence alone, in the oracle's float64 and head by head."""
    name, translator = opened
    found = translator("12. Mai 99", SearchOptions(beam=2))
    assert len(translator.map_names) == MAPS[name]
    with pytest.raises(InputError, match="no attention" if name == "seq2seq" else "no alignment"):
        translator.attention(translator.translate(["1999"])[0])
    if name != "seq2seq":
        assert translator.attention(found) is found.attention
    if name != "transformer":
        with pytest.raises(InputError, match=f"run of {name}, which has"):
            translator.attention(found, "encoder")
        return
    params, _ = best_params(translator.run)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    tgt_in = [BOS, *found.tgt_ids[:-1]]
    _, expected = oracles.transformer(MODELS[name], exact, found.src_ids, tgt_in)
    for kind, weights in expected.items():
        np.testing.assert_allclose(
            translator.attention(found, kind), weights, atol=1e-5, err_msg=kind
        )


def test_a_source_can_be_cut(opened) -> None:
    _, translator = opened
    cut = translator.nbest(["3. Mai 1979"], 1, max_source_length=6)[0][0]
    assert cut.src_tokens == [*"3.▁Mai", "</s>"]
    assert cut.log_prob == pytest.approx(translator("3. Mai").log_prob, rel=1e-4)


def test_progress_counts_every_text(opened) -> None:
    _, translator = opened
    counted: list[int] = []
    translator.translate(TEXTS, SearchOptions(beam=1), progress=counted.append)
    assert sum(counted) == len(TEXTS)


def test_misuse_is_named(opened) -> None:
    _, translator = opened
    with pytest.raises(InputError, match="nbest = 6 cannot be used with beam = 5"):
        translator.nbest(TEXTS, 6)
    with pytest.raises(TypeError, match=r"call translator\(text\)"):
        translator.translate("3. Mai 1979")
    with pytest.raises(InputError, match=r"temperature = 0\.0 .* above 0"):
        SearchOptions(temperature=0.0)
