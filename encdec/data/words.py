"""Which word of a text each token belongs to.

A word is what white space separates, as `str.split` does. Tokens tell by their labels where words
begin; where they would count other words than the text has, because punctuation was split from
words or joined to them, the characters decide.
"""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

SPACE = "▁"
"""How labels of tokens write a space."""


def word_numbers(labels: Sequence[str | None], text: str) -> list[int]:
    """The word of each token, counted from 0; -1 for a token that belongs to none.

    Args:
      labels: what each token writes, with ▁ or white space where a word ends; None for a token that
        writes nothing, such as the end token.
      text: the text that was split into these tokens, or that they were joined to.
    """
    numbers, words = [], [""]
    for label in labels:
        number = -1
        for character in label or "":
            if character == SPACE or character.isspace():
                words += [""] if words[-1] else []
            else:
                words[-1] += character
                number = len(words) - 1 if number < 0 else number
        numbers.append(number)
    if not words[-1]:
        words.pop()
    others = text.split()
    if len(words) == len(others):
        return numbers
    return renumber(numbers, words, others)


def renumber(numbers: Sequence[int], words: Sequence[str], others: Sequence[str]) -> list[int]:
    """Numbers of words as those of other words, which are the same characters in another division.

    A word becomes the one of the others that has its middle character. Where the others do not
    begin with these characters, each place is the same fraction of all.

    Args:
      numbers: of words, -1 for none.
      words, others: the words of the two divisions.
    """
    if not words or not others:
        return [-1] * len(numbers)
    ends = [*accumulate(map(len, others))]
    is_beginning = "".join(others).startswith("".join(words))  # of a text that was cut
    scale = 1 if is_beginning else ends[-1] / max(sum(map(len, words)), 1)
    starts = accumulate(map(len, words), initial=0)
    middles = [scale * (s + len(word) / 2) for s, word in zip(starts, words, strict=False)]
    place = [min(bisect_right(ends, middle), len(ends) - 1) for middle in middles]
    return [-1 if number < 0 else place[number] for number in numbers]
