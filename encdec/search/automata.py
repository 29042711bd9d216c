"""Finite automata that read a hypothesis token by token and know whether it contains a phrase.

A phrase is a text. It is found as words: where it begins or ends with a letter or digit, no further
letter or digit stands beside it. It may be cut into tokens in any way; the vocabulary's own way is
the one that is proposed to the search.

The state of an automaton is a number. State 0 has read nothing of the phrase, and is where a word
may begin; state 1 has read nothing of it and is inside a word; a higher state has read a part of
it, or all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from encdec.data.surfaces import Surfaces, is_word_character

ANY = -1
"""As the state before an arc: every state that has no arc of its own with the token."""
NOTHING = -2
"""In padding: no state and no token has this number."""


class Spelling(NamedTuple):
    """A text as the tokens that the vocabulary makes of it.

    Attributes:
      first: the tokens at the beginning of a text.
      middle: the tokens after a word.
    """

    first: tuple[int, ...]
    middle: tuple[int, ...]


@dataclass(frozen=True)
class Automaton:
    """An automaton for a phrase with Q states.

    A token without an arc leads to state 1 if it ends inside a word, and else to state 0.

    Attributes:
      arcs: (state before, token, state after).
      left: for each state the number of tokens, Q in all, that complete the phrase; 0 where it is
        complete.
      following: for each state the first of those tokens, and that of each alternative text.
      guarded: whether a complete phrase only counts once the next token begins no letter or digit.
    """

    arcs: tuple[tuple[int, int, int], ...]
    left: tuple[int, ...]
    following: tuple[tuple[int, ...], ...]
    guarded: bool

    @cached_property
    def _after(self) -> dict[tuple[int, int], int]:
        return {(before, token): after for before, token, after in self.arcs}

    def reads(self, ids: Sequence[int], surfaces: Surfaces) -> bool:
        """Whether the phrase is complete after some token of a text."""
        state = 0
        for token in ids:
            otherwise = self._after.get((ANY, token), int(surfaces.ends_inside[token]))
            state = self._after.get((state, token), otherwise)
            if not self.left[state]:
                return True
        return False

    @property
    def most(self) -> int:
        """The tokens of the phrase where nothing of it has been read."""
        return max(self.left[:2])


class _Path:
    """One text and the ways through it. A place is the number of bytes that have been read.

    Attributes:
      spelling: of the text.
      whole: bytes of the text.
      guarded: whether no letter or digit may stand right before it, and right after it.
      inner: for each place the tokens that go on from there, and the places that they lead to.
      led: the same for tokens that are a space and then a beginning of the text.
      best: for each place the fewest tokens to the end, and the first of them; None for no way.
    """

    def __init__(self, spelling: Spelling, surfaces: Surfaces) -> None:
        self.spelling, self._surfaces = spelling, surfaces
        text = surfaces.text(spelling.middle).removeprefix(b" ")
        self.whole = len(text)
        edges = text.decode("utf-8", "replace")
        self.guarded = [surfaces.has_spaces and is_word_character(c) for c in (edges[0], edges[-1])]

        def tokens(start: int, ends: range, before: bytes = b"") -> dict[int, int]:
            return {i: j for j in ends for i in surfaces.ids.get(before + text[start:j], ())}

        longest = surfaces.longest
        self.inner = [
            tokens(place, range(place + 1, min(place + longest, self.whole) + 1))
            for place in range(self.whole)
        ]
        self.led = tokens(0, range(min(longest, self.whole) + 1), b" ")
        self.best = self._shortest()

    def _shortest(self) -> list[tuple[int, int] | None]:
        """The vocabulary's own spelling comes before all others, that after a word first."""
        best: list[tuple[int, int] | None] = [None] * (self.whole + 1)
        best[self.whole] = 0, NOTHING

        def follow(place: int, i: int, to: int) -> None:
            if best[place] is None and (rest := best[to]):
                best[place] = rest[0] + 1, i

        for ids in (self.spelling.middle, self.spelling.first):
            to = self.whole
            for i in reversed(ids):
                place = to - len(self._surfaces.each[i])
                if place >= 0:  # -1 is before the space
                    follow(place, i, to)
                to = place
        for place in reversed(range(self.whole)):
            ways = [(rest[0], i, j) for i, j in self.inner[place].items() if (rest := best[j])]
            if ways:
                _, i, to = min(ways)
                follow(place, i, to)
        return best

    def fresh(self, inside: bool) -> tuple[int, int]:
        """The fewest tokens of all of the text, inside a word or not, and the first of them."""
        i = (self.spelling.middle if inside else self.spelling.first)[0]
        surface = self._surfaces.each[i]
        rest = self.best[len(surface) - surface.startswith(b" ")]
        assert rest is not None  # it is a place of the spelling
        return rest[0] + 1, i


_Places = frozenset[tuple[int, int]]
"""(alternative, place) of everything that the latest tokens may be a part of."""


@lru_cache(maxsize=1 << 16)
def automaton(spellings: tuple[Spelling, ...], surfaces: Surfaces) -> Automaton:
    """The automaton of a phrase that is any of some alternative texts.

    Args:
      spellings: of each text; no text is empty.
      surfaces: of the vocabulary.
    """
    # A term comes again in many lines, so what was built is kept.
    paths = [_Path(spelling, surfaces) for spelling in spellings]
    states: dict[tuple[_Places, bool], int] = {}  # and whether the state is inside a word

    def step(places: _Places, inside: bool, token: int) -> _Places:
        reached = set()
        for a, path in enumerate(paths):
            starts = [place for b, place in places if b == a and place < path.whole]
            ends = [path.inner[place].get(token) for place in starts]
            ends.append(path.led.get(token))
            if not (inside and path.guarded[0]):
                ends.append(path.inner[0].get(token))
            reached |= {(a, end) for end in ends if end is not None and path.best[end]}
        return frozenset(reached)

    def number(places: _Places, token: int) -> int:
        return states.setdefault((places, bool(surfaces.ends_inside[token])), len(states))

    def from_anywhere() -> dict[int, int]:
        tokens = {i for path in paths for i in (*path.led, *path.inner[0])}
        reached = {i: step(frozenset(), True, i) for i in tokens}
        return {i: number(places, i) for i, places in reached.items() if places}

    for inside in (False, True):
        states[frozenset(), inside] = int(inside)
    common = from_anywhere()
    arcs = [(ANY, i, to) for i, to in common.items()]
    done = 0
    while done < len(states):
        (places, inside), state = list(states.items())[done]
        done += 1
        tokens = {i for a, place in places for i in (*paths[a].inner, {})[place]}
        if not inside:
            tokens |= {i for path in paths for i in path.inner[0]}
        for i in sorted(tokens):
            if reached := step(places, inside, i):
                to = number(reached, i)
                if common.get(i) != to:
                    arcs.append((state, i, to))
    ways = [_ways(places, inside, paths) for places, inside in states]
    return Automaton(
        tuple(arcs),
        tuple(way[0][0] for way in ways),
        tuple(tuple(i for _, i in way) for way in ways),
        any(path.guarded[1] for path in paths),
    )


def _ways(places: _Places, inside: bool, paths: Sequence[_Path]) -> list[tuple[int, int]]:
    """For each alternative the fewest tokens to its end and the first of them, shortest first."""
    found = []
    for a, path in enumerate(paths):
        read = [one for b, place in places if b == a and (one := path.best[place])]
        found.append(min([*read, path.fresh(inside)], key=_tokens))
    return sorted(found, key=_tokens)


def _tokens(way: tuple[int, int]) -> int:
    return way[0]
