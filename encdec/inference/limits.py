"""How long a translation may be."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from encdec.config.search import MOST_TOKENS, SearchOptions
from encdec.runs.run import Run


def target_limits(runs: Sequence[Run], options: SearchOptions, lengths: Any) -> Any:
    """The most tokens that the translation of each source may have, int32 [B].

    Args:
      runs: those that decode together. The first says how much longer than their sources its
        training targets are, and the model with the fewest positions ends all.
      options: its `max_ratio` and `max_extra`.
      lengths: int [B], source tokens with the end token; NumPy or JAX.
    """
    extra = runs[0].extra_length if options.max_extra is None else options.max_extra
    limits = max_target_lengths(lengths, options.max_ratio, extra)
    positions = [run.config.model.longest_sentence for run in runs]
    longest = min((n for n in positions if n is not None), default=None)
    return limits if longest is None else limits.clip(max=longest)


def max_target_lengths(lengths: Any, ratio: float, extra: int) -> Any:
    """The most tokens that each translation may have, int32 [B]; 0 for an empty source.

    Args:
      lengths: int [B], source tokens with the end token; NumPy or JAX.
      ratio: target tokens for each source token.
      extra: target tokens in addition.
    """
    limits = (lengths * float(ratio) + extra).clip(max=MOST_TOKENS)
    return (lengths > 0).astype(np.int32) * limits.astype(np.int32)
