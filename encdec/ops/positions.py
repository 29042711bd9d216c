"""Position encodings, and the buckets of relative positions."""

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
    sines, cosines = _sines_and_cosines(length, np.arange(0, width, 2) / width)
    # Stacked on a new last axis, so that sines and cosines alternate.
    return np.stack([sines, cosines], -1).reshape(length, width).astype(np.float32)


def sinusoidal_halves(length: int, width: int) -> np.ndarray:
    """The encodings of `sinusoidal` with all sines before all cosines, as Marian has them."""
    halves = _sines_and_cosines(length, np.arange(0, width, 2) / width)
    return np.concatenate(halves, -1).astype(np.float32)


def sinusoidal_tensor2tensor(length: int, width: int) -> np.ndarray:
    """As `sinusoidal_halves`, with frequencies from 1 to exactly 1/10000 (Vaswani 2018).

    PE(pos, i) = sin(pos / 10000^(i / (width/2 - 1))) for i < width/2, then the cosines.
    """
    half = width // 2
    halves = _sines_and_cosines(length, np.arange(half) / max(half - 1, 1))
    return np.concatenate(halves, -1).astype(np.float32)


def _sines_and_cosines(length: int, exponents: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sine and cosine of pos / 10000^exponent, each float64 [length, exponents]."""
    angles = np.arange(length)[:, None] * 10_000.0**-exponents
    return np.sin(angles), np.cos(angles)


def relative_buckets(
    distances: np.ndarray, *, buckets: int, max_distance: int, bidirectional: bool
) -> np.ndarray:
    """The bucket of each distance between a query and a key (Raffel 2020, section 2.1).

    Small distances have a bucket each; from half of the buckets on they share buckets of
    logarithmic size, and from max_distance on all share the last. In NumPy, since a device's
    logarithm may put the edge of a bucket elsewhere.

    Args:
      distances: int, any shape: position of the key minus position of the query.
      buckets: how many there are; even.
      max_distance: see above; more than half of the buckets.
      bidirectional: keys after the query have the upper half of the buckets; otherwise they all
        have bucket 0, as a causal mask hides them.

    Returns:
      int32, shaped like `distances`, at least 0 and below `buckets`.
    """
    offset = np.zeros_like(distances)
    if bidirectional:
        buckets //= 2
        offset = np.where(distances > 0, buckets, 0)
        distances = np.abs(distances)
    else:
        distances = np.maximum(-distances, 0)
    exact = buckets // 2
    ratio = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(exact))
    ratio = ratio / np.float32(np.log(max_distance / exact)) * np.float32(buckets - exact)
    shared = np.minimum(exact + ratio.astype(np.int64), buckets - 1)
    return (offset + np.where(distances < exact, distances, shared)).astype(np.int32)
