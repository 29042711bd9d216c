"""Corpus scores of translations, by sacreBLEU."""

from collections.abc import Sequence
from dataclasses import dataclass

from sacrebleu.metrics import BLEU, CHRF

from encdec.types import InputError


@dataclass(frozen=True)
class Scores:
    """Scores of a set of sentences.

    Attributes:
      sentences: how many.
      exact_match: share of translations that are their reference, 0 to 1.
      bleu: corpus BLEU (Papineni 2002), 0 to 100.
      chrf: chrF2 (Popović 2015), 0 to 100.
      bleu_signature, chrf_signature: how sacreBLEU computed them (Post 2018).
    """

    sentences: int
    exact_match: float
    bleu: float
    chrf: float
    bleu_signature: str
    chrf_signature: str


def score(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Scores translations against one reference each.

    Raises:
      InputError: there are no sentences, or not as many of one as of the other.
    """
    if len(hypotheses) != len(references):
        raise InputError(
            f"{len(hypotheses)} translations cannot be scored against {len(references)} references"
        )
    if not references:
        raise InputError("there are no sentences to score")
    # sacreBLEU would warn of references that look tokenised; a date looks so.
    bleu, chrf = BLEU(force=True), CHRF()
    found = bleu.corpus_score(list(hypotheses), [list(references)])
    characters = chrf.corpus_score(list(hypotheses), [list(references)])
    same = sum(h == r for h, r in zip(hypotheses, references, strict=True))
    return Scores(
        sentences=len(references),
        exact_match=same / len(references),
        bleu=float(found.score),
        chrf=float(characters.score),
        bleu_signature=str(bleu.get_signature()),
        chrf_signature=str(chrf.get_signature()),
    )
