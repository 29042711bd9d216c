"""A batch of a test's own arrays."""

import numpy as np

from encdec.types import Batch


def padded_batch(src: np.ndarray, tgt: np.ndarray, pad: int = 0) -> Batch:
    """src int32 [B, S] and tgt int32 [B, T + 1], in which one id is padding and nothing else."""
    return Batch(src, src != pad, tgt, tgt[:, 1:] != pad)
