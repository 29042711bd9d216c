"""Terminology: which terms a source text contains, and what they demand of its translation.

A term is found as words. One in lower case is found in any case, one with a capital only as it is
written. Of terms that overlap in a text, the longest counts, and of equally long ones the first.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from encdec.data.sources import stream_lines
from encdec.data.surfaces import is_word_character
from encdec.types import InputError


class Term(NamedTuple):
    """A term of the source language.

    Attributes:
      source: the term.
      targets: texts of the target language, of which one must appear, or of which none may.
      banned: whether none may.
      place: the file and the line, for messages.
    """

    source: str
    targets: tuple[str, ...]
    banned: bool
    place: str


def read_terms(path: str | Path, banned: bool = False) -> list[Term]:
    """Reads a file with a source term, a tab and a target in each line; blank lines are skipped.

    Several targets have | between. White space around a term or a target is no part of it.

    Raises:
      InputError: the file cannot be read, or a line has not two columns, or an empty one; the error
        names the line.
    """
    terms = []
    for number, line in enumerate(stream_lines(path), 1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2:
            raise InputError(
                f"{place} has {len(cells)} column{'s' * (len(cells) != 1)} between tabs: give a "
                "source term, a tab and a target term"
            )
        source, target = cells
        targets = tuple(text.strip() for text in target.split("|"))
        if not source or not all(targets):
            side = "source term" if not source else "target term"
            raise InputError(f"{place} has an empty {side}: give both, or leave the line out")
        terms.append(Term(source, targets, banned, place))
    return terms


class Terminology:
    """Finds the terms of a text.

    Args:
      terms: several may have the same source.

    Raises:
      InputError: two terms with the same source demand different targets, or one demands what
        another one bans.
    """

    def __init__(self, terms: Iterable[Term]) -> None:
        self._entries: dict[tuple[str, ...], list[Term]] = {}
        self._longest: dict[str, int] = {}
        for term in terms:
            words = tuple(_words(term.source))
            if term.source == term.source.lower():
                words = ("", *words)  # which no exact entry begins with
            self._add(words, term)

    def _add(self, words: tuple[str, ...], term: Term) -> None:
        others = self._entries.setdefault(words, [])
        for other in others:
            required, banned = sorted((other, term), key=lambda one: one.banned)
            if not other.banned and not term.banned and other.targets != term.targets:
                raise InputError(
                    f"{other.place} and {term.place} have the same source term {term.source!r} "
                    "and different target terms: give one line, with | between the targets"
                )
            clash = set(required.targets) <= set(banned.targets)
            if required.banned != banned.banned and clash:
                raise InputError(
                    f"{required.place} demands what {banned.place} forbids for the same source "
                    f"term {term.source!r}: leave one of them out"
                )
        others.append(term)
        first = next(word for word in words if word).lower()
        count = len(words) - (words[0] == "")
        self._longest[first] = max(self._longest.get(first, 0), count)

    def find(self, text: str) -> list[Term]:
        """The terms of a text, each once, in their order."""
        words = _words(text)
        lower = [word.lower() for word in words]
        matches = [
            (start, count, terms)
            for start, first in enumerate(lower)
            for count in range(1, min(self._longest.get(first, 0), len(words) - start) + 1)
            if (terms := self._at(words, lower, slice(start, start + count)))
        ]
        is_free = [True] * len(words)
        chosen: list[tuple[int, list[Term]]] = []
        for start, count, terms in sorted(matches, key=lambda match: (-match[1], match[0])):
            if all(is_free[start : start + count]):
                is_free[start : start + count] = [False] * count
                chosen.append((start, terms))
        chosen.sort(key=lambda match: match[0])
        return [*dict.fromkeys(term for _, terms in chosen for term in terms)]

    def _at(self, words: Sequence[str], lower: Sequence[str], place: slice) -> list[Term]:
        """The terms that are these words; one as it is written comes before one in any case."""
        exact = self._entries.get(tuple(words[place]), [])
        folded = self._entries.get(("", *lower[place]), [])
        has = {term.banned for term in exact}
        targets = {target for term in exact for target in term.targets}
        return [
            *exact,
            *(
                term
                for term in folded
                if term.banned not in has and targets.isdisjoint(term.targets)
            ),
        ]


_is_word_character = lru_cache(maxsize=1 << 16)(is_word_character)


def _words(text: str) -> list[str]:
    """Words, and all other characters that are not white space one by one."""
    words: list[str] = []
    for is_word, characters in groupby(text, _is_word_character):
        if is_word:
            words.append("".join(characters))
        else:
            words += [c for c in characters if not c.isspace()]
    return words
