"""Checks of settings, whose errors name the field and the values that it accepts."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from encdec.types import InputError

LARGEST_INT = 2**31 - 1
"""The largest int32: steps and ids have this type on devices."""


def require(ok: bool, owner: object, name: str, accepts: str) -> None:
    """Raises InputError, with the field's value and the values that it accepts, unless `ok`."""
    if not ok:
        value = getattr(owner, name)
        raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


def check_types(owner: Any) -> None:
    """Raises InputError if a field has a value that its type does not have.

    A list becomes a tuple, and a number of NumPy one of Python, so that settings can be compared,
    hashed and written as JSON.
    """
    hints = typing.get_type_hints(type(owner))
    for spec in dataclasses.fields(owner):
        value, hint = _plain(getattr(owner, spec.name)), hints[spec.name]
        object.__setattr__(owner, spec.name, value)
        if isinstance(value, str) and typing.get_origin(hint) is tuple:
            raise InputError(f"{spec.name} = {value!r} is one text: give several, as ({value!r},)")
        require(fits(value, hint), owner, spec.name, f"of type {type_name(hint)}")
        kinds = typing.get_args(hint) if _is_union(hint) else (hint,)
        listed = [one for kind in kinds for one in _listed(kind)]
        if listed and not (value is None and type(None) in kinds):
            accepts = "one of " + ", ".join(map(str, listed))
            require(value in listed, owner, spec.name, accepts)


def _plain(value: Any) -> Any:
    """The value of a field in Python's own types."""
    if isinstance(value, list | tuple):
        return tuple(map(_plain, value))
    return value.item() if getattr(value, "shape", None) == () else value


def _listed(hint: Any) -> tuple[Any, ...]:
    """The values of a Literal type; none of another."""
    return typing.get_args(hint) if typing.get_origin(hint) is Literal else ()


def _is_union(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType)


def type_name(hint: Any) -> str:
    """A type as it is written: `int`, `str | None`, `tuple[str, ...]`."""
    return hint.__name__ if type(hint) is type else str(hint)


LARGEST = 3.4e38
"""Of float32; larger settings would become infinite."""


def check_finite(owner: Any) -> None:
    """Raises InputError if a number in a field is not finite in float32, or no int32."""
    for spec in dataclasses.fields(owner):
        value = getattr(owner, spec.name)
        if isinstance(value, int):
            require(-(2**31) <= value < 2**31, owner, spec.name, "below 2^31")
        if isinstance(value, float):
            require(-LARGEST <= value <= LARGEST, owner, spec.name, "finite in float32")


def check_ranges(owner: Any, *, positive: str = "", fractions: str = "") -> None:
    """Raises InputError if a number is out of range, not finite, or whole and beyond 31 bits.

    Args:
      owner: the settings.
      positive: names of fields, with spaces between them, that must be at least 1, or None.
      fractions: names of fields that must be at least 0 and below 1, or None.
    """
    for spec in dataclasses.fields(owner):
        value = getattr(owner, spec.name)
        fits = not isinstance(value, int) or abs(value) <= LARGEST_INT
        require(fits, owner, spec.name, f"at most {LARGEST_INT}")
    for name in positive.split():
        value = getattr(owner, name)
        require(value is None or value >= 1, owner, name, "at least 1")
    for name in fractions.split():
        value = getattr(owner, name)
        require(value is None or 0 <= value < 1, owner, name, "at least 0 and below 1")
    check_finite(owner)


def fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value can be the value of a field with this type; true is no integer."""
    if typing.get_origin(hint) is Literal:
        return True  # the dataclass itself checks it, with a better message
    if _is_union(hint):
        return any(fits(value, option) for option in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        types_of_items = typing.get_args(hint)
        any_length = types_of_items[-1] is Ellipsis
        is_sequence = isinstance(value, list | tuple)
        as_many = is_sequence and (any_length or len(value) == len(types_of_items))
        return as_many and all(fits(item, types_of_items[0]) for item in value)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def nearest(word: str, options: typing.Iterable[str], prefix: str = "") -> str:
    """Returns `; did you mean X?` with the option nearest to a word, or an empty text.

    That is the shortest that begins or, after a dash, ends with the word, or else one that is
    spelled much alike.

    Args:
      word: what was given.
      options: what is known.
      prefix: is written before the option, such as "--".
    """
    known = list(options)
    if not isinstance(word, str):
        return ""
    parts = (one for one in known if one.startswith(word) or one.endswith(f"-{word}"))
    close = sorted(parts, key=len) if len(word) > 1 else []
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.7)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
