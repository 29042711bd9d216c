"""The memory that a search needs, estimated before it begins."""

from typing import NamedTuple

from encdec.parallel import devices
from encdec.types import InputError

_ROOM = 0.7
"""The fraction of the free memory that estimates may fill: they can be too small by so much."""
_COPIES = 4
"""Arrays float32 [W, V] that a step has at a time: logits, log-probabilities, sums and a copy."""
_CACHES = 2.5
"""Caches at a time where one grows: the old one, which has half the room, and two new ones."""
_RECORD = 3 * 12
"""Bytes that are recorded of each token: three numbers, three times while they move."""
_ATTENTION = 4 * 4
"""Bytes for each source position that a token attended to: a number, four times while they move."""


class SentenceBytes(NamedTuple):
    """About the bytes of a device that a sentence needs in a search.

    Attributes:
      source: for what is computed from its source, of this many tokens.
      hypothesis: for each of its hypotheses, of up to `target_length` tokens.
      source_length, target_length: tokens.
    """

    source: int
    hypothesis: int
    source_length: int
    target_length: int

    def total(self, beam: int) -> int:
        """With `beam` hypotheses."""
        return self.source + beam * self.hypothesis


def hypothesis_bytes(vocabulary: int, cache_bytes: int, attended: int, tokens: int) -> int:
    """About the bytes of a device for a hypothesis.

    Args:
      vocabulary: V, tokens that it may go on with.
      cache_bytes: bytes that its cache grows by with each token.
      attended: numbers of attention that are kept for each token, M S; 0 where none are.
      tokens: the most that it may have.
    """
    each_token = int(_CACHES * cache_bytes) + _RECORD + _ATTENTION * attended
    return 4 * _COPIES * vocabulary + each_token * tokens


def free_memory(reserved: int) -> int:
    """The bytes of a device that a search may need, where `reserved` bytes are taken."""
    return int(_ROOM * max(devices.device_memory() - reserved, 0))


def check_sentence(each: SentenceBytes, beam: int, memory: int) -> None:
    """Raises InputError if a single sentence does not fit on a device, and says what would.

    Args:
      each: what it needs.
      beam: W.
      memory: bytes that it may need.
    """
    if each.total(beam) <= memory:
        return
    free = f"but a device has {_gib(memory)} for it"
    if each.total(1) <= memory:
        raise InputError(
            f"beam = {beam} needs about {_gib(each.total(beam))} for a sentence of "
            f"{each.source_length} tokens, {free}: a beam of "
            f"{(memory - each.source) // each.hypothesis} would fit"
        )
    raise InputError(
        f"a source of {each.source_length} tokens, whose translation may have "
        f"{each.target_length}, needs about {_gib(each.total(1))}, {free}: split or cut "
        "the text, or give a smaller max_ratio or max_extra"
    )


def _gib(count: int) -> str:
    """Bytes in GiB, few of them too."""
    number = count / 2**30
    return f"{number:,.1f} GiB" if number >= 0.1 else f"{number:.2g} GiB"
