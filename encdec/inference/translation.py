"""Translations: text, tokens, scores and attention, read from the arrays of a search."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from encdec.runs.run import Run


@dataclass(frozen=True)
class Translation:
    """One translation of one text, of T tokens from S source tokens.

    Attributes:
      text: the translation.
      score: the number by which the search ranks translations, nats: the log-probability after
        processors, divided by the length penalty; see `encdec.search.types.SearchResult`. With
        `SearchOptions.mbr` it is the expected chrF, 0 to 100.
      log_prob: the log-probability of the tokens under the model, nats, without processors.
      token_log_probs: that of each of the T target tokens given those before it, nats; the sum
        is `log_prob`.
      src_tokens, tgt_tokens: the tokens as text, the end token included.
      src_ids, tgt_ids: the ids of these tokens.
      is_cut: whether the translation reached its limit without an end token: its text may go on.
      attention: float32 [M, T, S], the attention of each target token to each source token in each
        of the model's M maps; None where alignments were not requested.
    """

    text: str
    score: float
    log_prob: float
    token_log_probs: list[float]
    src_tokens: list[str]
    tgt_tokens: list[str]
    src_ids: list[int]
    tgt_ids: list[int]
    is_cut: bool
    attention: np.ndarray | None


def blank_translation() -> Translation:
    """The translation of a blank text."""
    return Translation("", 0.0, 0.0, [], [], [], [], [], False, None)


def read_translations(
    result: Any, row: int, src: np.ndarray, count: int, run: Run
) -> list[Translation]:
    """Reads up to `count` translations of one sentence from the result of a search.

    Args:
      result: a SearchResult of NumPy arrays.
      row: the row of the sentence.
      src: int32 [S], the source tokens, the end token included.
      count: the most translations.
      run: the run whose vocabularies the ids are from.
    """
    target, src_ids = run.tgt_vocabulary, src.tolist()
    src_tokens = run.src_vocabulary.tokens(src_ids)
    usable = [w for w in range(count) if np.isfinite(result.scores[row, w])]
    translations = []
    for w in usable:
        ids = result.tokens[row, w, : result.lengths[row, w]].tolist()
        attention = None
        if result.attention is not None:
            steps = result.attention[row, w, : len(ids), :, : len(src)]  # [T, M, S]
            attention = np.moveaxis(steps, 1, 0).copy()  # of its own, not a view of the batch
        translations.append(
            Translation(
                text=target.decode(ids),
                score=float(result.scores[row, w]),
                log_prob=float(result.log_probs[row, w]),
                token_log_probs=result.token_log_probs[row, w, : len(ids)].tolist(),
                src_tokens=[*src_tokens],
                tgt_tokens=target.tokens(ids),
                src_ids=[*src_ids],
                tgt_ids=ids,
                is_cut=ids[-1:] != [target.specials.end],
                attention=attention,
            )
        )
    return translations
