"""Position encodings."""

import numpy as np


def sinusoidal(length: int, width: int) -> np.ndarray:
    """Sinusoidal position encodings (Vaswani 2017, section 3.5), float32 [length, width].

    PE(pos, 2i) = sin(pos / 10000^(2i/width)),  PE(pos, 2i+1) = cos(pos / 10000^(2i/width))

    Args:
      length: positions 0 to length - 1.
      width: even.
    """
    rates = 10_000.0 ** (-np.arange(0, width, 2) / width)
    angles = np.arange(length)[:, None] * rates  # [length, width / 2]
    return np.stack([np.sin(angles), np.cos(angles)], -1).reshape(length, width).astype(np.float32)
