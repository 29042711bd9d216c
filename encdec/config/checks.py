"""Checks of settings, whose errors name the field and the values that it accepts."""

import dataclasses
import difflib
import types
import typing
from typing import Any, Literal

from encdec.types import InputError

_LARGEST = 2**31 - 1
"""The largest int32: steps and ids have this type on devices."""


def require(ok: bool, owner: object, name: str, accepts: str) -> None:
    """Raises InputError, with the field's value and the values that it accepts, unless `ok`."""
    if not ok:
        value = getattr(owner, name)
        raise InputError(f"{name} = {value!r} cannot be used: it must be {accepts}")


def check_literals(owner: Any) -> None:
    """Raises InputError if a field has a value that its Literal type (or None) does not list."""
    hints = typing.get_type_hints(type(owner))
    for spec in dataclasses.fields(owner):
        hint = hints[spec.name]
        if typing.get_origin(hint) in (typing.Union, types.UnionType):
            if getattr(owner, spec.name) is None:
                continue
            hint = typing.get_args(hint)[0]
        if typing.get_origin(hint) is Literal:
            accepts = "one of " + ", ".join(map(str, typing.get_args(hint)))
            require(getattr(owner, spec.name) in typing.get_args(hint), owner, spec.name, accepts)


def check_ranges(owner: Any, *, positive: str = "", fractions: str = "") -> None:
    """Raises InputError if a number is out of range; no whole number may have more than 31 bits.

    Args:
      owner: the settings.
      positive: names of fields, with spaces between them, that must be at least 1, or None.
      fractions: names of fields that must be at least 0 and below 1, or None.
    """
    for spec in dataclasses.fields(owner):
        value = getattr(owner, spec.name)
        fits = not isinstance(value, int) or abs(value) <= _LARGEST
        require(fits, owner, spec.name, f"at most {_LARGEST}")
    for name in positive.split():
        value = getattr(owner, name)
        require(value is None or value >= 1, owner, name, "at least 1")
    for name in fractions.split():
        value = getattr(owner, name)
        require(value is None or 0 <= value < 1, owner, name, "at least 0 and below 1")


def nearest(word: str, options: typing.Iterable[str], prefix: str = "") -> str:
    """Returns `; did you mean X?` with the option most similar to a word, or an empty text.

    Args:
      word: what was given.
      options: what is known.
      prefix: is written before the option, such as "--".
    """
    close = difflib.get_close_matches(word, list(options), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
