"""Where the words of a text begin and end, with punctuation marks as words of their own."""

import unicodedata
from typing import Literal

Side = Literal["word", "mark", "edge", "markup"]
"""What is next to a place: a letter or digit, another character, the end of the text, markup."""

_JOINERS = "-'’\u00ad\u200c\u200d"
"""Parts of a word between two of its letters."""


def word_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of each word; a punctuation mark is a word, and so is a character of a script
    without spaces."""
    spans: list[tuple[int, int]] = []
    place = 0
    while place < len(text):
        start = place
        place += 1
        if text[start].isspace():
            continue
        in_word = side_of(text[start]) == "word" and not _is_word_itself(text[start])
        while place < len(text) and _goes_on(text, place, in_word):
            place += 1
        spans.append((start, place))
    return spans


def side_of(character: str) -> Side:
    """What a character is to the place beside it; "" is the end of the text."""
    if not character:
        return "edge"
    return "word" if unicodedata.category(character)[0] in "LMN" or character == "_" else "mark"


def _goes_on(text: str, place: int, in_word: bool) -> bool:
    """Whether a character belongs to the word before it."""
    character = text[place]
    if unicodedata.category(character)[0] == "M":
        return True
    if not in_word or _is_word_itself(character):
        return False
    between = character in _JOINERS and text[place + 1 : place + 2].isalnum()
    return side_of(character) == "word" or between


def _is_word_itself(character: str) -> bool:
    """Whether a character is of a script without spaces: Chinese, Japanese, Thai, Lao, Khmer."""
    code = ord(character)
    ranges = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF))
    return any(a <= code <= b for a, b in (*ranges, (0x0E00, 0x0EFF), (0x1780, 0x17FF)))
