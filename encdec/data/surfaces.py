"""What each token adds to a text, and where words begin and end.

A text that must or must not appear is judged on text, and not on one way to cut it into tokens.
"""

import unicodedata
from collections.abc import Sequence
from functools import cached_property

import numpy as np

_UNSPACED = (
    *((0x0E00, 0x109F), (0x1100, 0x11FF), (0x1780, 0x17FF), (0x2E80, 0xD7FF)),
    *((0xF900, 0xFAFF), (0xFF66, 0xFFDC), (0x20000, 0x3FFFF)),
)
"""Code points of scripts whose words have no spaces between (Thai, Lao, Tibetan, Burmese, Khmer,
Chinese, Japanese), and of Korean, whose particles follow a noun without one."""


def is_word_character(character: str) -> bool:
    """Whether two such characters in a row belong to one word."""
    if any(first <= ord(character) <= last for first, last in _UNSPACED):
        return False
    return character.isalnum() or unicodedata.category(character)[0] == "M"


class Surfaces:
    """The surface of each of V tokens: the UTF-8 bytes that it adds to a text.

    The space before a word belongs to the surface of the word's first token. A token that leaves no
    trace, such as the end token, has the empty surface.
    """

    def __init__(self, each: Sequence[bytes]) -> None:
        self.each = each

    @cached_property
    def ids(self) -> dict[bytes, list[int]]:
        """The tokens with a surface."""
        found: dict[bytes, list[int]] = {}
        for i, surface in enumerate(self.each):
            if surface:
                found.setdefault(surface, []).append(i)
        return found

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest surface."""
        return max(map(len, self.ids), default=0)

    @cached_property
    def has_spaces(self) -> bool:
        """Whether there are words: without a space in any token, a text may begin anywhere."""
        return any(b" " in surface for surface in self.ids)

    @cached_property
    def continues(self) -> np.ndarray:
        """bool [V]: whether a word goes on at the beginning of the token."""
        return np.array([bool(s) and _is_word(s[:4], 0) for s in self.each], bool)

    @cached_property
    def ends_inside(self) -> np.ndarray:
        """bool [V]: whether a word may go on after the token."""
        return np.array([bool(s) and _is_word(s[-4:], -1) for s in self.each], bool)

    def text(self, ids: Sequence[int]) -> bytes:
        """The bytes of several tokens."""
        return b"".join(self.each[i] for i in ids)


def _is_word(surface: bytes, place: int) -> bool:
    """Whether the first or the last character belongs to a word; a part of a character does."""
    byte = surface[place]
    if byte < 0x80:
        return is_word_character(chr(byte))
    for part in (surface[i:] if place else surface[: 4 - i] for i in range(4)):
        try:
            return is_word_character(part.decode()[place])
        except (UnicodeDecodeError, IndexError):
            continue
    return True
