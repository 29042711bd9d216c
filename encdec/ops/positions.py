"""Position encodings."""

import numpy as np


def sinusoidal(length: int, width: int) -> np.ndarray:
    """Sinusoidal position encodings (Vaswani 2017, section 3.5).

    PE(pos, 2i) = sin(pos / 10000^(2i/width)),  PE(pos, 2i+1) = cos(pos / 10000^(2i/width))

    Args:
      length: the number of positions, which count from 0.
      width: D, even.

    Returns:
      float32 [length, width].
    """
    frequencies = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * frequencies  # [length, width / 2]
    # Stacked on a new last axis, so that sines and cosines alternate.
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)
