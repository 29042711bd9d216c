"""Minimum Bayes risk against its definition with sacreBLEU, and from the command line."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.chrf import CHRF

import encdec
from encdec.config.search import SearchOptions
from encdec.inference.minimum_bayes_risk import by_expected_utility
from encdec.inference.translation import Translation, blank_translation
from encdec.inference.translator import Translator
from encdec.types import InputError
from tests.commands import refused
from tests.small_run import small_run


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    return encdec.load(small_run(tmp_path_factory.mktemp("runs") / "run", ending=0).path)


def made(text: str, score: float, log_prob: float) -> Translation:
    ids = [*map(ord, text), round(-10 * log_prob)]  # other tokens for another probability
    return replace(blank_translation(), text=text, score=score, log_prob=log_prob, tgt_ids=ids)


def expected(candidates: list[Translation], weights: list[float]) -> list[float]:
    """The definition: sum of p(r) chrF(h, r)."""
    metric = CHRF()
    return [
        sum(
            w * metric.sentence_score(one.text, [other.text]).score
            for w, other in zip(weights, candidates, strict=True)
        )
        / sum(weights)
        for one in candidates
    ]


@pytest.mark.parametrize("drawn", [True, False])
def test_it_ranks_by_expected_utility(drawn: bool) -> None:
    candidates = [
        made("ein Hund rennt", -1.0, -3.0),
        made("ein Hund läuft", -1.1, -3.2),
        made("eine Katze", -1.2, -2.0),
        made("ein Hund läuft schnell", -1.3, -4.0),
        made("ein Hund läuft", -1.0, -3.1),
    ]
    weights = [1.0] * 5 if drawn else [float(np.exp(one.log_prob)) for one in candidates]
    utilities = expected(candidates, weights)
    texts = ["ein Hund rennt", "ein Hund läuft", "eine Katze", "ein Hund läuft schnell"]
    order = sorted(range(4), key=lambda i: -utilities[i])
    found = by_expected_utility(candidates, 3, drawn=drawn)
    assert [one.text for one in found] == [texts[i] for i in order[:3]]
    assert [one.score for one in found] == pytest.approx([utilities[i] for i in order[:3]])
    twice = next(one for one in found if one.text == "ein Hund läuft")
    assert twice.log_prob == -3.1  # the one with the better score


def test_ties_are_broken_by_the_score() -> None:
    found = by_expected_utility([made("ab", -2, -2), made("cd", -1, -2)], 2, drawn=True)
    assert [one.text for one in found] == ["cd", "ab"]


def test_it_chooses_among_the_translations_of_a_search(translator: Translator) -> None:
    texts = ["3. Mai 1979", "", "12/11/2026"]
    limits = {"max_ratio": 0.0, "max_extra": 8}
    for how in (SearchOptions(beam=6, **limits), SearchOptions(sample=True, seed=3, **limits)):
        candidates = translator.nbest(texts, 6, how)
        found = translator.nbest(texts, 2, SearchOptions(**{**vars(how), "mbr": 6}))
        assert [one.text for one in found[1]] == [""]
        for i in (0, 2):
            expected = by_expected_utility(candidates[i], 2, drawn=how.sample)
            for one, other in zip(found[i], expected, strict=True):
                assert (one.text, one.score) == (other.text, other.score)


def test_more_than_there_can_be_is_refused(translator: Translator, encdec) -> None:
    with pytest.raises(InputError, match="nbest = 3 cannot be used with mbr = 2"):
        translator.nbest(["3. Mai"], 3, SearchOptions(mbr=2))
    path: Path = translator.run.path
    refused(encdec("translate", path, "--mbr", 6, stdin=b"a\n"), "mbr = 6", "beam = 5", "sample")
    refused(encdec("translate", path, "--mbr", -1, stdin=b"a\n"), "mbr = -1")


def test_tokens_that_several_groups_found_count_once() -> None:
    once = [made("ein Hund", -1, -2), made("eine Katze", -2, -1.9), made("zwei Hunde", -3, -2.5)]
    expected = by_expected_utility(once, 3, drawn=False)
    found = by_expected_utility([*once, once[0], once[2], once[0]], 3, drawn=False)
    assert found == expected
