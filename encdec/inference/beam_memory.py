"""The memory that a beam needs, checked before a search begins."""

from encdec.parallel import devices
from encdec.types import InputError

_COPIES = 4
"""Arrays float32 [W, V] that a step has at a time: logits, log-probabilities, sums and a copy."""


def check_beam(beam: int, vocabulary: int, cache_bytes: int, tokens: int) -> None:
    """Raises InputError if the beam of a single sentence does not fit on a device.

    Args:
      beam: W, hypotheses of the sentence.
      vocabulary: V, tokens that each of them may go on with.
      cache_bytes: bytes that the cache of one hypothesis grows by with each token.
      tokens: the most that a translation may have.
    """
    each = 4 * _COPIES * vocabulary + cache_bytes * tokens
    memory = devices.device_memory()
    if beam * each > memory:
        raise InputError(
            f"beam = {beam} needs about {beam * each / 2**30:.1f} GiB for a sentence, but a device "
            f"has {memory / 2**30:.1f}: a beam of {max(memory // each, 1)} would fit"
        )
