"""`encdec.evaluate`: what it computes is what its parts compute."""

from pathlib import Path

import pytest

import encdec
from encdec.config import Seq2SeqConfig
from encdec.config.search import SearchOptions
from encdec.data.sources import Pairs
from encdec.evaluation.compute import compute_metrics
from encdec.evaluation.metrics import METRICS, Metric
from encdec.evaluation.options import MetricOptions
from encdec.inference.translator import Translator
from encdec.types import InputError
from tests.small_run import small_run

GREEDY = SearchOptions(beam=1)
SOURCES = ["3. Mai 1979", "", "12/11/2026"]
TARGETS = ["1979-05-03", "", "2026-11-12"]
OTHERS = ["May 3", "", "Nov 12"]


@pytest.fixture(scope="module")
def translator(tmp_path_factory: pytest.TempPathFactory) -> Translator:
    path: Path = tmp_path_factory.mktemp("runs") / "run"
    small_run(path, Seq2SeqConfig(cell="simple", embed=6, hidden=8))
    return encdec.load(path)


def test_the_numbers_are_those_of_the_parts(translator: Translator) -> None:
    pairs = list(zip(SOURCES, TARGETS, strict=True))
    evaluation = encdec.evaluate(translator, pairs, GREEDY)
    texts = [one.text for one in translator.translate(SOURCES, GREEDY)]
    assert evaluation.hypotheses == texts
    assert evaluation.metrics == compute_metrics(texts, [TARGETS])
    assert evaluation.loss == evaluation.values["loss"] == encdec.score(translator, pairs).loss
    own = encdec.evaluate(translator, list(zip(SOURCES, texts, strict=True)), GREEDY).calibration
    spoken = [text for source, text in zip(SOURCES, texts, strict=True) if source]
    assert sum(one.tokens for one in own.bins) == sum(len(text) + 1 for text in spoken)
    assert {one.accuracy for one in own.bins} == {1}  # every token is in its own text
    again = encdec.evaluate(translator, Pairs(SOURCES, TARGETS), GREEDY)
    assert again.metrics == evaluation.metrics
    assert {*evaluation.summary()} >= {
        "sentences",
        "bleu",
        "bleu_signature",
        "loss",
        "seconds",
        "calibration_error",
    }


def test_several_references(translator: Translator) -> None:
    pairs = list(zip(SOURCES, zip(TARGETS, OTHERS, strict=True), strict=True))
    names = ["chrf", "loss"]  # the loss is always there
    evaluation = encdec.evaluate(translator, pairs, GREEDY, metrics=names)
    options = MetricOptions()
    expected = compute_metrics(evaluation.hypotheses, [TARGETS, OTHERS], options, ["chrf"])
    assert evaluation.metrics == expected
    assert evaluation.loss == encdec.score(translator, Pairs(SOURCES, TARGETS)).loss


def test_sources_reach_the_metrics(translator: Translator, monkeypatch) -> None:
    row = Metric("BLEU of sources", METRICS["bleu"].make, needs=("references", "sources"))
    monkeypatch.setitem(METRICS, "needs_sources", row)
    evaluation = encdec.evaluate(translator, [("1999", "1999")], GREEDY, metrics=["needs_sources"])
    assert "needs_sources" in evaluation.values


def test_all_is_refused_before_anything_is_translated(translator: Translator, monkeypatch) -> None:
    monkeypatch.setattr(Translator, "translate", None)
    with pytest.raises(InputError, match="no sentences"):
        encdec.evaluate(translator, [])
    with pytest.raises(InputError, match="pair 2 has 1 references but pair 1 has 2"):
        encdec.evaluate(translator, [("a", ["b", "c"]), ("d", "e")])
    with pytest.raises(InputError, match="pair 1 has 0 references"):
        encdec.evaluate(translator, [("a", [])])
    with pytest.raises(InputError, match="metric 'blue' is unknown"):
        encdec.evaluate(translator, [("a", "b")], metrics=["blue"])
    with pytest.raises(InputError, match=r"give a list of names, \['bleu'\]"):
        encdec.evaluate(translator, [("a", "b")], metrics="bleu")
    with pytest.raises(InputError, match="pass SearchOptions as search"):
        encdec.evaluate(translator, [("a", "b")], options=GREEDY)
