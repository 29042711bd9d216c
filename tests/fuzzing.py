"""Damaged inputs of many kinds, as Hypothesis draws them."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

from encdec.types import InputError

NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.sampled_from([2**31 - 2, 2**31, 2**63, 2**64, 10**400, -(10**400), 0.5, -0.0, 1e38, 1e308]),
    st.floats(),
)
TEXTS = st.text(st.characters(), max_size=8)
"""Any characters, half of a surrogate pair and ends of lines among them."""
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=3)),
    max_leaves=5,
)
"""Any JSON values, and what Python's reader takes for them: NaN, infinities, huge integers."""
DEEP = b"[" * 100_000
"""JSON that is nested deeper than Python's reader goes."""


def refusal(read: Callable[[], object]) -> str | None:
    """The message of the InputError that a call ends with; None if it succeeds."""
    try:
        read()
    except InputError as error:
        return str(error)
    return None


def changed(tree: Any) -> st.SearchStrategy[Any]:
    """JSON values with one of them, at any depth, replaced, removed, or put where none was."""

    def change(path: list[Any], value: Any, how: str) -> Any:
        if not path:
            return value
        copied = copy.deepcopy(tree)
        place = copied
        for part in path[:-1]:
            place = place[part]
        if how == "remove":
            del place[path[-1]]
        elif how == "add" and isinstance(place, dict):
            place[str(value)] = value
        else:
            place[path[-1]] = value
        return copied

    paths = st.sampled_from([*_paths(tree, [])])
    return st.builds(
        change, paths, VALUES, st.sampled_from(["replace", "replace", "remove", "add"])
    )


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Bytes with a few of them overwritten, or without their end."""

    def damage(places: list[int], new: bytes, end: int) -> bytes:
        copied = bytearray(data)
        for place in places:
            copied[place : place + len(new)] = new
        return bytes(copied[:end])

    where = st.integers(0, len(data) - 1)
    ends = st.one_of(st.just(len(data)), where)
    return st.builds(damage, st.lists(where, max_size=3), st.binary(max_size=4), ends)


def json_file(tree: Any) -> st.SearchStrategy[bytes]:
    """The bytes of a file that held these JSON values once."""
    values = st.one_of(changed(tree), VALUES).map(lambda value: json.dumps(value).encode())
    return st.one_of(values, values, damaged(json.dumps(tree).encode()), st.just(DEEP))


def _paths(tree: Any, before: list[Any]) -> Iterator[list[Any]]:
    """The ways from the root to each value."""
    yield before
    items = [*tree.items()] if isinstance(tree, dict) else []
    for name, value in [*enumerate(tree)] if isinstance(tree, list | tuple) else items:
        yield from _paths(value, [*before, name])
