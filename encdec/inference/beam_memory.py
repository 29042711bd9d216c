"""The memory that a search needs, estimated before it begins."""

from encdec.parallel import devices
from encdec.types import InputError

_COPIES = 4
"""Arrays float32 [W, V] that a step has at a time: logits, log-probabilities, sums and a copy."""
_CACHES = 2.5
"""Caches at a time where one grows: the old one, which has half the room, and two new ones."""
_RECORD = 3 * 12
"""Bytes that are recorded of each token: three numbers, three times while they move."""


def search_bytes(beam: int, vocabulary: int, cache_bytes: int, tokens: int) -> int:
    """About the bytes of a device for the search of a sentence; arguments as in `check_beam`."""
    each_token = int(_CACHES * cache_bytes) + _RECORD
    return beam * (4 * _COPIES * vocabulary + each_token * tokens)


def check_beam(beam: int, vocabulary: int, cache_bytes: int, tokens: int) -> None:
    """Raises InputError if the beam of a single sentence does not fit on a device.

    Args:
      beam: W, hypotheses of the sentence.
      vocabulary: V, tokens that each of them may go on with.
      cache_bytes: bytes that the cache of one hypothesis grows by with each token.
      tokens: the most that a translation may have.
    """
    each = search_bytes(1, vocabulary, cache_bytes, tokens)
    memory = devices.device_memory()
    if beam * each > memory:
        raise InputError(
            f"beam = {beam} needs about {beam * each / 2**30:.1f} GiB for a sentence, but a device "
            f"has {memory / 2**30:.1f}: a beam of {max(memory // each, 1)} would fit"
        )
