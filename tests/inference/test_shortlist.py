"""Translation with a vocabulary shortlist."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, Seq2SeqConfig
from encdec.config.search import EnsembleOptions, SearchOptions
from encdec.parallel.layout import Layout
from encdec.types import InputError
from tests.models.bag_of_words import BagOfWords, BagOfWordsConfig
from tests.small_run import SMALL, small_run

FEW = "0123-"
"""What the small table allows for every source."""
TEXTS = ["Mai", "März, im", "", "dimanche", "Freitag", "x"]
TEXTS += [f"{'Mai ' * (n % 5)}am{'!' * n}" for n in range(15)]
MODELS = {
    "transformer": replace(SMALL, heads=4),
    "tied": replace(SMALL, tie_embeddings=True, output_bias=True),
    "attention": AttentionConfig(embed=4, hidden=6),
    "seq2seq": Seq2SeqConfig(embed=4, hidden=6, context_every_step=True),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: small_run(folder / name, model, ending=0).path for name, model in MODELS.items()}


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of everything, and of a few target tokens."""
    folder = tmp_path_factory.mktemp("tables")
    for name, letters in (("all", "0123456789-"), ("few", FEW)):
        (folder / name).write_text("".join(f"{letter} NULL 0.1\n" for letter in letters))
    return {path.name: path for path in folder.iterdir()}


class _Only(encdec.Processor):
    """The distribution over a few tokens, normalised."""

    allowed: jax.Array

    def __call__(self, state, log_probs, history):
        return state, jax.nn.log_softmax(jnp.where(self.allowed, log_probs, -jnp.inf))


def assert_same(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        assert [t.tgt_ids for t in one] == [t.tgt_ids for t in other]
        for a, b in zip(one, other, strict=True):
            assert a.score == pytest.approx(b.score, abs=1e-5)
            assert a.is_cut == b.is_cut


@pytest.mark.parametrize("name", MODELS)
def test_a_table_of_everything_changes_nothing(runs, tables, name: str) -> None:
    translator = encdec.load(runs[name])
    options = SearchOptions(beam=3, max_extra=6, no_repeat_ngram=3)
    found, expected = (
        one.nbest(TEXTS, 3, options)
        for one in (translator.with_shortlist(tables["all"]), translator)
    )
    assert_same(found, expected)
    assert len({t.text for several in found for t in several}) > 5


def test_it_is_the_search_on_masked_logits(runs, tables) -> None:
    translator = encdec.load(runs["transformer"])
    target = translator.run.tgt_vocabulary
    allowed = np.zeros(target.size, bool)
    allowed[[*target.specials, *target.encode(FEW)]] = True
    # The probability of special tokens is part of what is normalised.
    options = SearchOptions(beam=4, max_extra=9, ban_special=False)
    expected = translator.nbest(TEXTS, 4, options, processors=[_Only(jnp.asarray(allowed))])
    short = translator.with_shortlist(tables["few"])
    found = short.nbest(TEXTS, 4, options)
    assert_same(found, expected)
    alone = [short.nbest([text], 4, options)[0] for text in TEXTS[:5]]
    assert_same(alone, found[:5])
    pairs = translator.run.held_out
    assert encdec.score(short, pairs).loss == encdec.score(translator, pairs).loss


def test_what_is_demanded_is_found_whatever_the_table_has(runs, tables) -> None:
    short = encdec.load(runs["transformer"]).with_shortlist(tables["few"])
    texts = [TEXTS[0], TEXTS[1], TEXTS[3], "7 Mai"]
    options = SearchOptions(beam=3, max_extra=9, ban=("12",), ban_ids=("11 12", "4"))
    phrases = [["98-7"], [], [("6", "45")], []]
    prefixes = ["", "87", "", ""]
    found = short.nbest(texts, 3, options, phrases=phrases, prefixes=prefixes)
    few = {*FEW, "⁇", " "}
    for one in found[0]:
        assert "98-7" in one.text
        assert {*one.text} <= few | {*"987"}
    for one in found[1]:
        assert one.text.startswith("87")
        assert {*one.text} <= few | {*"87"}
    assert all("6" in one.text or "45" in one.text for one in found[2])
    assert all({*one.text} <= few | {"7"} for one in found[3])  # as its source has it
    assert not any("12" in one.text for several in found for one in several)


@pytest.mark.parametrize("layout", [Layout(1, 4), Layout(2, 2)], ids=str)
def test_devices_share_it(runs, tables, layout: Layout) -> None:
    options = SearchOptions(beam=2, max_extra=6)
    found, expected = (
        encdec.load(runs["transformer"], where)
        .with_shortlist(tables["few"])
        .nbest(TEXTS, 2, options)
        for where in (layout, Layout(1, 1))
    )
    assert_same(found, expected)


def test_an_ensemble_shares_it(runs, tables) -> None:
    names = ("attention", "seq2seq")
    options = SearchOptions(beam=2, max_extra=6)
    weights = EnsembleOptions(ensemble_mean="log-probabilities", ensemble_weights=(1.0, 0.0))
    ensemble = encdec.load_ensemble([runs[name] for name in names], options=weights)
    found = ensemble.with_shortlist(tables["few"]).nbest(TEXTS, 2, options)
    first = encdec.load(runs["attention"]).with_shortlist(tables["few"])
    assert_same(found, first.nbest(TEXTS, 2, options))


def test_a_family_without_factors_is_refused(runs, tables) -> None:
    translator = encdec.load(runs["seq2seq"])
    translator._model = BagOfWords(BagOfWordsConfig(), 9, 9)
    with pytest.raises(InputError, match="no decode_factors"):
        translator.with_shortlist(tables["all"])
