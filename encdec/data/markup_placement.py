"""Markup put into a translation: each piece once, pairs nested, where the words around it are.

A gap is a place between the words of the translation: gap g is before word g, and the last one is
after all words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise

from encdec.data.markup import Piece, Removed
from encdec.data.word_spans import Side, side_of, word_spans

Link = tuple[int, int]
"""A word of the source without markup and a word of the translation, as `word_spans` counts."""


@dataclass
class _Node:
    """A placeholder (`last` is `first`), or a pair with what is inside it, and its gaps."""

    first: int
    last: int
    inside: list["_Node"] = field(default_factory=list)
    start: int = 0
    end: int = 0


def restore_markup(removed: Removed, translation: str, links: Sequence[Link]) -> str:
    """The translation with the markup of its source.

    A pair of tags is around the words that are linked to those inside the pair in the source; where
    these are not in one place, around most of them. A placeholder is between the translations of
    the words around it, the nearest first. What is inside a pair stays inside it, and what is not
    stays outside. Where the order of words is the same, so is the order of the markup; white space
    around a piece is that of the source if its neighbours are of the same kind.

    Args:
      removed: the source without its markup.
      translation: of `removed.text`.
      links: between their words; a word may have none. Of several links of a word of the
        translation the first one counts.
    """
    spans = word_spans(translation)
    if not removed.pieces:
        return translation
    source_of = _sources(removed.text, translation, links)
    top = _tree(removed.pieces)
    _place(top, removed.pieces, source_of, 0, len(spans))
    gaps: list[list[int]] = [[] for _ in range(len(spans) + 1)]
    _emit(top, gaps)
    texts = [translation[a:b] for a, b in spans]
    borders = [0, *(place for span in spans for place in span), len(translation)]
    spaces = [translation[borders[2 * g] : borders[2 * g + 1]] for g in range(len(gaps))]
    result = ""
    for g, pieces in enumerate(gaps):
        before = texts[g - 1][-1] if g else ""
        after = texts[g][0] if g < len(texts) else ""
        given = [(n, removed.pieces[n]) for n in pieces]
        result += _written(given, spaces[g], side_of(before), side_of(after))
        result += texts[g] if g < len(texts) else ""
    return result


def _sources(source: str, translation: str, links: Sequence[Link]) -> list[int]:
    """The source word of each word of the translation, -1 for none.

    A punctuation mark without a link is that of the source which is the same, in the same order.
    """
    words, others = ([text[a:b] for a, b in word_spans(text)] for text in (source, translation))
    source_of = [-1] * len(others)
    for i, j in reversed(links):
        source_of[j] = i
    free = [i for i in range(len(words)) if i not in source_of]
    for j, word in enumerate(others):
        if source_of[j] < 0 and side_of(word[0]) == "mark":
            same = next((i for i in free if words[i] == word), -1)
            if same >= 0:
                source_of[j] = same
                free = [i for i in free if i > same]
    return source_of


def _tree(pieces: Sequence[Piece]) -> _Node:
    """All pieces as a node whose inside they are."""
    top = _Node(-1, len(pieces))
    path = [top]
    for n, piece in enumerate(pieces):
        if piece.role == "close":
            path.pop().last = n
            continue
        node = _Node(n, n)
        path[-1].inside.append(node)
        if piece.role == "open":
            path.append(node)
    return top


def _place(
    node: _Node, pieces: Sequence[Piece], source_of: list[int], start: int, end: int
) -> None:
    """Gives a node the words from `start` to `end`, and what is inside it a place among them."""
    node.start, node.end = start, end
    pairs = [child for child in node.inside if child.last > child.first]
    free = [start <= j < end for j in range(len(source_of))]
    gaps = [*range(start, end + 1)]  # those that are not within a pair
    fits = {child.first: _fit(child, pieces, source_of) for child in pairs}
    # The pair with the most words chooses first.
    for child in sorted(pairs, key=lambda one: -fits[one.first][start:end].count(1)):
        a, b = _best_window(fits[child.first], free)
        if a == b:
            a, b = _borrow(pieces[child.first], source_of, free, gaps)
        free[a:b] = [False] * (b - a)
        gaps = [g for g in gaps if not a < g < b]
        _place(child, pieces, source_of, a, b)
    for child in node.inside:
        if child.last == child.first:
            child.start = child.end = _gap(pieces[child.first], source_of, gaps)


def _fit(pair: _Node, pieces: Sequence[Piece], source_of: Sequence[int]) -> list[int]:
    """For each word of the translation 1 if it is linked to the inside of a pair, -1 if it is to
    the outside, 0 if to nothing."""
    inside = range(pieces[pair.first].words, pieces[pair.last].words)
    return [0 if i < 0 else 1 if i in inside else -1 for i in source_of]


def _best_window(fit: Sequence[int], free: Sequence[bool]) -> tuple[int, int]:
    """The shortest run of free words with the largest sum; (0, 0) if no sum is positive."""
    best, window, total, start = 0, (0, 0), 0, 0
    for j, gain in enumerate(fit):
        if not free[j] or total + gain <= 0:
            total, start = 0, j + 1
            continue
        total += gain
        if total > best:
            best, window = total, (start, j + 1)
    return window


def _borrow(
    opening: Piece, source_of: list[int], free: Sequence[bool], gaps: Sequence[int]
) -> tuple[int, int]:
    """A word for a pair whose words have no translation: the one at its place, or none if others
    have that. It is then linked to the pair."""
    gap = _gap(opening, source_of, gaps)
    for j in (gap, gap - 1):
        if 0 <= j < len(free) and free[j]:
            source_of[j] = opening.words
            return j, j + 1
    return gap, gap


def _gap(piece: Piece, source_of: Sequence[int], gaps: Sequence[int]) -> int:
    """The one of some gaps where a piece belongs.

    A piece that touches only one word stays with its translation. Others are after as many as
    possible of the words that are before it in the source, and before as many of the others; each
    counts half as much as the one that is nearer.
    """
    before, after = piece.words - 1, piece.words
    sticks = [
        not space and side == "word"
        for space, side in ((piece.left, piece.left_side), (piece.right, piece.right_side))
    ]
    if sticks == [True, False] and before in source_of:
        gap = len(source_of) - source_of[::-1].index(before)
        if gap in gaps:
            return gap
    if sticks == [False, True] and after in source_of and source_of.index(after) in gaps:
        return source_of.index(after)
    gains = [
        0.0 if i < 0 else 0.5 ** (before - i) if i <= before else -(0.5 ** (i - after))
        for i in source_of
    ]
    sums = [*accumulate(gains, initial=0.0)]
    return max(gaps, key=lambda gap: (sums[gap], -gap))


def _emit(node: _Node, gaps: list[list[int]]) -> None:
    """Adds the numbers of all pieces inside a node to their gaps, in their order there."""
    for child in sorted(node.inside, key=lambda one: (one.start, one.end, one.first)):
        gaps[child.start].append(child.first)
        _emit(child, gaps)
        if child.last > child.first:
            gaps[child.end].append(child.last)


def _written(pieces: Sequence[tuple[int, Piece]], space: str, before: Side, after: Side) -> str:
    """What is between two words: the white space there, with pieces in it.

    Args:
      pieces: with their numbers.
      space: of the translation.
      before, after: what is on both sides.
    """
    if not pieces:
        return space
    first, last = pieces[0][1], pieces[-1][1]
    between = [_between(one, other, space) for one, other in pairwise(pieces)]
    in_a_row = all(b[0] == a[0] + 1 and b[1].left_side == "markup" for a, b in pairwise(pieces))
    same_sides = (first.left_side, last.right_side) == (before, after)
    has_placeholder = any(piece.role == "alone" for _, piece in pieces)
    spaces = [first.left, *between, last.right]
    # A tag alone neither joins words nor parts them.
    may_differ = has_placeholder or "edge" in (before, after)
    as_in_source = in_a_row and same_sides and (may_differ or bool(space) == any(spaces))
    if not as_in_source:
        if has_placeholder:
            spaces[0] = _beside(before, first.left_side, first.left, space)
            spaces[-1] = _beside(after, last.right_side, last.right, space)
        else:
            closing = [piece.role == "close" for _, piece in pieces]
            spaces = [""] * len(spaces)
            spaces[[*closing, False].index(False)] = space
    texts = [piece.text for _, piece in pieces]
    return spaces[0] + "".join(map("".join, zip(texts, spaces[1:], strict=True)))


def _between(one: tuple[int, Piece], other: tuple[int, Piece], space: str) -> str:
    """The white space between two pieces."""
    (number, left), (next_number, right) = one, other
    if next_number == number + 1 and right.left_side == "markup":
        return right.left
    if left.role == "open" or right.role == "close":
        return ""
    at_edge = "edge" in (left.right_side, right.left_side)
    return left.right or right.left or space or (" " if at_edge else "")


def _beside(side: Side, side_in_source: Side, in_source: str, space: str) -> str:
    """The white space between a word and markup with a placeholder."""
    if side == side_in_source:
        return in_source
    if side == "word":
        return in_source or space or " "
    return "" if side == "edge" else space
