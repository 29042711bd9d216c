"""Tokens that are found in a text before it is cut into pieces."""

import re
from collections.abc import Iterable
from typing import NamedTuple


class AddedToken(NamedTuple):
    """A token that is found in a text before the text is cut into pieces.

    Attributes:
      text: what is searched for.
      id: its id.
      strip_left, strip_right: whether white space before or after it belongs to it.
      special: whether it leaves no trace in decoded text.
    """

    text: str
    id: int
    strip_left: bool = False
    strip_right: bool = False
    special: bool = True


class Splitter:
    """Splits a text at added tokens, the longest of those that begin at the same character."""

    def __init__(self, added: Iterable[AddedToken]) -> None:
        self._tokens = {token.text: token for token in added if token.text}
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._regex = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")

    def __call__(self, text: str) -> list[str | AddedToken]:
        """The tokens, and the texts between them that are not empty."""
        if not self._tokens:
            return [text] if text else []
        parts = self._regex.split(text)  # every second is a token
        for i in range(1, len(parts), 2):
            if self._tokens[parts[i]].strip_right:
                parts[i + 1] = parts[i + 1].lstrip()
            if self._tokens[parts[i]].strip_left:
                parts[i - 1] = parts[i - 1].rstrip()
        return [self._tokens[part] if i % 2 else part for i, part in enumerate(parts) if part]
