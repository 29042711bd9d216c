"""Scores of given translations against plain NumPy, the search, and other batches."""

from pathlib import Path

import jax
import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, ModelConfig, Seq2SeqConfig, TransformerConfig
from encdec.config.search import SearchOptions
from encdec.data.sources import Pairs
from encdec.inference.translator import Translator, load
from encdec.parallel.layout import Layout
from encdec.runs.parameters import best_params
from encdec.types import InputError, SpecialIds
from tests import oracles
from tests.small_run import small_run

_, BOS, EOS, _ = SpecialIds()
MODELS: dict[str, ModelConfig] = {
    "seq2seq": Seq2SeqConfig(cell="lstm", layers=2, embed=6, hidden=8),
    "attention": AttentionConfig(embed=6, hidden=8),
    "transformer": TransformerConfig(layers=2, width=8, feed_forward=12, heads=2),
}
TEXTS = ["3. Mai 1979", "", "12/11/2026", "Donnerstag, 1. Januar 2015", "  ", "1999"]
PAIRS = [("3. Mai 1979", "1979-05-03"), ("12/11/2026", "2026"), ("1999", ""), ("", "1")]


@pytest.fixture(scope="module", params=MODELS)
def opened(request: pytest.FixtureRequest, tmp_path_factory) -> Translator:
    path: Path = tmp_path_factory.mktemp("runs") / request.param
    small_run(path, MODELS[request.param], joint=request.param == "transformer")
    return encdec.load(path)


def test_texts_instead_of_a_batch_are_refused_with_what_takes_them(opened) -> None:
    with pytest.raises(InputError, match=r"not a list: encdec\.score\(translator, pairs\)"):
        opened.log_probs([("3 May 1979", "1979-05-03")])


def test_the_loss_of_no_tokens_is_zero(opened: Translator) -> None:
    loss = encdec.score(opened, [("", ""), (" ", "")]).loss
    assert (loss, np.signbit(loss)) == (0.0, False)


def own_translations(
    translator: Translator, beam: int
) -> tuple[list[tuple[str, str]], list[float]]:
    """What a search finds and how probable it says that is, where the text keeps its tokens."""
    pairs, log_probs = [], []
    vocabulary = translator.run.tgt_vocabulary
    found = translator.nbest(TEXTS, beam, SearchOptions(beam=beam))
    for text, translations in zip(TEXTS, found, strict=True):
        for one in translations:
            # Not what was cut at its limit, nor what has tokens that no text has.
            if not text.strip() or one.tgt_ids == [*vocabulary.encode(one.text), EOS]:
                pairs.append((text, one.text))
                log_probs.append(one.log_prob)
    return pairs, log_probs


@pytest.mark.parametrize("beam", [1, 4])
def test_own_translations_have_the_score_of_the_search(opened: Translator, beam: int) -> None:
    pairs, log_probs = own_translations(opened, beam)
    assert len([source for source, _ in pairs if source.strip()]) > 3
    np.testing.assert_allclose(encdec.score(opened, pairs).log_probs, log_probs, atol=1e-4)


@pytest.mark.slow
def test_own_translations_in_a_layout(tmp_path: Path) -> None:
    path = small_run(tmp_path / "run").path
    many = load(path, Layout(2, 2))
    for beam in (1, 3):
        pairs, log_probs = own_translations(many, beam)
        for translator in (many, load(path)):
            scores = encdec.score(translator, pairs)
            np.testing.assert_allclose(scores.log_probs, log_probs, atol=1e-4)


def test_scores_are_what_plain_numpy_finds(tmp_path: Path) -> None:
    config = MODELS["transformer"]
    translator = load(small_run(tmp_path / "run", config).path)
    params, _ = best_params(translator.run)
    exact = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    scores = encdec.score(translator, PAIRS)
    source, target = translator.run.src_vocabulary, translator.run.tgt_vocabulary
    for (src, tgt), found in zip(PAIRS, scores.token_log_probs, strict=True):
        labels = [*target.encode(tgt), EOS]
        logits, _ = oracles.transformer(
            config, exact, [*source.encode(src), EOS], [BOS, *labels[:-1]]
        )
        probabilities = oracles.softmax(logits)[np.arange(len(labels)), labels]
        np.testing.assert_allclose(found, np.log(probabilities), atol=1e-5)


def test_tokens_sum_to_the_sentence_and_sentences_to_the_loss(opened: Translator) -> None:
    scores = encdec.score(opened, PAIRS)
    assert [len(tokens) for tokens in scores.token_log_probs] == [11, 5, 1, 2]  # with the end
    sums = [sum(map(float, tokens)) for tokens in scores.token_log_probs]
    np.testing.assert_allclose(scores.log_probs, sums, rtol=1e-6)
    assert scores.loss == pytest.approx(-sum(sums) / 19)
    assert all(token <= 0 for tokens in scores.token_log_probs for token in tokens)


def test_a_batch_changes_nothing(opened: Translator) -> None:
    together = encdec.score(opened, PAIRS)
    counted: list[int] = []
    sides = Pairs(*map(list, zip(*PAIRS, strict=True)))
    small = encdec.score(opened, sides, max_batch_tokens=1, progress=counted.append)
    np.testing.assert_allclose(small.log_probs, together.log_probs, rtol=1e-5)
    assert sum(counted) == len(PAIRS)


def test_a_blank_pair_is_certain(opened: Translator) -> None:
    scores = encdec.score(opened, [(" ", ""), *PAIRS])
    assert (scores.log_probs[0], len(scores.token_log_probs[0])) == (0, 0)
    assert scores.loss == pytest.approx(encdec.score(opened, PAIRS).loss)
    assert encdec.score(opened, []).loss == encdec.score(opened, [("", "")]).loss == 0
