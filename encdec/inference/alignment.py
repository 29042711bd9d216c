"""Word alignments from attention."""

import numpy as np


def pharaoh(attention: np.ndarray) -> str:
    """`s-t` for each target token t and the source token s that it attended to the most.

    Args:
      attention: float [M, T, S].
    """
    best = attention.mean(0).argmax(-1)
    return " ".join(f"{s}-{t}" for t, s in enumerate(best.tolist()))
