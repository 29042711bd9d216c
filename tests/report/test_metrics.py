"""Scores against sacreBLEU's own functions and definitions."""

import pytest
import sacrebleu

from encdec.report.metrics import score
from encdec.types import InputError

HYPOTHESES = ["the cat sat on a mat", "a dog barks !", "", "one two three four five"]
REFERENCES = ["the cat sat on the mat", "a dog barks !", "nothing", "one two three four six"]


def test_scores_are_sacrebleus() -> None:
    found = score(HYPOTHESES, REFERENCES)
    assert found.sentences == 4
    assert found.exact_match == 0.25
    assert found.bleu == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)
    assert found.chrf == pytest.approx(sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score)
    for part in ("nrefs:1", "case:mixed", "tok:13a", "smooth:exp", "version:"):
        assert part in found.bleu_signature
    for part in ("nrefs:1", "nc:6", "nw:0", "version:"):
        assert part in found.chrf_signature


def test_a_perfect_translation() -> None:
    found = score(REFERENCES, REFERENCES)
    assert found.exact_match == 1
    assert found.bleu == pytest.approx(100)
    assert found.chrf == pytest.approx(100)


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [([], [], "no sentences"), (["a"], ["a", "b"], "1 translations .* 2 references")],
)
def test_what_cannot_be_scored(hypotheses, references, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(hypotheses, references)
