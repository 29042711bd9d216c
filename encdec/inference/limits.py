"""How long a translation may be."""

from typing import Any

import numpy as np

from encdec.config.search import MOST_TOKENS, SearchOptions
from encdec.runs.run import Run


def target_limits(run: Run, options: SearchOptions, lengths: Any) -> Any:
    """The most tokens that the translation of each source may have, int32 [B].

    Args:
      run: says how much longer than their sources its training targets are, and how many positions
        the model has.
      options: its `max_ratio` and `max_extra`.
      lengths: int [B], source tokens with the end token; NumPy or JAX.
    """
    extra = run.extra_length if options.max_extra is None else options.max_extra
    limits = max_target_lengths(lengths, options.max_ratio, extra)
    longest = run.config.model.longest_sentence
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
