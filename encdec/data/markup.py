"""Markup and placeholders in text: tags such as `<b>`, braces such as `{name}`, patterns of a user.

`remove_markup` takes them out of a source text, so that it can be translated without them;
`encdec.data.markup_placement` puts them into the translation.
"""

import re
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from encdec.data.word_spans import Side, side_of, word_spans
from encdec.types import InputError

Role = Literal["open", "close", "alone"]

# The value of an attribute may contain >.
_VALUE = r"""=\s*(?:"[^"<]*"|'[^'<]*')"""
_TAG = re.compile(rf"<!--(?:(?!<!--|-->).)*+-->|<[^\s<>](?:{_VALUE}|[^<>])*+>")
_NAME = re.compile(r"<(/?)([^\s<>/!?][^\s<>/]*)")
_CLOSING = ".,;:!?…)]»”’"
"""Marks that stand right after a word."""


@dataclass(frozen=True)
class Piece:
    """A string of the source text that is kept.

    Attributes:
      text: the string, with what is between its parts where it has several.
      role: open and close are the tags of a pair with words between them; alone is anything else.
      words: how many words of the text without markup are before it. A tag within a word counts as
        if the word were inside its pair.
      left, right: the white space before and after it.
      left_side, right_side: what is beyond the white space.
    """

    text: str
    role: Role
    words: int
    left: str
    right: str
    left_side: Side
    right_side: Side


@dataclass(frozen=True)
class Removed:
    """A text without its markup.

    Attributes:
      text: what is left.
      pieces: the markup in its order. Pairs are nested.
    """

    text: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class _Part:
    """Markup from one place of the source text to another."""

    start: int
    end: int
    role: Role


def keep_patterns(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    """Compiles the regular expressions of a user.

    Raises:
      InputError: one is not a regular expression, or fits the empty text.
    """
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InputError(f"keep = {patterns!r} is not a list of regular expressions: give one")
    compiled = []
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise InputError(f"keep has {pattern!r}, which is not a str")
        try:
            compiled.append(re.compile(pattern))
        except re.error as error:
            raise InputError(f"keep = {pattern!r} is not a regular expression: {error}") from error
        if compiled[-1].fullmatch(""):
            raise InputError(f"keep = {pattern!r} fits the empty text: give one that does not")
    return compiled


def remove_markup(text: str, keep: Sequence[re.Pattern[str]] = (), *, tags: bool = True) -> Removed:
    """Takes out what fits a pattern of `keep`, and tags and braces unless `tags` is False.

    White space around them is remembered, and reduced to that of one side in the text. A tag is
    `<…>` without a space after `<`; braces are `{…}`, with braces inside if they match. A tag
    without its other half, a pair without words inside, and pieces with nothing but white space
    between them count as one placeholder.
    """
    parts = _join(text, _pair(text, _find(text, keep, tags)))
    rest, places = _without(text, parts)
    starts, ends = ([span[side] for span in word_spans(rest)] for side in range(2))
    pieces = []
    for i, (part, at) in enumerate(zip(parts, places, strict=True)):
        before = text[parts[i - 1].end if i else 0 : part.start]
        after = text[part.end : parts[i + 1].start if i + 1 < len(parts) else len(text)]
        words = bisect_right(ends, at)
        if part.role == "close":  # a word that it stands in counts
            words = max(words, bisect_left(starts, at))
        pieces.append(
            Piece(
                text[part.start : part.end],
                part.role,
                words,
                before[len(before.rstrip()) :],
                after[: len(after) - len(after.lstrip())],
                "markup" if i and not before.strip() else side_of(before.rstrip()[-1:]),
                "markup"
                if i + 1 < len(parts) and not after.strip()
                else side_of(after.lstrip()[:1]),
            )
        )
    return Removed(rest, tuple(pieces))


def _find(text: str, keep: Sequence[re.Pattern[str]], tags: bool) -> list[_Part]:
    """All markup in its order; of what begins at one place, a user's pattern before the others."""
    parts, place = [], 0
    braces = _braces(text) if tags else []
    while place < len(text):
        found = [match.span() for pattern in keep if (match := pattern.search(text, place))]
        found = [span for span in found if span[0] < span[1]]
        if tags and (match := _TAG.search(text, place)):
            found.append(match.span())
        found += braces[(at := bisect_left(braces, (place, 0))) : at + 1]
        if not found:
            break
        start, end = min(found, key=lambda span: span[0])
        name = _NAME.match(text[start:end])
        is_tag = name and _TAG.fullmatch(text[start:end]) and text[end - 2] != "/"
        role: Role = "alone" if not (name and is_tag) else "close" if name[1] else "open"
        parts.append(_Part(start, end, role))
        place = end
    return parts


def _braces(text: str) -> list[tuple[int, int]]:
    """Where braces that match begin and end, in order of their beginnings."""
    opened: list[int] = []
    spans = []
    for match in re.finditer("[{}]", text):
        if match[0] == "{":
            opened.append(match.start())
        elif opened:
            spans.append((opened.pop(), match.end()))
    return sorted(spans)


def _pair(text: str, parts: Sequence[_Part]) -> list[_Part]:
    """The parts, with tags that have no other half as placeholders; so pairs are nested."""
    roles: list[Role] = ["alone"] * len(parts)
    opened: list[tuple[str, int]] = []
    places = defaultdict[str, list[int]](list)  # in `opened`, of the tags of a name
    for i, part in enumerate(parts):
        name = _NAME.match(text[part.start : part.end])
        if part.role == "open" and name:
            places[name[2]].append(len(opened))
            opened.append((name[2], i))
        elif part.role == "close" and name and places[name[2]]:
            at = places[name[2]][-1]
            roles[opened[at][1]], roles[i] = "open", "close"
            for other, _ in opened[at:]:
                places[other].pop()
            del opened[at:]
    return [_Part(one.start, one.end, role) for one, role in zip(parts, roles, strict=True)]


def _join(text: str, parts: Sequence[_Part]) -> list[_Part]:
    """The parts, with those that make one placeholder joined."""
    joined: list[_Part] = []
    for part in parts:
        joined.append(part)
        while len(joined) > 1:
            one, other = joined[-2:]
            roles = (one.role, other.role)
            opened = joined[-3] if len(joined) > 2 else None
            if text[one.end : other.start].strip():
                break
            if roles in (("alone", "alone"), ("open", "close")):
                joined[-2:] = [_Part(one.start, other.end, "alone")]
            elif (
                roles == ("alone", "close")
                and opened
                and opened.role == "open"
                and not text[opened.end : one.start].strip()
            ):
                joined[-3:] = [_Part(opened.start, other.end, "alone")]
            else:
                break
    return joined


def _without(text: str, parts: Sequence[_Part]) -> tuple[str, list[int]]:
    """The text without these parts, and where in it each of them was.

    White space on both sides of what is taken out becomes that of one side.
    """
    rest, places, i = "", list[int](), 0
    end = 0
    while i < len(parts):
        last = i  # of the parts with nothing but white space between them
        while last + 1 < len(parts) and not text[parts[last].end : parts[last + 1].start].strip():
            last += 1
        before = text[end : parts[i].start]
        end = parts[last].end
        after = text[end : parts[last + 1].start if last + 1 < len(parts) else len(text)]
        gaps = [before[len(before.rstrip()) :]]
        gaps += [text[parts[n].end : parts[n + 1].start] for n in range(i, last)]
        gaps.append(after[: len(after) - len(after.lstrip())])
        has_placeholder = any(part.role == "alone" for part in parts[i : last + 1])
        rest += before.rstrip()
        start, end = len(rest), end + len(gaps[-1])
        space = _space_instead(rest[-1:], gaps, after.lstrip()[:1], has_placeholder)
        rest += space
        # A tag is where it touches a word; a placeholder, at either side of the white space.
        places += [len(rest) if part.role == "open" else start for part in parts[i : last + 1]]
        i = last + 1
    return rest + text[end:], places


def _space_instead(before: str, gaps: Sequence[str], after: str, has_placeholder: bool) -> str:
    """What separates two characters when the markup between them is gone; "" for no character."""
    if not (before and after):
        return ""
    space = next(filter(None, gaps), "")
    if not has_placeholder:
        return space
    if not space:
        return " " if side_of(before) == side_of(after) == "word" else ""
    return "" if not gaps[-1] and after in _CLOSING else space
