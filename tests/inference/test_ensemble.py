"""Runs that translate together."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import encdec
from encdec.config import AttentionConfig, Seq2SeqConfig
from encdec.config.search import EnsembleOptions, SearchOptions
from encdec.data.sources import Pairs
from encdec.inference.scoring import score
from encdec.parallel.layout import Layout
from encdec.types import InputError
from tests.small_run import SMALL, small_run

TEXTS = ["3. Mai 1979", "", "12/11/2026", "Donnerstag, 1. Januar 2015"]
OPTIONS = SearchOptions(beam=3)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of three families with one target vocabulary, and one with another."""
    folder = tmp_path_factory.mktemp("runs")
    small_run(folder / "transformer", SMALL, ending=-1)
    small_run(folder / "attention", AttentionConfig(embed=4, hidden=6), ending=0)
    small_run(folder / "seq2seq", Seq2SeqConfig(embed=5, hidden=7), ending=0)
    small_run(folder / "joint", SMALL, joint=True)
    return {path.name: path for path in folder.iterdir()}


def test_a_run_with_itself_is_the_run(paths: dict[str, Path]) -> None:
    path = paths["transformer"]
    one, two = encdec.load(path), encdec.load_ensemble([path, path])
    expected, found = (
        translator.nbest(TEXTS, 3, OPTIONS, alignments=True) for translator in (one, two)
    )
    for a, b in zip(expected, found, strict=True):
        assert [t.tgt_ids for t in a] == [t.tgt_ids for t in b]
        np.testing.assert_allclose([t.score for t in a], [t.score for t in b], rtol=1e-4)
    assert len(expected[0][0].text) > 3
    assert found[0][0].attention is not None
    np.testing.assert_allclose(found[0][0].attention, expected[0][0].attention, atol=1e-5)
    assert two.map_names == one.map_names


@pytest.mark.parametrize(
    ("copies", "layout"), [(2, Layout(1, 1)), pytest.param(1, Layout(2, 2), marks=pytest.mark.slow)]
)
def test_phrases_do_not_depend_on_neighbours_copies_and_devices(
    paths: dict[str, Path], copies: int, layout: Layout
) -> None:
    """Of so many sentences some are done before others, and leave the batch."""
    path = paths["transformer"]
    texts = [f"{day}. Mai {1970 + day}" + "!" * (day % 7) for day in range(1, 20)]
    phrases = [[str(1970 + day)] if day % 3 else [] for day in range(1, 20)]
    bans = [["-05"] if day % 2 else [] for day in range(1, 20)]
    limits = SearchOptions(beam=3, max_ratio=1, max_extra=1)
    one = encdec.load(path)
    expected = [
        one.translate([text], limits, phrases=[demanded], bans=[banned])[0]
        for text, demanded, banned in zip(texts, phrases, bans, strict=True)
    ]
    many = encdec.load_ensemble([path] * copies, layout)
    found = many.translate(texts, limits, phrases=phrases, bans=bans)
    assert [t.tgt_ids for t in found] == [t.tgt_ids for t in expected]
    np.testing.assert_allclose(
        [t.score for t in found], [t.score for t in expected], rtol=1e-4, atol=1e-4
    )
    assert len({len(t.tgt_ids) for t in found}) > 1
    for one_text, demanded, banned in zip(found, phrases, bans, strict=True):
        assert all(phrase in one_text.text for phrase in demanded)
        assert not any(phrase in one_text.text for phrase in banned)


@pytest.mark.slow
def test_families_mix_and_a_weight_of_one_is_that_run(paths: dict[str, Path]) -> None:
    three = [paths[name] for name in ("seq2seq", "transformer", "attention")]
    second = EnsembleOptions(ensemble_weights=(0, 1, 0))
    found = encdec.load_ensemble(three, options=second).translate(TEXTS, OPTIONS)
    # The limit of tokens is that of the first run, which has the same corpus here.
    expected = encdec.load(paths["transformer"]).translate(TEXTS, OPTIONS)
    assert [one.tgt_ids for one in found] == [one.tgt_ids for one in expected]
    split = encdec.load_ensemble(three, Layout(4, 1), options=second)
    assert [one.text for one in split.translate(TEXTS, OPTIONS)] == [one.text for one in expected]


@pytest.mark.slow
def test_two_transformers_split_over_devices_are_those_on_one(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    """The second has other sizes; heads and vocabulary of both are split."""
    other = small_run(tmp_path / "other", replace(SMALL, layers=1, heads=4), ending=-1).path
    pair = [paths["transformer"], other]
    expected = encdec.load_ensemble(pair).nbest(TEXTS, 3, OPTIONS)
    found = encdec.load_ensemble(pair, Layout(2, 2)).nbest(TEXTS, 3, OPTIONS)
    for a, b in zip(expected, found, strict=True):
        assert [t.tgt_ids for t in a] == [t.tgt_ids for t in b]
        np.testing.assert_allclose([t.score for t in a], [t.score for t in b], rtol=1e-4)


def test_the_fewest_positions_of_all_runs_end_a_translation(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    few = replace(SMALL, positions="learned", max_positions=16)
    short = small_run(tmp_path / "short", few, ending=-9).path
    options = encdec.SearchOptions(beam=2, max_ratio=0, max_extra=40)
    for order in ([paths["transformer"], short], [short, paths["transformer"]]):
        found = encdec.load_ensemble(order)(TEXTS[0][:9], options)
        assert found.is_cut
        assert len(found.tgt_ids) == 16


def test_a_given_text_has_the_log_probability_that_the_search_gives_it(
    paths: dict[str, Path],
) -> None:
    runs = [paths["transformer"], paths["attention"]]
    both = encdec.load_ensemble(runs, options=EnsembleOptions(ensemble_weights=(0.3, 0.7)))
    best = both(TEXTS[0], OPTIONS)
    tokens = score(both, Pairs([TEXTS[0]], [best.text])).token_log_probs[0]
    # The search may stop at its limit, where a given text has an end token yet.
    assert tokens[: len(best.tgt_ids)].sum() == pytest.approx(best.log_prob, rel=1e-4)
    geometric = EnsembleOptions(ensemble_mean="log-probabilities")
    with pytest.raises(InputError, match="only with the mean of probabilities"):
        score(encdec.load_ensemble(runs, options=geometric), Pairs(["1999"], ["1999"]))


def test_what_cannot_decode_together_is_named(paths: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"attention and .*joint have different target"):
        encdec.load_ensemble([paths["attention"], paths["joint"]])
    weights = EnsembleOptions(ensemble_weights=(0.2, 0.3, 0.5))
    with pytest.raises(InputError, match="3 weights for 2 runs"):
        encdec.load_ensemble([paths["attention"], paths["attention"]], options=weights)
    with pytest.raises(InputError, match="at least one run"):
        encdec.load_ensemble([])
    for wrong in ({"ensemble_weights": (0.5, 0.5)}, (0.5, 0.5), None, SearchOptions()):
        with pytest.raises(InputError, match=r"options is a \w+: give encdec.EnsembleOptions"):
            encdec.load_ensemble([paths["attention"]], options=wrong)  # type: ignore[arg-type]
    both = encdec.load_ensemble([paths["attention"], paths["transformer"]])
    with pytest.raises(InputError, match="languages cannot be chosen for several runs"):
        both.with_languages("en", "de")
